"""An environment in the user's own module, from Python and from the launchers."""

import sys

import gymnasium
import numpy as np
import pytest
from launching import Launchers

import nppac_tf as nppac

MODULE = """
import gymnasium
import numpy as np


class Reach(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.position = self.np_random.uniform(-1.0, 1.0, 2)
        return self.position.astype(np.float32), {}

    def step(self, action):
        self.position = self.position + 0.2 * np.asarray(action)
        success = bool(np.linalg.norm(self.position) < 0.2)
        return self.position.astype(np.float32), float(success), False, False, {"success": success}


gymnasium.register("Reach-v0", Reach, max_episode_steps=20)


class Goals(Reach):
    observation_space = gymnasium.spaces.Dict(
        {"goal": gymnasium.spaces.Box(-9.0, 9.0, (2, 1)), "state": Reach.observation_space}
    )

    def reset(self, **kwargs):
        return self._parts(super().reset(**kwargs)[0]), {}

    def step(self, action):
        position, reward, terminated, truncated, info = super().step(action)
        info = {"reached": np.array([info["success"]])}
        return self._parts(position), reward, terminated, truncated, info

    def _parts(self, position):
        return {"goal": np.zeros((2, 1), np.float32), "state": position}


def make_goals():
    return gymnasium.wrappers.TimeLimit(Goals(), 20)
"""
TASK = "reach_module:Reach-v0"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the module; removes what it registers afterwards."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "reach_module.py").write_text(MODULE)
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    sys.modules.pop("reach_module", None)
    gymnasium.registry.pop("Reach-v0", None)


@pytest.fixture(scope="module")
def task(place):
    return nppac.make_task(TASK)


@pytest.fixture(scope="module")
def demonstrations(task):
    """Straight paths to the origin, as plain arrays."""
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(8):
        position, observations, actions = rng.uniform(-1, 1, 2), [], []
        for _ in range(12):
            action = np.clip(-2 * position, -1, 1) + 0.02 * rng.normal(size=2)
            observations.append(position)
            actions.append(np.clip(action, -1, 1))
            position = position + 0.2 * actions[-1]
        episodes.append((observations, actions))
    return nppac.Demonstrations.from_episodes(episodes, name="reach").conform(task)


@pytest.fixture(scope="module")
def prior_file(demonstrations, place):
    config = nppac.PriorConfig(prior="gp", scale_floor=0.05)
    prior = nppac.fit_prior(demonstrations, config)
    nppac.save_prior(prior.prior, place / "prior.npz")
    return place / "prior.npz", prior


def test_an_agent_learns(task, demonstrations, prior_file, place):
    _, prior = prior_file
    agent = nppac.NppacAgent.for_task(
        task,
        prior,
        nppac.AgentConfig(actor="network", actor_layers=(32, 32), critic_layers=(32, 32)),
    )
    untrained = nppac.evaluate(agent.policy, task, 20).summary()
    config = nppac.TrainingConfig(
        num_env_steps=200,
        num_environments=4,
        steps_per_epoch=100,
        pretraining_steps=800,
        critic_warmup_steps=0,
        batch_size=64,
        eval_interval=200,
        eval_episodes=4,
        checkpoint_interval=200,
    )
    rows = nppac.train(agent, task, demonstrations, config=config)
    trained = nppac.evaluate(agent.policy, task, 20, record=True)
    assert untrained["eval/any_success"] < 0.6
    assert trained.summary()["eval/any_success"] >= 0.9
    assert trained.summary()["eval/time_at_goal"] > untrained["eval/time_at_goal"] + 0.2
    assert [row["env_steps"] for row in rows] == [0, 200]
    nppac.export_policy(agent, place / "exported", task)


def test_launchers_find_the_module_in_the_working_directory(place, demonstrations, prior_file):
    nppac.save_demonstrations(demonstrations, place / "reach.npz")
    launchers = Launchers(place)
    arguments = ("--task=reach_module:Reach-v0", "--demonstrations=reach.npz", "--prior=gp")
    outcome = launchers.run("fit_prior", *arguments, "--num_episodes=5")
    assert (outcome.code, outcome.errors) == (0, "")
    assert "gp on reach_module:Reach-v0, 6 episodes fitted, 2 held out" in outcome.output

    outcome = launchers.run("evaluate", "--prior_file=prior.npz", f"--task={TASK}")
    assert (outcome.code, outcome.errors) == (0, "")
    (line,) = (line for line in outcome.output.splitlines() if "any-time success" in line)
    assert float(line.split()[3]) >= 0.9


def test_launchers_take_a_function_named_parts_and_another_success(place, demonstrations):
    nppac.save_demonstrations(demonstrations, place / "reach.npz")
    launchers = Launchers(place)
    task = ("--task=reach_module:make_goals", "--observation_keys=state", "--success_key=reached")
    sizes = ("--num_env_steps=100", "--steps_per_epoch=100", "--eval_interval=100")
    small = (*sizes, "--checkpoint_interval=100", "--critic_layers=8", "--eval_episodes=5")
    flags = (*task, *small, "--demonstrations=reach.npz", "--output_dir=goals", "--actor_layers=8")
    outcome = launchers.run("train", *flags)
    assert (outcome.code, outcome.errors) == (0, "")

    # The run knows the parts and the success; the module must be named.
    outcome = launchers.run("evaluate", "--run=goals", task[0], "--num_episodes=5")
    assert (outcome.code, outcome.errors) == (0, "")
    assert "any-time success" in outcome.output
    arguments = ("--saved_model=goals/policy", task[0], "--num_episodes=5")
    outcome = launchers.run("evaluate", *arguments)
    assert "any-time success" in outcome.output

    outcome = launchers.run("fit_prior", task[0], "--demonstrations=reach.npz")
    assert outcome.errors.startswith(
        "error: reach.npz: demonstrations must have observation size 4"
    )


@pytest.mark.usefixtures("prior_file")
def test_a_video_needs_an_environment_that_draws(place):
    arguments = ("--prior_file=prior.npz", f"--task={TASK}", "--video=a.gif")
    outcome = Launchers(place).run("evaluate", *arguments)
    assert outcome.code == 1
    (line,) = outcome.errors.splitlines()
    assert line.startswith(f"error: task '{TASK}' cannot be drawn")
    assert not (place / "a.gif").exists()
