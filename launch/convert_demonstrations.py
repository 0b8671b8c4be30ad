"""Converts demonstrations to npz, Minari or LeRobot v3.0.

python launch/convert_demonstrations.py --demonstrations=SOURCE --output=demonstrations.npz
python launch/convert_demonstrations.py --demonstrations=SOURCE --output=minari:lift/human-v0
python launch/convert_demonstrations.py --demonstrations=SOURCE --output=lerobot:lift --fps=20

Observations and actions are kept as recorded: parts are joined, images are left out, and nothing is
clipped. docs/data_formats.md lists what each format holds.
"""

import contextlib

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


def main() -> None:
    source, output = _DEMONSTRATIONS.value, _OUTPUT.value
    if not source or not output:
        missing = "output" if source else "demonstrations"
        raise UserError(f"--{missing} must be given; got none")
    from nppac_tf import demonstrations, environments
    from nppac_tf.demonstrations.formats import saving

    saving.check_output(output)
    keys = _OBSERVATION_KEYS.value
    recording = demonstrations.load_recording(source, keys)
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


if __name__ == "__main__":
    program.run(main)
