"""Reports problems of demonstrations, and what to do about them.

python launch/inspect_demonstrations.py --demonstrations=FILE --output=report.png

Success is computed from the observations by the task's rule, or else as recorded, and the actions
are replayed in the simulator. Files that training refuses are examined as far as they can be read.
The exit code is 1 if an error is found.
"""

import dataclasses
import sys
from collections.abc import Sequence
from typing import Any

from common import checks, program
from absl import flags

from nppac_tf.errors import UserError

_DEMONSTRATIONS = flags.DEFINE_string(
    "demonstrations", None, "embedded:NAME, minari:ID, a file or a folder; several with commas."
)
_TASK = flags.DEFINE_string("task", None, "Task of the demonstrations (default: guessed).")
_OBSERVATION_KEYS = flags.DEFINE_list(
    "observation_keys", [], "Parts of the observation to use, in this order (default: all)."
)
_OUTPUT = flags.DEFINE_string("output", None, "Figure to write (.png, .pdf or .svg).")

# What a data set says of itself, as far as it is one line.
_STATED = (
    *("version", "minari_version", "environment", "environment_version", "robot", "tasks", "fps"),
    *("algorithm_name", "author", "description", "observation_keys"),
)
# Findings that do not concern the states and actions of an episode.
_HARMLESS = ("off by one", "rewards", "success flags")


def main() -> None:
    if _DEMONSTRATIONS.value is None:
        raise UserError("--demonstrations must be given: embedded:pen, minari:ID or a file")
    output = None
    if _OUTPUT.value is not None:
        output = checks.output_file("output", (".png", ".pdf", ".svg"))
    from nppac_tf import demonstrations, environments
    from nppac_tf.doctor import diagnosis, simulator_replay

    keys = _OBSERVATION_KEYS.value
    task = None
    if _TASK.value is not None:
        task = environments.make_task(_TASK.value, observation_keys=keys)
    recording = demonstrations.load_recording(_DEMONSTRATIONS.value, keys)
    known = "unknown: pass --task for its sizes, bounds and goal"
    if task is not None:
        known = task.name
    elif (task := simulator_replay.likeliest_task(recording, keys)) is not None:
        source = "named by the file" if recording.environment_id else "guessed from the sizes"
        known = f"{task.name}, {source}: pass --task if it is another"
    recording = _with_names(recording, task)
    simulation = simulator_replay.simulate(task, recording) if task is not None else None
    findings = diagnosis.diagnose(recording, task, simulation)
    goals = diagnosis.goal_flags(recording, task) if task is not None else None
    if goals is None and all(_says_success(episode) for episode in recording.episodes):
        goals = [episode.successes.astype("float32") for episode in recording.episodes]
    title = f"{recording.name} ({recording.format}); task {known}"
    _print_summary(title, recording, task, goals)
    for finding in findings:
        _print_finding(finding)
    if any(finding.severity != "note" and finding.episodes for finding in findings):
        given = [f"--demonstrations={_DEMONSTRATIONS.value}"]
        if keys:
            given.append(f"--observation_keys={','.join(keys)}")
        chosen = ["--leave_out=NUMBERS", "--output=chosen.npz"]
        command = program.command(*given, *chosen, launcher="convert_demonstrations")
        print(f"To leave episodes out:\n  {command}\n")
    counts = {
        severity: sum(finding.severity == severity for finding in findings)
        for severity in diagnosis.SEVERITIES
    }
    print(", ".join(f"{count} {name}{'s' * (count != 1)}" for name, count in counts.items()))
    if output is not None:
        figure = _figure(recording, task, goals, simulation, findings)
        output.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(output, dpi=150)
        print(output)
    if counts["error"]:
        sys.exit(1)


def _with_names(recording: Any, task: Any) -> Any:
    """The recording with the task's names of dimensions, where it has none and they fit."""
    from nppac_tf.demonstrations.recording import dimension_names
    from nppac_tf.environments.standard import part_sizes

    if task is None or not task.observation_keys or "observation_names" in recording.metadata:
        return recording
    names = dimension_names(part_sizes(task.observation_parts))
    metadata = {**recording.metadata, "observation_names": names}
    return dataclasses.replace(recording, metadata=metadata)


def _says_success(episode: Any) -> bool:
    return episode.successes is not None and episode.successes.shape == (episode.length,)


def _print_summary(title: str, recording: Any, task: Any, goals: Any) -> None:
    import numpy as np

    from nppac_tf.runs import display

    lengths = [episode.length for episode in recording.episodes]
    rows = [
        (name.replace("_", " "), _one_line(value))
        for name, value in recording.metadata.items()
        if name in _STATED
    ]
    rows += [("episodes", f"{len(lengths):,}"), ("steps", f"{sum(lengths):,}")]
    if lengths:
        first = recording.episodes[0]
        median = np.median(lengths)
        rows += [
            ("shortest, median, longest", f"{min(lengths)}, {median:g}, {max(lengths)}"),
            ("observation size", f"{first.observations.shape[1]}"),
            ("action size", f"{first.actions.shape[1]}"),
        ]
    returns = [e.rewards.sum() for e in recording.episodes if e.rewards is not None]
    if returns:
        low, median, high = np.min(returns), np.median(returns), np.max(returns)
        rows.append(
            ("recorded return: min, median, max", f"{low:,.4g}, {median:,.4g}, {high:,.4g}")
        )
    if goals and all(len(goal) for goal in goals):
        horizon = task.horizon if task is not None else None
        is_longer = horizon is not None and max(lengths) > horizon
        for steps in (None, horizon) if is_longer else (None,):
            name = f", the first {steps} steps" if steps else ", all steps" * is_longer
            at_goal = [goal[:steps] == 1 for goal in goals]
            any_success = np.mean([flags.any() for flags in at_goal])
            unknown = [np.isnan(goal[:steps]).sum() for goal in goals]
            spent = [
                flags.sum() / max((steps or len(flags)) - count, 1)
                for flags, count in zip(at_goal, unknown, strict=True)
            ]
            rows += [
                (f"A, any-time success{name}", f"{any_success:.2f}"),
                (f"B, time at goal{name}", f"{np.mean(spent):.2f}"),
            ]
    display.print_table(title, ("", "value"), rows)


def _one_line(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _print_finding(finding: Any) -> None:
    print(f"{finding.severity.upper()}  {finding.topic}: {finding.message}.")
    if finding.episodes:
        shown = ", ".join(map(str, finding.episodes[:20]))
        more = len(finding.episodes) - 20
        print(f"    Episodes: {shown}{f' and {more} more' if more > 0 else ''}")
    print(f"    What to do: {finding.advice}")
    print()


def _figure(recording: Any, task: Any, goals: Any, simulation: Any, findings: Sequence[Any]) -> Any:
    import numpy as np

    from nppac_tf.doctor import figures

    episodes, indices = recording.episodes, recording.indices
    widths = {(e.observations.shape[1], e.actions.shape[1]) for e in episodes if e.length}
    if len(widths) != 1 or not all(e.length and len(e.observations) for e in episodes):
        raise UserError("--output needs episodes of one size; remove or repair the others first")
    bounds = None
    if task is not None and task.action_size == episodes[0].actions.shape[1]:
        bounds = (np.asarray(task.action_low), np.asarray(task.action_high))
    rewards = [episode.rewards for episode in episodes if episode.rewards is not None]
    suspects = {
        index
        for finding in findings
        if finding.severity != "note" and finding.topic not in _HARMLESS
        for index in finding.episodes
    }
    return figures.demonstrations_overview(
        [episode.observations for episode in episodes],
        [episode.actions for episode in episodes],
        goals=goals,
        rewards=rewards if len(rewards) == len(episodes) else None,
        replay_errors=simulation.replay.errors if simulation is not None else None,
        action_bounds=bounds,
        episode_names=indices,
        suspects=[k for k, index in enumerate(indices) if index in suspects],
        horizon=task.horizon if task is not None else None,
        observation_names=recording.names("observations"),
        action_names=recording.names("actions"),
        title=f"{recording.name}: {len(episodes)} episodes, "
        f"{sum(e.length for e in episodes):,} steps",
    )


if __name__ == "__main__":
    program.run(main)
