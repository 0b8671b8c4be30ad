"""The programs of examples/tf_agents, on small budgets."""

import importlib
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import greedy_policy
from tf_agents.replay_buffers import tf_uniform_replay_buffer
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from nppac_tf.agents.nppac import NppacAgent

FOLDER = pathlib.Path(__file__).parents[2] / "examples/tf_agents"
NAMES = sorted(path.stem for path in FOLDER.glob("*.py"))
FIELDS = trajectory.Trajectory._fields
OBSERVATIONS = np.array([[1.0, 0.0, 0.5], [0.0, -1.0, 3.0]], np.float32)
# `import nppac_tf` fails in it.
ALONE = (
    "import runpy, sys; sys.modules['nppac_tf'] = None; "
    "sys.argv.pop(0); runpy.run_path(sys.argv[0], run_name='__main__')"
)
SHORT = [
    "--num_steps=100",
    "--initial_steps=100",
    "--eval_interval=50",
    "--eval_episodes=1",
    "--demonstrations=1",
]


@pytest.fixture
def program(monkeypatch):
    """Imports a program by its name, beside the others."""
    monkeypatch.syspath_prepend(FOLDER)
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)


def run_alone(*arguments):
    """What run_policy.py prints without the project."""
    arguments = [FOLDER / "run_policy.py", *arguments, "--num_episodes=1"]
    command = [sys.executable, "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def actions_of(policy):
    step = ts.restart(tf.constant(OBSERVATIONS), len(OBSERVATIONS))
    return policy.action(step, policy.get_initial_state(len(OBSERVATIONS))).action


def test_the_expert_shows_how_it_is_done(program):
    demonstrations, steps = program("pendulum").demonstrate(num_episodes=3)
    assert demonstrations.observations.shape == (600, 3)
    assert len(steps) == 3 * 201  # And from the last step of each to the next episode.
    assert sum(step.reward for step in steps) / 3 > -400  # An idle pendulum has about -1200.
    taken = [step for step in steps if not step.is_boundary()]
    np.testing.assert_array_equal([step.action for step in taken], demonstrations.actions)


@pytest.mark.parametrize(
    ("agent", "replay"),
    [
        ("nppac", "uniform"),
        pytest.param("sac", "uniform", marks=pytest.mark.slow),
        ("nppac", "reverb"),
    ],
)
def test_actor_and_learner(program, tmp_path, agent, replay):
    if replay == "reverb":
        pytest.importorskip("reverb", reason="needs dm-reverb: pip install 'nppac-tf[reverb]'")
    arguments = [f"--root_dir={tmp_path}", f"--agent={agent}", f"--replay={replay}", *SHORT]
    curve = program("actor_learner").main(arguments)
    assert [steps for steps, _ in curve] == [100, 150, 200]
    assert all(-2000 < mean < 0 for _, mean in curve)
    before, after = (mean for _, mean in curve[::2])
    assert before != after
    weights = tmp_path / "policies/checkpoints/policy_checkpoint_0000000100"
    given = f"--policy={tmp_path}/policies/greedy_policy", f"--checkpoint={weights}"
    assert "in 1 episodes" in run_alone(*given)


def test_driver_goes_on_and_its_policy_needs_tf_agents_alone(program, tmp_path, capsys):
    main, arguments = program("driver").main, [f"--root_dir={tmp_path}", *SHORT]
    first = main(arguments)
    assert int(first.train_step_counter) == 100
    assert capsys.readouterr().out.count("steps  return") == 2
    again = main([*arguments, "--num_steps=150"])
    assert int(again.train_step_counter) == 150
    assert capsys.readouterr().out.count("steps  return") == 1  # The third.
    weights = zip(first.actor_network.variables, again.actor_network.variables, strict=True)
    # Further by 50 steps of Adam, which are no longer than about its rate: not restarted.
    assert 0 < max(np.abs(one - other).max() for one, other in weights) < 0.1

    policy = tmp_path / "policy"
    saved = actions_of(tf.saved_model.load(str(policy)))
    np.testing.assert_allclose(
        saved, actions_of(greedy_policy.GreedyPolicy(again.policy)), rtol=1e-5
    )
    assert "in 1 episodes" in run_alone(f"--policy={policy}")


def test_recurrent_networks_learn_from_sequences(program):
    agent = program("recurrent").main(
        [
            "--demonstrations=1",
            "--num_episodes=1",
            "--updates_per_episode=2",
            "--sequence_length=4",
            "--units=8",
        ]
    )
    assert isinstance(agent, NppacAgent)
    assert agent.prior.informative
    assert int(agent.train_step_counter) == 2
    assert len(tf.nest.flatten(agent.collect_policy.policy_state_spec)) == 2


def test_batches_stay_within_an_episode(program):
    pendulum = program("pendulum")
    spec = trajectory.Trajectory(*(tf.TensorSpec([], tf.int32, name) for name in FIELDS))
    buffer = tf_uniform_replay_buffer.TFUniformReplayBuffer(spec, 1, max_length=100)
    middle, last, first = 1, 2, 0
    for index, step in enumerate(10 * [first, middle, last]):
        values = {name: tf.constant([index]) for name in FIELDS}
        buffer.add_batch(spec._replace(**values | {"step_type": tf.constant([step])}))
    steps = next(iter(pendulum.batches(buffer, batch_size=20, num_steps=2)))[0]
    assert 0 < len(steps.step_type) < 20
    assert last not in steps.step_type[:, 0]
    np.testing.assert_array_equal(steps.reward[:, 1] - steps.reward[:, 0], 1)
    assert last in steps.step_type[:, 1]
