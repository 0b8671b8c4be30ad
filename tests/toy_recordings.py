"""Sound recordings, with changes, and what the doctor finds in them; damaged files."""

import dataclasses
import re
import types

import numpy as np
from hypothesis import strategies as st

from nppac_tf.demonstrations import load_demonstrations
from nppac_tf.demonstrations.recording import RecordedEpisode, Recording
from nppac_tf.doctor import diagnosis
from nppac_tf.environments.known import KNOWN_TASKS
from nppac_tf.errors import UserError

SIZES = (6, 3)

LENGTH = 60


def make_task(name="toy", sizes=SIZES, horizon=LENGTH, bound=1.0):
    limit = np.full(sizes[1], bound, np.float32)
    return types.SimpleNamespace(
        name=name,
        observation_size=sizes[0],
        action_size=sizes[1],
        action_low=-limit,
        action_high=limit,
        horizon=horizon,
        success_rule=KNOWN_TASKS[name].success_rule if name in KNOWN_TASKS else None,
    )


def make_episode(seed, length=LENGTH, sizes=SIZES):
    """Smooth movements from a start of their own, at rest."""
    generator = np.random.default_rng(seed)
    time = np.arange(length + 1)[:, None] / 20
    time = time + 0.3 * np.expm1(-time / 0.3)

    def wave(size):
        return np.sin(time * generator.uniform(0.5, 2, size) + generator.uniform(0, 0.6, size))

    states = wave(sizes[0])
    rewards = states[1:, 0]
    return RecordedEpisode(
        states[:-1],
        0.9 * wave(sizes[1])[:-1],
        states[-1],
        rewards=rewards,
        terminals=np.zeros(length, np.bool_),
        truncations=np.arange(length) == length - 1,
        next_observations=states[1:],
    )


def make_recording(episodes=None, **changes):
    episodes = tuple(make_episode(seed) for seed in range(8)) if episodes is None else episodes
    recording = Recording("toy", "npz", tuple(episodes), tuple(range(len(episodes))))
    return dataclasses.replace(recording, **changes)


def with_episode(position, **changes):
    """The sound recording with one episode changed."""
    episodes = [make_episode(seed) for seed in range(8)]
    episodes[position] = dataclasses.replace(episodes[position], **changes)
    return make_recording(episodes)


def find(recording, topic, task=None, simulation=None):
    """The one finding of a topic."""
    findings = diagnosis.diagnose(recording, task or make_task(), simulation)
    found = [finding for finding in findings if finding.topic == topic]
    assert len(found) == 1, [finding.topic for finding in findings]
    return found[0]


def check(finding, expected):
    shown = f"{finding.severity}: {finding.topic}: {finding.message}"
    assert re.match(expected, shown), shown
    assert finding.advice


def damage(path, data):
    """Changes up to three bytes of a file and cuts it off, as hypothesis draws it."""
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])


def assert_error_or_numbers(source):
    """Asserts that loading a source that may be damaged is a UserError or gives numbers."""
    try:
        demonstrations = load_demonstrations(source)
    except UserError:
        return
    assert np.isfinite(demonstrations.observations).all()
