"""Records episodes of a trained policy as demonstrations.

python launch/collect_demonstrations.py --run=runs/... --output=demonstrations.npz
python launch/collect_demonstrations.py --run=runs/... --output=minari:pen/mine-v0

The mean action is taken, and episodes that reach the goal are kept. The file says which policy
acted, with which seeds, and how each episode went. A Minari data set, which goes into the folder
that MINARI_DATASETS_PATH names, holds rewards and ends of episodes as well.
"""

import math

import policy_flags
import program
import usage
from absl import flags

from nppac_tf.errors import UserError

_MAX_ROUNDS = 20

policy_flags.define_policy_source()
_OUTPUT = flags.DEFINE_string(
    "output", None, "The file to write (.npz), or minari:ID for a new Minari data set."
)
_NUM_EPISODES = flags.DEFINE_integer("num_episodes", 25, "Episodes to keep.", lower_bound=1)
_SEED = flags.DEFINE_integer(
    "seed",
    1000,
    "Of the episodes; evaluations of the same seed begin in the same states.",
    lower_bound=0,
)
_ONLY_SUCCESSFUL = flags.DEFINE_boolean(
    "only_successful", True, "Keep only episodes that reach the goal."
)
_MIN_TIME_AT_GOAL = flags.DEFINE_float(
    "min_time_at_goal",
    0.0,
    "Keep only episodes at the goal for at least this share of the horizon.",
    lower_bound=0.0,
    upper_bound=1.0,
)


def main() -> None:
    usage.require_one("run", "saved_model")
    output = _OUTPUT.value
    if output is None:
        raise UserError("--output must be given: a file name that ends in .npz, or minari:ID")
    if not output.endswith(".npz") and not output.startswith("minari:"):
        raise UserError(
            f"--output must be a file name that ends in .npz, or minari:ID; got {output!r}"
        )
    from nppac_tf.demonstrations.formats import minari
    from nppac_tf.demonstrations.recording import RecordedEpisode

    dataset_id = None
    if output.startswith(minari.PREFIX):
        dataset_id = output.removeprefix(minari.PREFIX)
        minari.check_new_id(dataset_id)
    from nppac_tf import demonstrations
    from nppac_tf.evaluation import rollouts
    from nppac_tf.runs import directory

    name, policy, task, provenance = policy_flags.load_policy_source()
    kept: list[RecordedEpisode] = []
    outcomes: list[dict[str, float | None]] = []
    num_tried = 0
    for seed in range(_SEED.value, _SEED.value + _MAX_ROUNDS):
        episodes = rollouts.evaluate(policy, task, _NUM_EPISODES.value, seed, record=True)
        if math.isnan(episodes.any_success[0]) and (
            _ONLY_SUCCESSFUL.value or _MIN_TIME_AT_GOAL.value
        ):
            raise UserError(f"task {task.name} knows no success: pass --noonly_successful")
        for index in range(_NUM_EPISODES.value):
            if len(kept) == _NUM_EPISODES.value:
                break
            num_tried += 1
            if _wanted(episodes, index):
                kept.append(_recorded(episodes, index))
                outcomes.append({"seed": seed, "index": index, **_outcome(episodes, index)})
        if len(kept) == _NUM_EPISODES.value:
            break
    else:
        raise UserError(
            f"{_NUM_EPISODES.value} episodes are wanted; {len(kept)} of {num_tried} were good "
            "enough: ask for fewer, or use a better policy"
        )
    metadata = {
        "task": task.name,
        "policy": provenance,
        "episodes": outcomes,
        "episodes_tried": num_tried,
        "versions": directory.versions(),
    }
    num_steps = sum(episode.length for episode in kept)
    print(f"{name} on {task.name}: kept {len(kept)} of {num_tried} episodes, {num_steps:,} steps")
    if dataset_id is None:
        recorded = demonstrations.Demonstrations.from_episodes(
            [(episode.observations, episode.actions) for episode in kept], task.name, metadata
        )
        demonstrations.save_demonstrations(recorded, output)
        print(output)
        return
    environment = task.make()
    try:
        folder = minari.write(
            dataset_id,
            kept,
            environment,
            algorithm_name=f"nppac_tf, policy of {name}",
            description=f"{len(kept)} episodes of {task.name} by a trained policy's mean action",
            provenance=metadata,
        )
    finally:
        environment.close()
    print(folder)


def _recorded(episodes, index: int):
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
    )


def _wanted(episodes, index: int) -> bool:
    reached = bool(episodes.any_success[index] > 0) or not _ONLY_SUCCESSFUL.value
    long_enough = not episodes.time_at_goal[index] < _MIN_TIME_AT_GOAL.value
    return reached and long_enough


def _outcome(episodes, index: int) -> dict[str, float | None]:
    values = {
        "any_success": float(episodes.any_success[index]),
        "time_at_goal": float(episodes.time_at_goal[index]),
        "final_success": float(episodes.final_success[index]),
        "return": float(episodes.returns[index]),
    }
    return {name: None if math.isnan(value) else value for name, value in values.items()}


if __name__ == "__main__":
    program.run(main)
