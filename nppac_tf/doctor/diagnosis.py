"""The examination of a recording: all checks, and the tasks that it may belong to.

The checks read arrays only; what a simulator says is passed in as a `Simulation`. A check that does
not apply to a recording reports nothing.
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

__all__ = ["SEVERITIES", "Finding", "Simulation", "candidate_tasks", "diagnose", "goal_flags"]

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
    expertise.check_modes,
    expertise.check_rewards,
)


def candidate_tasks(recording: Recording) -> list[str]:
    """Names the tasks that a recording may belong to.

    That is the task named in the file, otherwise every known task of the same sizes. A name such as
    "module:Name-v0" is ignored: making the task would import a module that the file chooses.
    """
    named = recording.environment_id
    if named is None:
        widths = [(e.observations.shape[1], e.actions.shape[1]) for e in recording.episodes]
        return tasks_of_sizes(max(set(widths), key=widths.count) if widths else None)
    if ":" in named:
        return []
    known = known_task(named)
    return [known.name if known else named]


def diagnose(
    recording: Recording, task: DoctorTask | None = None, simulation: Simulation | None = None
) -> list[Finding]:
    """Examines a recording.

    Args:
        recording: Recording to examine; see `load_recording`.
        task: Intended task. Without it, sizes, bounds and goals are not checked.
        simulation: Result of `simulator_replay.simulate` for that task, if available.

    Returns:
        The findings, most severe first.
    """
    examination = Examination(recording, task, simulation)
    findings = [finding for check in _CHECKS for finding in check(examination)]
    if not any(finding.severity == "error" for finding in findings):
        try:
            recording.demonstrations()
        except UserError as error:
            findings.append(Finding("error", "refused", str(error), "Repair the file."))
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
