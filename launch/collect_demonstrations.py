"""Records episodes of a policy, trained or written by hand, as demonstrations.

python launch/collect_demonstrations.py --run=runs/... --output=demonstrations.npz
python launch/collect_demonstrations.py --run=runs/... --output=minari:pen/mine-v0
python launch/collect_demonstrations.py --function=scripted:reach --task=fetch-reach \\
    --output=reach.npz

A trained policy takes its mean action, and episodes that reach the goal are kept, with rewards and
successes. The file records the policy, the seeds and the outcome of each episode. A Minari data set
is written to the folder that MINARI_DATASETS_PATH names.
"""

import math
from typing import Any

from common import checks, policies, program
from absl import flags

from nppac_tf.errors import UserError

_MAX_ROUNDS = 20

policies.define_flags()
_OUTPUT = flags.DEFINE_string(
    "output", None, "File to write (.npz), or minari:ID for a new Minari data set."
)
_NUM_EPISODES = flags.DEFINE_integer("num_episodes", 25, "Episodes to keep.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed",
    2000,
    "Seed of the initial states. The default is used neither in training nor by evaluate.py, whose "
    "episodes of the same seed start in the same states.",
    lower_bound=0,
)
_ONLY_SUCCESSFUL = flags.DEFINE_boolean(
    "only_successful", True, "Keep only episodes that reach the goal."
)
_MIN_TIME_AT_GOAL = flags.DEFINE_float(
    "min_time_at_goal",
    0.0,
    "Keep only episodes that are at the goal for at least this fraction of the horizon.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main() -> None:
    checks.require_one("run", "saved_model", "function")
    output = _OUTPUT.value or ""
    from nppac_tf.demonstrations.formats import minari, minari_writer

    dataset_id = output.removeprefix(minari.PREFIX) if output.startswith(minari.PREFIX) else None
    if dataset_id is not None:
        minari_writer.check_new_id(dataset_id)
    elif output.endswith(".npz"):
        checks.output_file("output", (".npz",))
    else:
        raise UserError(f"--output must be a file that ends in .npz, or minari:ID; got {output!r}")
    source = policies.load()
    kept, outcomes, num_tried = _collect(source)
    from nppac_tf import demonstrations
    from nppac_tf.demonstrations.recording import Recording
    from nppac_tf.runs import directory

    task = source.task
    metadata = {
        "task": task.name,
        "policy": source.provenance,
        "episodes": outcomes,
        "episodes_tried": num_tried,
        "versions": directory.versions(),
    }
    num_steps = sum(episode.length for episode in kept)
    print(
        f"{source.name} on {task.name}: kept {len(kept)} of {num_tried} episodes, "
        f"{num_steps:,} steps"
    )
    if dataset_id is None:
        indices = tuple(range(len(kept)))
        recording = Recording(task.name, "npz", tuple(kept), indices, metadata=metadata)
        demonstrations.save_demonstrations(recording.demonstrations(), output)
        print(output)
        return
    environment = task.make()
    try:
        folder = minari_writer.write(
            dataset_id,
            kept,
            environment,
            algorithm_name=f"nppac_tf, policy of {source.name}",
            description=f"{len(kept)} episodes of {task.name} by the policy {source.name}",
            provenance=metadata,
        )
    finally:
        environment.close()
    print(folder)


def _collect(source: policies.Policy) -> tuple[list[Any], list[dict[str, Any]], int]:
    """Returns the kept episodes, their outcomes, and the number of episodes tried."""
    from nppac_tf.evaluation import rollouts
    from nppac_tf.runs import display

    wanted = _NUM_EPISODES.value
    kept: list[Any] = []
    outcomes: list[dict[str, Any]] = []
    for tried in range(wanted * _MAX_ROUNDS):
        round_, index = divmod(tried, wanted)
        seed = _SEED.value + round_
        if index == 0:
            with (
                display.ProgressDisplay() as progress,
                progress.busy(f"Acting in {wanted:,} episodes ({len(kept):,} kept so far)"),
            ):
                episodes = rollouts.evaluate(source.act, source.task, wanted, seed, record=True)
            if math.isnan(episodes.any_success[0]) and (
                _ONLY_SUCCESSFUL.value or _MIN_TIME_AT_GOAL.value
            ):
                raise UserError(f"task {source.task.name} has no goal: pass --noonly_successful")
        if _is_wanted(episodes, index):
            kept.append(_recorded(episodes, index))
            outcomes.append({"seed": seed, "index": index, **_outcome(episodes, index)})
        if len(kept) == wanted:
            return kept, outcomes, tried + 1
    raise UserError(
        f"--num_episodes must be at most {len(kept)}, which is how many of {wanted * _MAX_ROUNDS} "
        f"tried episodes are good enough; got {wanted}: ask for fewer, or use a better policy"
    )


def _is_wanted(episodes: Any, index: int) -> bool:
    reached = bool(episodes.any_success[index] > 0) or not _ONLY_SUCCESSFUL.value
    return reached and not episodes.time_at_goal[index] < _MIN_TIME_AT_GOAL.value


def _recorded(episodes: Any, index: int) -> Any:
    import numpy as np

    from nppac_tf.demonstrations.recording import RecordedEpisode

    actions = episodes.actions[index]
    last = np.arange(len(actions)) == len(actions) - 1
    return RecordedEpisode(
        episodes.observations[index],
        actions,
        episodes.final_observations[index],
        rewards=episodes.rewards[index],
        terminals=last & episodes.terminated[index],
        truncations=last & ~episodes.terminated[index],
        successes=episodes.successes[index],
    )


def _outcome(episodes: Any, index: int) -> dict[str, float | None]:
    values = {
        "any_success": float(episodes.any_success[index]),
        "time_at_goal": float(episodes.time_at_goal[index]),
        "final_success": float(episodes.final_success[index]),
        "return": float(episodes.returns[index]),
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}


if __name__ == "__main__":
    program.run(main)
