"""Small stand-ins: a task, a prior, networks of known outputs, a toy environment."""

import contextlib
import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network

from nppac_tf.agents.actors import ActorNetwork
from nppac_tf.demonstrations import Demonstrations
from nppac_tf.environments import Task, make_task
from nppac_tf.priors import BehavioralPrior, PriorStatistics


class FakeTask(NamedTuple):
    """Of a task, what `NppacAgent.for_task` reads."""

    observation_size: int
    action_low: np.ndarray
    action_high: np.ndarray

    @classmethod
    def of(cls, observation_size: int = 3, low: Any = (-1.0, -2.0), high: Any = (1.0, 3.0)) -> Any:
        return cls(observation_size, np.array(low, np.float32), np.array(high, np.float32))


class LinearPrior(BehavioralPrior):
    """location(s) = offset + the mean of s, one `scale` everywhere; both are variables."""

    def __init__(
        self, observation_size: int, action_size: int, offset: float = 0.3, scale: float = 0.5
    ) -> None:
        super().__init__(observation_size, action_size)
        self.offset = tf.Variable(offset)
        self.scale = tf.Variable(scale)

    def statistics(self, observations: tf.Tensor) -> PriorStatistics:
        means = tf.reduce_mean(observations, axis=-1, keepdims=True)
        location = tf.tile(means + self.offset, [1, self.action_size])
        return PriorStatistics(location, self.scale * tf.ones_like(location))

    def state(self) -> Any:
        raise NotImplementedError


class FrozenSamples(tfp.distributions.Distribution):
    """Another distribution, whose samples are the same whatever the seed."""

    def __init__(self, distribution: tfp.distributions.Distribution) -> None:
        parameters = dict(locals())
        self._inner = distribution
        super().__init__(
            dtype=tf.float32,
            reparameterization_type=tfp.distributions.FULLY_REPARAMETERIZED,
            validate_args=False,
            allow_nan_stats=True,
            parameters=parameters,
        )

    def _sample_n(self, n: tf.Tensor, seed: Any = None) -> tf.Tensor:
        return self._inner.sample(n, seed=tf.constant([3, 5]))

    def _sample_and_log_prob(self, sample_shape: Any, seed: Any) -> tuple[tf.Tensor, tf.Tensor]:
        return self._inner.experimental_sample_and_log_prob(sample_shape, seed=tf.constant([3, 5]))

    def _log_prob(self, value: tf.Tensor) -> tf.Tensor:
        return self._inner.log_prob(value)

    def _mode(self) -> tf.Tensor:
        return self._inner.mode()

    def _batch_shape(self) -> tf.TensorShape:
        return self._inner.batch_shape

    def _batch_shape_tensor(self, **_: Any) -> tf.Tensor:
        return self._inner.batch_shape_tensor()

    def _event_shape(self) -> tf.TensorShape:
        return self._inner.event_shape

    def _event_shape_tensor(self, **_: Any) -> tf.Tensor:
        return self._inner.event_shape_tensor()


class FrozenActorNetwork(ActorNetwork):
    """The package's actor, whose samples are the same whatever the seed."""

    def call(self, observation: tf.Tensor, *args: Any, **kwargs: Any) -> Any:
        distribution, state = super().call(observation, *args, **kwargs)
        return FrozenSamples(distribution), state


class ConstantActor(network.Network):
    """The same diagonal Gaussian everywhere."""

    def __init__(self, observation_spec: Any, location: list[float], scale: list[float]) -> None:
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name="ConstantActor")
        self.location = tf.Variable(location, dtype=tf.float32)
        self.log_scale = tf.Variable(np.log(scale).astype(np.float32))

    def call(self, observation: tf.Tensor, *args: Any, network_state: Any = (), **_: Any) -> Any:
        zeros = tf.zeros([tf.shape(observation)[0], 1])
        return (
            tfp.distributions.MultivariateNormalDiag(
                self.location + zeros, tf.exp(self.log_scale) + zeros
            ),
            network_state,
        )


class LinearCritic(network.Network):
    """Q(s, a) = intercept + slope * sum of a."""

    def __init__(self, input_spec: Any, intercept: float, slope: float, name: str) -> None:
        super().__init__(input_tensor_spec=input_spec, state_spec=(), name=name)
        self.intercept = tf.Variable(intercept)
        self.slope = tf.Variable(slope)

    def call(self, inputs: Any, *args: Any, network_state: Any = (), **_: Any) -> Any:
        return self.intercept + self.slope * tf.reduce_sum(inputs[1], axis=-1), network_state


class PointEnvironment(gymnasium.Env):
    """A point [2] that starts about 1 from the origin and moves by a tenth of its action.

    It succeeds, and is paid, in each step that ends within 0.15 of the origin.
    """

    def __init__(self, reward: float = 1.0) -> None:
        self._reward = reward
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,))

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        angle = self.np_random.uniform(0, 2 * np.pi)
        radius = self.np_random.uniform(0.9, 1.1)
        self._position = radius * np.array([np.cos(angle), np.sin(angle)])
        return self._position.astype(np.float32), {}

    def step(self, action: np.ndarray) -> Any:
        self._position = self._position + 0.1 * np.asarray(action, np.float64)
        success = bool(np.linalg.norm(self._position) < 0.15)
        observation = self._position.astype(np.float32)
        return observation, self._reward * success, False, False, {"success": success}


@contextlib.contextmanager
def point_task(horizon: int, reward: float = 1.0) -> Iterator[Task]:
    """The task of `PointEnvironment`, registered with Gymnasium for the while."""
    name = f"nppac_tests/Point{horizon}-v{int(1000 * reward)}"
    kwargs = {"reward": reward}
    gymnasium.register(name, PointEnvironment, max_episode_steps=horizon, kwargs=kwargs)
    try:
        yield make_task(name)
    finally:
        del gymnasium.registry[name]


def point_demonstrations(task: Task, num_episodes: int, speed: float, noise: float) -> Any:
    """Episodes of a demonstrator that heads for the origin at a share `speed` of the possible.

    Returns:
        The demonstrations with rewards, and the mean return of their episodes.
    """
    rng = np.random.default_rng(0)
    episodes, rewards = [], []
    environment = task.make()
    for seed in range(num_episodes):
        observation, _ = environment.reset(seed=seed)
        observations, actions, truncated = [], [], False
        while not truncated:
            distance = max(float(np.linalg.norm(observation)), 1e-6)
            action = -observation / distance * min(speed, 10 * distance)
            action = np.clip(action + noise * rng.normal(size=2), -1, 1).astype(np.float32)
            observations.append(observation)
            actions.append(action)
            observation, reward, _, truncated, _ = environment.step(action)
            rewards.append(reward)
        episodes.append((np.array(observations), np.array(actions)))
    environment.close()
    data = dataclasses.replace(Demonstrations.from_episodes(episodes), rewards=np.array(rewards))
    return data, data.mean_return
