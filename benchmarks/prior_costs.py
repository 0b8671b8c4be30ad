"""What a Gaussian-process prior costs: to fit, to evaluate, in memory."""

import resource
import sys
import time
from typing import Any

import numpy as np
import tensorflow as tf

from benchmarks.serving import rate
from nppac_tf import priors
from nppac_tf.config import PriorConfig
from nppac_tf.demonstrations import Demonstrations

_EPISODE_STEPS = 100
_NOISE = 0.05


def prepare(settings: dict[str, Any]) -> tuple[dict[str, float], None]:
    """Of `serving`.

    Args:
        settings: "prior": fields of a `PriorConfig`; sizes "num_points", "observation_size" and
            "action_size"; "batch_size" of predictions, and "seconds" for which to make them.

    Returns:
        "fit_seconds"; "predictions_per_second", states at which location and deviation were
        computed; "peak_memory_mb" of the whole process, libraries included, in 10^6 bytes.
    """
    data = synthetic_demonstrations(
        settings["num_points"], settings["observation_size"], settings["action_size"]
    )
    started = time.perf_counter()
    prior = priors.fit_prior(data, PriorConfig(**settings["prior"]))
    fitted = time.perf_counter() - started
    statistics = tf.function(prior.statistics)
    rng = np.random.default_rng(1)
    size = (settings["batch_size"], settings["observation_size"])
    states = tf.constant(rng.standard_normal(size, np.float32))

    def chunk() -> int:
        return len(statistics(states).scale.numpy())

    chunk()
    answer = rate(chunk, settings["seconds"])
    return {
        "fit_seconds": fitted,
        "predictions_per_second": answer["rate"],
        "peak_memory_mb": peak_memory() / 1e6,
    }, None


def synthetic_demonstrations(
    num_points: int, observation_size: int, action_size: int
) -> Demonstrations:
    """Episodes of smooth states, and actions that are a smooth function of them, with noise.

    States are sines of random phase and frequency; actions tanh of a random linear map.
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
    """Bytes of memory that this process has held at most."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak
