"""Updates of soft actor-critic in Stable-Baselines3 and SBX on synthetic data.

Run it with `python -m benchmarks.peers --contender=sbx --shape=A`, in an environment of its own
(requirements_peers.txt): it imports nothing of `nppac_tf`, and its libraries by name. Both
libraries have squashed actors only.
"""

import argparse
import importlib
import json
import os
from importlib import metadata
from typing import Any

import numpy as np

from benchmarks.measuring import rate
from benchmarks.shapes import CHUNK, NUM_TRANSITIONS, SHAPES, TEMPERATURE, Shape

_LIBRARIES = {"sb3": "stable_baselines3", "sbx": "sbx"}
_PACKAGES = ("torch", "jax", "stable-baselines3", "sbx-rl", "numpy")


def measure_peer(library: str, shape: Shape, seconds: float) -> float:
    """Measures updates per second of a library's SAC, with OMP_NUM_THREADS threads."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    model = importlib.import_module(library).SAC(
        "MlpPolicy",
        _environment(shape.observation_size, shape.action_size),
        buffer_size=NUM_TRANSITIONS,
        batch_size=shape.batch_size,
        ent_coef=TEMPERATURE,
        policy_kwargs={
            "net_arch": {"pi": list(shape.actor_layers), "qf": list(shape.critic_layers)}
        },
        seed=0,
        **({"device": "cpu"} if library == "stable_baselines3" else {}),
    )
    logger = importlib.import_module("stable_baselines3.common.logger")
    model.set_logger(logger.Logger(None, []))
    _fill(model.replay_buffer)

    def chunk() -> int:
        before = int(model._n_updates)
        model.train(gradient_steps=CHUNK, batch_size=shape.batch_size)
        if library == "sbx":
            importlib.import_module("jax").block_until_ready(model.policy.actor_state.params)
        return int(model._n_updates) - before

    chunk()
    return rate(chunk, seconds)


def _environment(observation_size: int, action_size: int) -> Any:
    gymnasium = importlib.import_module("gymnasium")

    class Unused(gymnasium.Env):  # type: ignore[name-defined]
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, [observation_size], np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, [action_size], np.float32)

    return Unused()


def _fill(buffer: Any) -> None:
    """Fills a replay buffer with normal states and rewards, and uniform actions."""
    rng = np.random.default_rng(0)
    for part in (buffer.observations, buffer.next_observations, buffer.rewards):
        part[...] = rng.standard_normal(part.shape, np.float32)
    buffer.actions[...] = rng.uniform(-1.0, 1.0, buffer.actions.shape)
    buffer.pos, buffer.full = 0, True


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--contender", choices=_LIBRARIES, required=True)
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--seconds", type=float, default=3.0)
    given = parser.parse_args()
    found = measure_peer(_LIBRARIES[given.contender], SHAPES[given.shape], given.seconds)
    versions = {f"peers/{name}": metadata.version(name) for name in _PACKAGES}
    print(json.dumps({"updates_per_second": found} | versions))
