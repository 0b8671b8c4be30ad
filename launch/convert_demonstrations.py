"""Converts demonstrations to npz, Minari or LeRobot v3.0, whole or in part.

python launch/convert_demonstrations.py --demonstrations=SOURCE --output=demonstrations.npz
python launch/convert_demonstrations.py --demonstrations=SOURCE --output=minari:lift/human-v0
python launch/convert_demonstrations.py --demonstrations=SOURCE --output=lerobot:lift --fps=20
python launch/convert_demonstrations.py --demonstrations=SOURCE --leave_out=3,17 --output=good.npz

Observations and actions are kept as recorded: parts are joined, images are left out, and nothing is
clipped. docs/data_formats.md lists what each format holds.
"""

import contextlib
import re

from common import policies, program
from absl import flags

from nppac_tf.errors import UserError

_DEMONSTRATIONS = flags.DEFINE_string("demonstrations", None, "Anything that train.py reads.")
_OUTPUT = flags.DEFINE_string(
    "output", None, "File to write (.npz), minari:ID or lerobot:FOLDER, each of them new."
)
_TASK = flags.DEFINE_string(
    "task", None, "Task of the demonstrations, whose spaces and environment Minari stores."
)
_OBSERVATION_KEYS = flags.DEFINE_list(
    "observation_keys", [], "Parts of the observation to keep, in this order (default: all)."
)
_FPS = flags.DEFINE_float(
    "fps", None, "Steps per second, for LeRobot (default: what the data say).", lower_bound=1e-3
)
_EPISODES = flags.DEFINE_list(
    "episodes", [], "Episodes to keep, such as 0-4,7, numbered as by the doctor (default: all)."
)
_LEAVE_OUT = flags.DEFINE_list("leave_out", [], "Episodes to leave out, such as 3,17.")


def main() -> None:
    source, output = _DEMONSTRATIONS.value, _OUTPUT.value
    if not source or not output:
        missing = "output" if source else "demonstrations"
        raise UserError(f"--{missing} must be given; got none")
    from nppac_tf import demonstrations, environments
    from nppac_tf.demonstrations.formats import saving

    saving.check_output(output)
    keys = _OBSERVATION_KEYS.value
    kept, left_out = _numbers("episodes"), _numbers("leave_out")
    recording = demonstrations.load_recording(source, keys)
    if kept or left_out:
        known = set(recording.indices)
        unknown = left_out - known  # Which `select` refuses, as it does those of --episodes.
        recording = recording.select(unknown or (kept or known) - left_out)
    data = recording.demonstrations()
    print(f"{data!r}, {recording.format}")
    with contextlib.ExitStack() as stack:
        environment = None
        if _TASK.value:
            task = environments.make_task(_TASK.value, observation_keys=keys)
            policies.require_sizes("data", (data.observation_size, data.action_size), task)
            environment = stack.enter_context(contextlib.closing(task.make()))
        path, notices = saving.save_recording(recording, output, _FPS.value, environment)
    for notice in (*data.notices, *notices):
        print(notice)
    print(path)


def _numbers(flag: str) -> set[int]:
    """The numbers that a list such as 0-4,7 names."""
    numbers: set[int] = set()
    for item in flags.FLAGS[flag].value or []:
        match = re.fullmatch(r"\s*(\d{1,6})(?:-(\d{1,6}))?\s*", item)
        if match is None:
            raise UserError(f"--{flag} must be numbers and ranges, such as 0-4,7; got {item!r}")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise UserError(f"--{flag} must have ranges that rise, such as 0-4; got {item!r}")
        numbers.update(range(first, last + 1))
    return numbers


if __name__ == "__main__":
    program.run(main)
