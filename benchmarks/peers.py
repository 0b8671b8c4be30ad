"""Updates of Stable-Baselines3's and SBX's soft actor-critic on synthetic data.

Run by the Python of an environment of their own (requirements_peers.txt), through `serving`. It
imports nothing of this project, and its libraries by name only, since the project does not have
them. Both squash their actor: they have no unsquashed one.
"""

import importlib
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

CHUNK = 50
TEMPERATURE = 0.1


def prepare(settings: dict[str, Any]) -> tuple[dict[str, Any], Callable[[], int]]:
    """Of `serving`.

    Args:
        settings: "contender": sb3 or sbx; "shape": the fields of a `shapes.Shape`;
            "num_transitions" in the replay; "threads".

    Returns:
        The units of each layer of actor and critics, and versions; and a chunk of updates.
    """
    torch = importlib.import_module("torch")
    torch.set_num_threads(settings["threads"])
    shape = settings["shape"]
    library = {"sb3": "stable_baselines3", "sbx": "sbx"}[settings["contender"]]
    layers = {"pi": list(shape["actor_layers"]), "qf": list(shape["critic_layers"])}
    model = importlib.import_module(library).SAC(
        "MlpPolicy",
        _environment(shape["observation_size"], shape["action_size"]),
        buffer_size=settings["num_transitions"],
        batch_size=shape["batch_size"],
        ent_coef=TEMPERATURE,
        policy_kwargs={"net_arch": layers},
        seed=0,
        **({"device": "cpu"} if library == "stable_baselines3" else {}),
    )
    logger = importlib.import_module("stable_baselines3.common.logger")
    model.set_logger(logger.Logger(None, []))
    _fill(model.replay_buffer)

    def chunk() -> int:
        model.train(gradient_steps=CHUNK, batch_size=shape["batch_size"])
        if library == "sbx":
            importlib.import_module("jax").block_until_ready(model.policy.actor_state.params)
        return CHUNK

    chunk()
    if int(model._n_updates) != CHUNK:
        raise RuntimeError(f"{library} must do {CHUNK} updates; it did {model._n_updates}")
    said = {"sizes": _sizes(model, library), "versions": _versions(), "squashed": True}
    return said, chunk


def _environment(observation_size: int, action_size: int) -> Any:
    gymnasium = importlib.import_module("gymnasium")

    class Unused(gymnasium.Env):  # type: ignore[name-defined]
        observation_space = gymnasium.spaces.Box(-np.inf, np.inf, [observation_size], np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, [action_size], np.float32)

    return Unused()


def _fill(buffer: Any) -> None:
    """Normal states and rewards, uniform actions."""
    rng = np.random.default_rng(0)
    for part in (buffer.observations, buffer.next_observations, buffer.rewards):
        part[...] = rng.standard_normal(part.shape, np.float32)
    buffer.actions[...] = rng.uniform(-1.0, 1.0, buffer.actions.shape)
    buffer.pos, buffer.full = 0, True


def _sizes(model: Any, library: str) -> dict[str, list[list[int]]]:
    """[inputs, units] of each matrix of actor and critics, the critics' in one list."""
    if library == "stable_baselines3":
        parts = {"actor": model.actor.parameters(), "critics": model.critic.parameters()}
        shapes = {name: [list(p.shape)[::-1] for p in part] for name, part in parts.items()}
    else:
        jax, policy = importlib.import_module("jax"), model.policy
        parts = {"actor": policy.actor_state.params, "critics": policy.qf_state.params}
        shapes = {name: [list(p.shape) for p in jax.tree.leaves(t)] for name, t in parts.items()}
    return {name: [s for s in part if len(s) > 1] for name, part in shapes.items()}


def _versions() -> dict[str, str]:
    names = ("torch", "jax", "stable-baselines3", "sbx-rl", "numpy")
    return {f"peers/{name}": metadata.version(name) for name in names}
