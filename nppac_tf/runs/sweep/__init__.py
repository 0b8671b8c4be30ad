"""Sweeps: a grid of methods and seeds, trained in parallel through Ray.

Only the workers load TensorFlow.
"""
