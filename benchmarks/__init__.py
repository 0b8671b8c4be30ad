"""Measures speed: updates beside other libraries, whole training, start-up and priors.

`python -m benchmarks` (or `make benchmark`) measures everything and writes results/benchmark.json.
Every measurement is a process of its own, with equal threads, and the contenders take turns, so
that load on the machine affects all of them. `updates`, `peers`, `training` and `prior_costs` also
run alone with `python -m`; they print JSON.
"""
