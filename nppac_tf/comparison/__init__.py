"""Compares methods from the folders of their runs: learning curves, scores with intervals, a page.

Needs only config.json and metrics.csv of each run, as in an archive, and loads no TensorFlow.
"""
