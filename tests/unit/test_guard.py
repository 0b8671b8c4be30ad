"""Alpha falls while the skill is kept and rises when it is lost."""

import numpy as np
import pytest

from nppac_tf.training.guard import TemperatureGuard


def scores(mean, number, seed=0):
    return list(np.random.default_rng(seed).normal(mean, 0.1, number))


def test_alpha_falls_to_its_bound_while_episodes_go_as_well():
    guard = TemperatureGuard(1.0, 0.01, 0.06)
    alphas = [guard.temperature]
    for seed in range(60):
        guard.watch(scores(1.0 + 0.01 * seed, 5, seed), episodes=5)
        alphas.append(guard.temperature)
    assert alphas[0] == 1.0
    assert (np.diff(alphas) <= 0).all()
    assert alphas[-1] == pytest.approx(0.01)


def test_alpha_rises_when_the_skill_is_lost_and_falls_again_when_it_is_back():
    guard = TemperatureGuard(1.0, 0.001, 0.06)
    guard.watch(scores(1.0, 60), episodes=60)
    low = guard.temperature
    assert not guard.lost
    guard.watch(scores(0.5, 20, seed=1), episodes=20)
    assert guard.lost
    high = guard.temperature
    assert high > low
    guard.watch(scores(1.2, 20, seed=2), episodes=20)
    assert not guard.lost
    guard.watch(scores(1.2, 5, seed=3), episodes=5)
    assert guard.temperature < high


def test_what_was_learned_is_guarded_too():
    guard = TemperatureGuard(1.0, 0.001, 0.06)
    guard.watch(scores(1.0, 20), episodes=20)
    guard.watch(scores(2.0, 200, seed=1), episodes=200)
    guard.watch(scores(1.5, 20, seed=2), episodes=20)  # Still better than at first.
    assert guard.lost


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_the_unit_and_origin_of_scores_do_not_matter(unit):
    guard, scaled = TemperatureGuard(1.0, 0.001, 0.06), TemperatureGuard(1.0, 0.001, 0.06)
    for seed in range(30):
        batch = np.array(scores(1.0 - 0.02 * seed, 4, seed))
        guard.watch(batch.tolist(), episodes=4)
        scaled.watch((unit * batch - 5.0 * unit).tolist(), episodes=4)
    assert scaled.temperature == pytest.approx(guard.temperature)


@pytest.mark.parametrize("score", [0.804, 1 / 3, 0.1, -10.6, 0.0])
def test_equal_scores_are_no_loss(score):
    guard = TemperatureGuard(1.0, 0.001, 0.06)
    for _ in range(30):
        guard.watch([score] * 5, episodes=5)
        assert not guard.lost
    assert guard.temperature == pytest.approx(0.001)


def test_a_low_alpha_may_rise_when_the_skill_is_lost():
    guard = TemperatureGuard(0.02, 0.001, 0.06)
    guard.watch(scores(1.0, 50), episodes=0)
    guard.watch(scores(0.0, 50, seed=1), episodes=20)
    assert guard.temperature == pytest.approx(0.02 * np.exp(2.4))
    guard.watch(scores(-1.0, 20, seed=2), episodes=1000)
    assert guard.temperature == pytest.approx(1.0)


def test_alpha_stays_while_the_actor_does_not_learn():
    guard = TemperatureGuard(0.2, 0.001, 0.06)
    guard.watch(scores(1.0, 50), episodes=0)
    assert guard.temperature == pytest.approx(0.2)
    kept = TemperatureGuard(0.2, None, 0.06)
    kept.watch(scores(1.0, 50), episodes=50)
    assert kept.temperature == pytest.approx(0.2)
    low = TemperatureGuard(0.01, 0.2, 0.06)
    low.watch(scores(1.0, 50), episodes=50)
    assert low.temperature == pytest.approx(0.01)


def test_a_restored_guard_continues_as_the_saved_one():
    guard, restored = TemperatureGuard(1.0, 0.001, 0.06), TemperatureGuard(1.0, 0.001, 0.06)
    guard.watch(scores(1.0, 30), episodes=30)
    restored.load_state_dict(guard.state_dict())
    for one in (guard, restored):
        one.watch(scores(0.8, 10, seed=1), episodes=10)
    assert restored.temperature == guard.temperature
