"""Tests of the doctor's figure: it draws whatever a recording holds."""

import numpy as np
import pytest
from matplotlib import image

from nppac_tf.doctor import figures

LENGTHS = (6, 4)


def arrays(width, lengths=LENGTHS):
    generator = np.random.default_rng(0)
    return [generator.uniform(-1, 1, (n, width)) for n in lengths]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"goals": [np.array([0, 0, 1, 1, 0, 1.0]), np.array([0, 1, 1, np.nan])]},
        {"rewards": [np.arange(6.0), np.arange(4.0)]},
        {"rewards": [np.full(6, np.nan), np.full(4, np.inf)]},
        {"replay_errors": [np.array([1e-9, 1e-3, np.nan]), np.array([1e-9, 1e-1])]},
        {"action_bounds": (-np.ones(2), np.ones(2)), "suspects": [1], "episode_names": [3, 8]},
        {"horizon": 5, "title": "ours"},
    ],
    ids=lambda options: ", ".join(options) or "plain",
)
@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_the_figure_is_drawn(tmp_path, options, value):
    observations, actions = arrays(3), arrays(2)
    observations[0][2, 1] = value
    actions[1][:] = value
    observations[0][:, 2] = observations[1][:, 2] = 5.0
    figure = figures.demonstrations_overview(observations, actions, **options)
    figure.savefig(tmp_path / "x.png", dpi=50)
    assert image.imread(tmp_path / "x.png").std() > 0.05


def test_a_hundred_episodes_fit(tmp_path):
    lengths = [5] * 100
    figure = figures.demonstrations_overview(
        arrays(2, lengths), arrays(1, lengths), goals=[np.ones(5)] * 100
    )
    figure.savefig(tmp_path / "x.png", dpi=50)
