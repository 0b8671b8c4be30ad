"""Flags that name a policy and its task, and loading of what they name."""

import importlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from absl import flags

from common import checks
from nppac_tf.config import REWARDS
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS
flags.disclaim_key_flags()  # The flags belong to the launcher that defines them here.


class Policy(NamedTuple):
    """A policy and its task."""

    name: str
    act: Callable[[Any], Any]  # Observations [B, D] -> actions [B, A].
    task: Any  # nppac_tf.environments.Task
    provenance: dict[str, Any]  # Ready for JSON; names no folder.


def define_flags() -> None:
    """Defines --run, --policy, --saved_model, --function, and the flags of `make_task`."""
    flags.DEFINE_string("run", None, "Folder of a run.")
    flags.DEFINE_enum("policy", "last", ("last", "best"), "Which policy of a run to use.")
    flags.DEFINE_string("saved_model", None, "Folder of an exported policy, of any format.")
    flags.DEFINE_string(
        "function",
        None,
        "Policy of your own, module:function: from observations [B, D] to actions [B, A].",
    )
    flags.DEFINE_string("task", None, "Task to act in (default: the task of training).")
    flags.DEFINE_enum("reward", None, REWARDS, "Reward of the task (default: as in training).")
    define_observation_flags()


def define_observation_flags() -> None:
    """Defines --observation_keys and --success_key, which `make_task` reads."""
    flags.DEFINE_list(
        "observation_keys", None, "Parts of a Dict observation to use (default: as in training)."
    )
    flags.DEFINE_string(
        "success_key", None, "Entry of a step's info that says whether it is at the goal."
    )


def load() -> Policy:
    """Loads the policy that a flag names; UserError if it is missing or does not fit the task."""
    if FLAGS.function:
        provenance = {"function": FLAGS.function}
        return Policy(FLAGS.function, _imported(FLAGS.function), make_task(), provenance)
    if FLAGS.run:
        path, config = checks.run_folder("run")
        confirm_module(path, config.task)
        task = make_task(config.task, config.reward, config.observation_keys, config.success_key)
        from nppac_tf.runs import inputs
        from nppac_tf.runs.directory import RunDirectory

        directory = RunDirectory(path)
        trained = inputs.task_of(config)
        require_sizes("policy", (trained.observation_size, trained.action_size), task)
        act, updates = directory.load_policy(trained, FLAGS.policy)
        name = f"{path.name} after {directory.steps_after(updates):,} steps"
        return Policy(name, act, task, {**directory.provenance(), "updates": updates})
    path = checks.existing("saved_model")
    from nppac_tf.serving import runtimes
    from nppac_tf.serving.metadata import load_metadata

    metadata = load_metadata(path)
    confirm_module(path, FLAGS.task or metadata["task"] or "")
    task = make_task(
        metadata["task"],
        metadata["reward"],
        metadata["observation_keys"],
        metadata["success_key"],
    )
    require_sizes("policy", (metadata["observation_size"], metadata["action_size"]), task)
    return Policy(path.resolve().name, runtimes.load_policy(path), task, metadata)


def _imported(name: str) -> Callable[[Any], Any]:
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"--function must be module:function, of a module in this folder or installed; got "
            f"{name!r} ({error})"
        ) from error
    if not callable(found):
        raise UserError(f"--function must name a function; got {name!r}, which is {found!r:.60}")
    return found


def confirm_module(path: pathlib.Path, task: str) -> None:
    """Raises UserError if a task named by a file would import a module; --task allows it."""
    if ":" in task and task != FLAGS.task:
        raise UserError(f"{path} is for {task}, a Python module; if you trust it, pass that --task")


def make_task(
    name: str | None = None,
    reward: str | None = None,
    observation_keys: Sequence[str] = (),
    success_key: str | None = None,
) -> Any:
    """Makes the task of --task and the like, or else of the arguments."""
    name = FLAGS.task or name
    if not name:
        raise UserError("--task must be given; nothing else names a task here")
    from nppac_tf import environments

    return environments.make_task(
        name,
        FLAGS.reward or reward or REWARDS[0],
        observation_keys=FLAGS.observation_keys or observation_keys,
        success_key=FLAGS.success_key or success_key,
    )


def require_sizes(what: str, sizes: tuple[int, int], task: Any) -> None:
    """Raises UserError unless the observation and action size are those of the task."""
    if sizes != (wanted := (task.observation_size, task.action_size)):
        requirement = f"observation and action size {wanted} for task {task.name}"
        raise UserError(f"{what} must have {requirement}; got {sizes}")
