"""Cost of a prior fitted to N synthetic points: time, memory and size.

Run it with `python -m benchmarks.prior_costs --prior=gp --num_points=20000`.
"""

import argparse
import json
import pathlib
import resource
import sys
import tempfile
import time
from types import SimpleNamespace

import numpy as np
import tensorflow as tf

from benchmarks.measuring import rate
from benchmarks.shapes import SHAPES
from nppac_tf import priors
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import PRIORS, AgentConfig, PriorConfig
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.priors.base import BehavioralPrior
from nppac_tf.serving.saved_model import export_policy

_EPISODE_STEPS = 100
_NOISE = 0.05


def measure_prior(
    config: PriorConfig,
    num_points: int,
    observation_size: int,
    action_size: int,
    seconds: float = 1.0,
) -> dict[str, float]:
    """Fits a prior to synthetic demonstrations and measures its costs.

    Args:
        config: The prior.
        num_points: Demonstration points N.
        observation_size: Components of an observation.
        action_size: Components of an action.
        seconds: Time to repeat predictions for.

    Returns:
        fit_seconds: Time to fit, compilation included.
        seconds_per_1000_states: Time to predict location and scale of 1,000 states at once.
        prior_mb: Size of the prior's file (10^6 bytes).
        export_mb: Size of an exported policy with this prior.
        peak_memory_mb: Peak memory of the process up to the predictions, libraries included.
    """
    data = synthetic_demonstrations(num_points, observation_size, action_size)
    started = time.perf_counter()
    prior = priors.fit_prior(data, config.unscaled())
    fit_seconds = time.perf_counter() - started
    statistics = tf.function(prior.statistics)
    states = np.random.default_rng(1).standard_normal((1000, observation_size), np.float32)

    def chunk() -> int:
        return len(statistics(tf.constant(states)).scale.numpy())

    chunk()
    predicted = rate(chunk, seconds)
    peak = peak_memory()
    prior_bytes, export_bytes = _sizes(prior)
    return {
        "fit_seconds": fit_seconds,
        "seconds_per_1000_states": 1000 / predicted,
        "prior_mb": prior_bytes / 1e6,
        "export_mb": export_bytes / 1e6,
        "peak_memory_mb": peak / 1e6,
    }


def _sizes(prior: BehavioralPrior) -> tuple[int, int]:
    """Bytes of the prior's file, and of an exported policy with it."""
    task = SimpleNamespace(
        observation_size=prior.observation_size,
        action_low=-np.ones(prior.action_size, np.float32),
        action_high=np.ones(prior.action_size, np.float32),
    )
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        priors.save_prior(prior, folder / "prior.npz")
        export_policy(NppacAgent.for_task(task, prior, AgentConfig()), folder / "policy")
        files = [path for path in (folder / "policy").rglob("*") if path.is_file()]
        return (folder / "prior.npz").stat().st_size, sum(path.stat().st_size for path in files)


def synthetic_demonstrations(
    num_points: int, observation_size: int, action_size: int
) -> Demonstrations:
    """Makes episodes of smooth states, with noisy actions that depend smoothly on them.

    States are sines of random phase and frequency; actions are tanh of a random linear map.
    """
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((observation_size, action_size)) / np.sqrt(observation_size)
    episodes = []
    for start in range(0, num_points, _EPISODE_STEPS):
        steps = np.arange(min(_EPISODE_STEPS, num_points - start))[:, np.newaxis]
        frequency = rng.uniform(0.02, 0.2, observation_size)
        states = np.sin(frequency * steps + rng.uniform(0, 2 * np.pi, observation_size))
        noise = _NOISE * rng.standard_normal((len(steps), action_size))
        actions = np.clip(np.tanh(states @ weights) + noise, -1.0, 1.0)
        episodes.append((states.astype(np.float32), actions.astype(np.float32)))
    return Demonstrations.from_episodes(episodes, name="synthetic")


def peak_memory() -> int:
    """Peak memory of this process in bytes."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():  # Linux's ru_maxrss would count the parent process too.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prior", choices=PRIORS, default="gp")
    parser.add_argument("--num_points", type=int, default=5000)
    parser.add_argument("--num_inducing_points", type=int, default=PriorConfig.num_inducing_points)
    parser.add_argument("--observation_size", type=int, default=SHAPES["B"].observation_size)
    parser.add_argument("--action_size", type=int, default=SHAPES["B"].action_size)
    parser.add_argument("--seconds", type=float, default=1.0)
    given = parser.parse_args()
    prior_config = PriorConfig(prior=given.prior, num_inducing_points=given.num_inducing_points)
    sizes = (given.num_points, given.observation_size, given.action_size)
    print(json.dumps(measure_prior(prior_config, *sizes, given.seconds)))
