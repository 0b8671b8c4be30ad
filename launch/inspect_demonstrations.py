"""Says what is wrong with demonstrations, and what to do about it.

python launch/inspect_demonstrations.py --demonstrations=FILE --output=report.png

Success is told by the task's own rule from the observations, and the actions are replayed in the
simulator. Files that training would refuse are examined as far as they can be read. The exit code
is 1 if an error is found.
"""

import pathlib
import sys

import program
from absl import flags

from nppac_tf.errors import UserError

_DEMONSTRATIONS = flags.DEFINE_string(
    "demonstrations", None, "embedded:NAME, minari:ID, a file, or the folder of a Minari data set."
)
_TASK = flags.DEFINE_string("task", None, "What they are for; by default guessed.")
_OUTPUT = flags.DEFINE_string("output", None, "A figure to draw (.png, .pdf or .svg).")

# Findings that say nothing against an episode's states and actions.
_HARMLESS = ("off by one", "rewards", "success flags")


def main() -> None:
    output = _OUTPUT.value
    if _DEMONSTRATIONS.value is None:
        raise UserError("--demonstrations must be given: embedded:pen, minari:ID or a file")
    if output is not None and not output.endswith((".png", ".pdf", ".svg")):
        raise UserError(f"--output must end in .png, .pdf or .svg; got {output!r}")
    from nppac_tf import demonstrations, environments
    from nppac_tf.doctor import diagnosis, simulator_replay

    recording = demonstrations.load_recording(_DEMONSTRATIONS.value)
    task, known = None, "unknown: pass --task for its sizes, bounds and goal"
    if _TASK.value is not None:
        task = environments.make_task(_TASK.value)
        known = task.name
    else:
        task = simulator_replay.likeliest_task(recording)
        if task is not None:
            source = "as the file says" if recording.environment_id else "guessed by the sizes"
            known = f"{task.name}, {source}: pass --task if it is another"
    simulation = simulator_replay.simulate(task, recording) if task is not None else None
    findings = diagnosis.diagnose(recording, task, simulation)
    goals = diagnosis.goal_flags(recording, task.name) if task is not None else None
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
        _draw(recording, task, goals, simulation, findings, output)
        print(output)
    if counts["error"]:
        sys.exit(1)


def _print_summary(title: str, recording, task, goals) -> None:
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
            ("recorded return: least, median, most", f"{low:,.4g}, {median:,.4g}, {high:,.4g}")
        )
    if goals and all(len(flags) for flags in goals):
        spans = [("all steps", max(lengths))]
        if task.horizon is not None:
            spans.append((f"the first {task.horizon} steps", task.horizon))
        for name, steps in spans:
            at_goal = [flags[:steps] == 1 for flags in goals]
            over = [len(flags) if name == "all steps" else steps for flags in at_goal]
            any_success = np.mean([flags.any() for flags in at_goal])
            share = np.mean([flags.sum() / n for flags, n in zip(at_goal, over, strict=True)])
            rows += [
                (f"A, any-time success, {name}", f"{any_success:.2f}"),
                (f"B, time at goal, {name}", f"{share:.2f}"),
            ]
    display.print_table(title, ("", "value"), rows)


def _print_finding(finding) -> None:
    print(f"{finding.severity.upper()}  {finding.topic}: {finding.message}.")
    if finding.episodes:
        shown = ", ".join(map(str, finding.episodes[:20]))
        more = len(finding.episodes) - 20
        print(f"    Episodes: {shown}{f' and {more} more' if more > 0 else ''}")
    print(f"    What to do: {finding.advice}")
    print()


def _draw(recording, task, goals, simulation, findings, output: str) -> None:
    import numpy as np

    from nppac_tf.doctor import figures

    episodes, indices = recording.episodes, recording.indices
    widths = {(e.observations.shape[1], e.actions.shape[1]) for e in episodes if e.length}
    if len(widths) != 1 or not all(e.length and len(e.observations) for e in episodes):
        raise UserError("--output needs episodes of one size; leave out or mend the others first")
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
    figure = figures.demonstrations_overview(
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
    pathlib.Path(output).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)


if __name__ == "__main__":
    program.run(main)
