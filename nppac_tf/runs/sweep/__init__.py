"""Sweeps: a grid of methods and seeds, trained side by side through Ray.

Only a worker loads TensorFlow; what plans, shows and collects does without.
"""
