"""Environment steps per second of training as a whole: collection, prior statistics, updates."""

import time
from typing import Any

from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import AgentConfig, PriorConfig, TrainingConfig
from nppac_tf.demonstrations import load_demonstrations
from nppac_tf.environments import make_task
from nppac_tf.training import loop


def prepare(settings: dict[str, Any]) -> tuple[dict[str, float], None]:
    """Of `serving`.

    Args:
        settings: "task", and the fields of configurations "prior", "agent" and "training" that are
            not the default. Training has no evaluation, save before its first step and after its
            last; these and the first epoch, in which all is compiled, are not timed.

    Returns:
        "steps_per_second", from the end of the first epoch to that of the last.
    """
    task = make_task(settings["task"], "binary")
    data = load_demonstrations(settings["demonstrations"], task)
    prior = priors.fit_prior(data, PriorConfig(**settings["prior"]))
    layers: dict[str, Any] = {name: tuple(value) for name, value in settings["layers"].items()}
    agent = NppacAgent.for_task(task, prior, AgentConfig(**settings["agent"], **layers))
    num_steps = settings["num_env_steps"]
    config = TrainingConfig(
        **settings["training"],
        num_env_steps=num_steps,
        eval_interval=num_steps,
        eval_episodes=1,
        pretraining_steps=0,
    )
    epochs = _Epochs()
    loop.train(agent, task, data, config=config, observers=[epochs])
    (first, began), (last, ended) = epochs.ends[0], epochs.ends[-1]
    return {"steps_per_second": (last - first) / (ended - began)}, None


class _Epochs:
    """Notes when each epoch ends; of the rest that an observer is told it does nothing."""

    def __init__(self) -> None:
        self.ends: list[tuple[float, float]] = []  # (environment steps, seconds)

    def on_progress(self, *_: Any) -> None:
        """See `training.Observer`."""

    on_evaluation = on_notice = on_progress

    def on_epoch(self, row: loop.Metrics) -> None:
        """See `training.Observer`."""
        self.ends.append((row["env_steps"], time.perf_counter()))
