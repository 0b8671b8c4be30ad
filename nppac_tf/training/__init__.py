"""Training: the loop, and its parts: collector, replay, learner, monitor, checkpoints."""
