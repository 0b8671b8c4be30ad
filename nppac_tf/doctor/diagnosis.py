"""What is wrong with a data set of demonstrations, and what to do about it.

Every check looks at arrays alone; where a simulator has replayed the data, its results come in as
data too (`Simulation`). A check that cannot be made of a recording says nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from nppac_tf.demonstrations.recording import Recording
from nppac_tf.doctor import expertise, integrity
from nppac_tf.doctor.findings import (
    SEVERITIES,
    DoctorTask,
    Examination,
    Finding,
    Simulation,
    goal_flags,
)
from nppac_tf.environments.known import known_task, tasks_of_sizes
from nppac_tf.errors import UserError

__all__ = [
    "SEVERITIES",
    "Finding",
    "Simulation",
    "candidate_tasks",
    "diagnose",
    "goal_flags",
    "not_replayed",
]

_CHECKS: tuple[Callable[[Examination], Iterator[Finding]], ...] = (
    integrity.check_reading,
    integrity.check_sizes,
    integrity.check_lengths_agree,
    integrity.check_finite,
    expertise.check_simulation,
    integrity.check_joins,
    integrity.check_duplicates,
    integrity.check_action_bounds,
    integrity.check_dimensions,
    integrity.check_episode_scales,
    expertise.check_lengths,
    expertise.check_goal,
    expertise.check_rewards,
)


def candidate_tasks(recording: Recording) -> list[str]:
    """The tasks that a recording may be of: as the file says, else the known ones of its sizes.

    "module:Name-v0" is not followed: it would import the module, and a file may name any.
    """
    named = recording.environment_id
    if named is not None:
        if ":" in named:
            return []
        known = known_task(named)
        return [known.name if known else named]
    return tasks_of_sizes(_sizes(recording))


def diagnose(
    recording: Recording, task: DoctorTask | None = None, simulation: Simulation | None = None
) -> list[Finding]:
    """Examines a recording.

    Args:
        recording: Of `load_recording`.
        task: What the demonstrations are meant for; without it no sizes, bounds or goals are known.
        simulation: Of that task, where it could be replayed.

    Returns:
        The findings, the gravest first.
    """
    examination = Examination(recording, task, simulation)
    findings = [finding for check in _CHECKS for finding in check(examination)]
    if not any(finding.severity == "error" for finding in findings):
        try:
            recording.demonstrations()
        except UserError as error:
            findings.append(Finding("error", "refused", str(error), "Mend the file."))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def not_replayed(task_name: str) -> Finding:
    """What to say of a task whose simulator cannot be set to where a demonstration began."""
    return Finding(
        "note",
        "not replayed",
        f"the observations of {task_name} do not tell its simulator's state, so the actions were "
        "not replayed: shifted or shuffled actions would not be noticed, nor data of another task "
        "of these sizes",
        "Look at the held-out error that launch/fit_prior.py reports: actions that do not belong "
        "to their observations cannot be predicted.",
    )


def _sizes(recording: Recording) -> tuple[int, int] | None:
    widths = [(e.observations.shape[1], e.actions.shape[1]) for e in recording.episodes]
    return max(set(widths), key=widths.count) if widths else None
