"""Flags that name a policy and the task that it acts in, and loading what they name."""

from collections.abc import Callable
from typing import Any, NamedTuple

import checkout  # noqa: F401
import path_flags
from absl import flags

from nppac_tf import config
from nppac_tf.errors import UserError

FLAGS = flags.FLAGS

# What a launcher defines through this module counts as its own in its --help.
flags.disclaim_key_flags()


class PolicySource(NamedTuple):
    """A policy, what it is for, and where it comes from."""

    name: str
    policy: Callable[[Any], Any]  # observations [B, D] -> actions [B, A]
    task: Any  # nppac_tf.environments.Task
    provenance: dict[str, Any]  # JSON-able; names no folder


def define_policy_source() -> None:
    """Defines --run and --saved_model, of which one is to be given, and --task and --reward."""
    flags.DEFINE_string("run", None, "Folder of a run, for its latest policy.")
    flags.DEFINE_string("saved_model", None, "Folder of an exported policy.")
    flags.DEFINE_string("task", None, "Where to act; by default where the policy was trained.")
    flags.DEFINE_enum("reward", None, config.REWARDS, "Of a hand task; by default as in training.")


def load_policy_source() -> PolicySource:
    """Loads the policy that --run or --saved_model names.

    Raises:
        UserError: if there is none, or it does not fit the task.
    """
    if FLAGS.run:
        path = path_flags.require_run("run")
        trained = path_flags.run_configuration(path)
        path_flags.refuse_a_module(path, trained.task)
        task = make_task(trained.task, trained.reward)
        from nppac_tf import environments
        from nppac_tf.runs import directory as rundir

        directory = rundir.RunDirectory(path)
        home = environments.make_task(trained.task, trained.reward)
        require_sizes("policy", (home.observation_size, home.action_size), task)
        policy, updates = directory.load_policy(home)
        provenance = {**directory.provenance(), "updates": updates}
        return PolicySource(directory.path.name, policy, task, provenance)
    path = path_flags.require_saved_model("saved_model")
    from nppac_tf import export

    metadata = export.load_metadata(path)
    sizes = (metadata["observation_size"], metadata["action_size"])
    if not FLAGS.task:
        path_flags.refuse_a_module(path, metadata["task"] or "")
    task = make_task(metadata["task"], metadata["reward"], sizes)
    require_sizes("policy", sizes, task)
    return PolicySource(path.resolve().name, export.load_policy(path), task, metadata)


def make_task(
    name: str | None = None, reward: str | None = None, sizes: tuple[int, int] | None = None
) -> Any:
    """The task of --task and --reward, and where these are not given, of the arguments.

    Args:
        name: A task.
        reward: Of a hand task.
        sizes: Of observation and action, which tell a task where nothing names one.

    Raises:
        UserError: if nothing names a task, or it is unknown.
    """
    name = FLAGS.task or name
    if name is None and sizes:
        from nppac_tf.environments import known

        candidates = known.tasks_of_sizes(sizes)
        name = candidates[0] if len(candidates) == 1 else None
    if name is None:
        told = f" (observation size {sizes[0]}, action size {sizes[1]})" if sizes else ""
        raise UserError(f"--task must be given: nothing else says what this is for{told}")
    from nppac_tf import environments

    return environments.make_task(name, FLAGS.reward or reward or config.REWARDS[0])


def require_sizes(what: str, sizes: tuple[int, int], task: Any) -> None:
    """Raises UserError unless sizes of observation and action are the task's."""
    wanted = (task.observation_size, task.action_size)
    if sizes != wanted:
        raise UserError(
            f"{what} must have observation size {wanted[0]} and action size {wanted[1]} for task "
            f"{task.name}; got {sizes[0]} and {sizes[1]}"
        )
