"""Runs: from a configuration to a folder with metrics, checkpoints and a policy; sweeps of runs."""
