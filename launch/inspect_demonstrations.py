"""Reports problems of demonstrations, and what to do about them.

python launch/inspect_demonstrations.py --demonstrations=FILE --output=report.png

Success is computed from the observations by the task's rule, and the actions are replayed in the
simulator. Files that training refuses are examined as far as they can be read. The exit code is 1
if an error is found.
"""

import sys
from collections.abc import Sequence
from typing import Any

from common import checks, program
from absl import flags

from nppac_tf.errors import UserError

_DEMONSTRATIONS = flags.DEFINE_string(
    "demonstrations", None, "embedded:NAME, minari:ID, a file, or the folder of a Minari data set."
)
_TASK = flags.DEFINE_string("task", None, "Task of the demonstrations (default: guessed).")
_OUTPUT = flags.DEFINE_string("output", None, "Figure to write (.png, .pdf or .svg).")

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

    task = environments.make_task(_TASK.value) if _TASK.value is not None else None
    recording = demonstrations.load_recording(
        _DEMONSTRATIONS.value, task.observation_keys if task is not None else ()
    )
    known = "unknown: pass --task for its sizes, bounds and goal"
    if task is not None:
        known = task.name
    elif (task := simulator_replay.likeliest_task(recording)) is not None:
        source = "named by the file" if recording.environment_id else "guessed from the sizes"
        known = f"{task.name}, {source}: pass --task if it is another"
    simulation = simulator_replay.simulate(task, recording) if task is not None else None
    findings = diagnosis.diagnose(recording, task, simulation)
    goals = diagnosis.goal_flags(recording, task) if task is not None else None
    title = f"{recording.name} ({recording.format}); task {known}"
    _print_summary(title, recording, task, goals)
    for finding in findings:
        _print_finding(finding)
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


def _print_summary(title: str, recording: Any, task: Any, goals: Any) -> None:
    import numpy as np

    from nppac_tf.runs import display

    lengths = [episode.length for episode in recording.episodes]
    rows = [("episodes", f"{len(lengths):,}"), ("steps", f"{sum(lengths):,}")]
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
        for steps in (None, task.horizon) if task.horizon is not None else (None,):
            name = "all steps" if steps is None else f"the first {steps} steps"
            at_goal = [goal[:steps] == 1 for goal in goals]
            any_success = np.mean([flags.any() for flags in at_goal])
            time_at_goal = np.mean([flags.sum() / (steps or len(flags)) for flags in at_goal])
            rows += [
                (f"A, any-time success, {name}", f"{any_success:.2f}"),
                (f"B, time at goal, {name}", f"{time_at_goal:.2f}"),
            ]
    display.print_table(title, ("", "value"), rows)


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
        title=f"{recording.name}: {len(episodes)} episodes, "
        f"{sum(e.length for e in episodes):,} steps",
    )


if __name__ == "__main__":
    program.run(main)
