"""What Gaussian-process priors predict, beside GPflow's models with the same parameters."""

import gpflow
import numpy as np
import pytest
import reference
import tensorflow as tf
from gaussian_processes import (
    CLASSES,
    GPFLOW_KERNELS,
    D,
    N,
    P,
    example_demonstrations,
    fitted,
    queries,
    scaled,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from nppac_tf.errors import UserError
from nppac_tf.priors import GPPrior, SparseGPPrior
from nppac_tf.priors.hyperparameters import JITTER
from nppac_tf.priors.kernels import KERNELS
from nppac_tf.priors.linear_solver import TOLERANCE, solve
from nppac_tf.priors.nearest_neighbors import condition, nearest, squared_distances


def data_of(prior):
    data = example_demonstrations()
    return scaled(prior, data.observations, data.actions)


def exact(prior):
    """GPflow's posterior with the parameters of a prior, of scaled actions."""
    settings, arrays = prior.state()
    kernel = GPFLOW_KERNELS[settings["kernel"]](variance=1.0, lengthscales=np.ones(D))
    return gpflow.models.GPR(
        data_of(prior), kernel, noise_variance=arrays["noise_variance"] + JITTER
    )


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_equal_gpflows(name):
    squared = np.concatenate([[0.0, 1e-12], np.geomspace(1e-6, 1e3, 100)])
    expected = GPFLOW_KERNELS[name](variance=1.0, lengthscales=1.0)
    found = KERNELS[name](tf.constant(squared))
    theirs = expected.K_r2(squared) if name == "rbf" else expected.K_r(np.sqrt(squared))
    np.testing.assert_allclose(found, theirs, rtol=1e-12, atol=1e-15)


def from_the_formula(prior, observations):
    """The mean k(s, S) W in float64."""
    settings, arrays = prior.state()
    states, centers = scaled(prior, observations), arrays["centers"]
    return (
        reference.kernel_matrix(settings["kernel"], states, centers, 1.0, np.ones(D))
        @ arrays["weights"]
    )


@pytest.mark.parametrize(
    ("kernel", "num_neighbors"), [*((kernel, N) for kernel in KERNELS), ("matern52", 7)]
)
def test_the_mean_is_exact_and_the_variance_too_where_all_states_are_neighbors(
    kernel, num_neighbors
):
    prior = fitted(GPPrior, kernel=kernel, num_neighbors=num_neighbors)
    states = scaled(prior, queries())
    expected_mean, expected_variance = exact(prior).predict_f(states)
    mean, variance = prior._posterior(tf.constant(states))
    np.testing.assert_allclose(from_the_formula(prior, queries()), expected_mean, 1e-8, 1e-8)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-4)
    excess = (variance - expected_variance[:, 0]).numpy()
    assert excess.min() > -1e-8
    assert excess.max() < 1e-8 if num_neighbors == N else excess.max() > 1e-3


@pytest.mark.parametrize("factor", [1.0, 1e4, 1e8])
def test_the_mean_is_precise_whatever_the_size_of_the_weights(factor):
    configuration, arrays = fitted(GPPrior).state()
    arrays["weights"] = factor * arrays["weights"]
    prior = GPPrior.from_state(configuration, arrays)
    mean, _ = prior._posterior(tf.constant(scaled(prior, queries())))
    tolerance = 0.01 * np.sqrt(arrays["noise_variance"])
    np.testing.assert_allclose(mean, from_the_formula(prior, queries()), rtol=0, atol=tolerance)


@settings(max_examples=15)
@given(
    points=arrays_of.arrays(np.float64, (12, 2), elements=st.floats(-3, 3, width=32)),
    name=st.sampled_from(sorted(KERNELS)),
    noise=st.floats(1e-3, 1.0),
)
def test_more_neighbors_never_mean_more_variance(points, name, noise):
    states, centers = tf.constant(points[:2]), tf.constant(points[2:])
    order = np.argsort(squared_distances(states, centers), axis=1)
    variances = [
        condition(
            KERNELS[name],
            tf.constant(noise, tf.float64),
            states,
            tf.gather(centers, order[:, :count]),
        )[1].numpy()
        for count in (1, 2, 5, 10)
    ]
    assert (np.diff(variances, axis=0) < 1e-9).all()
    model = gpflow.models.GPR(
        (points[2:], np.zeros((10, 1))), GPFLOW_KERNELS[name](), noise_variance=noise
    )
    np.testing.assert_allclose(
        variances[-1], model.predict_f(points[:2])[1][:, 0], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize(("num_columns", "count"), [(5, 9), (40, 7), (1000, 1), (1013, 20)])
@pytest.mark.parametrize("decimals", [1, 9], ids=["ties", "no ties"])
def test_nearest_finds_the_smallest_of_each_row(num_columns, count, decimals):
    rng = np.random.default_rng(num_columns)
    distances = rng.uniform(size=(50, num_columns)).round(decimals)
    columns = nearest(tf.constant(distances), count).numpy()
    count = min(count, num_columns)
    assert all(len(set(row)) == count for row in columns)
    found = np.sort(np.take_along_axis(distances, columns, axis=1))
    np.testing.assert_array_equal(found, np.sort(distances)[:, :count])


@pytest.mark.parametrize("num_landmarks", [10, 150])
def test_conjugate_gradients_equal_the_factorization(num_landmarks):
    rng = np.random.default_rng(0)
    points = rng.normal(size=(300, 2))
    values = np.stack([np.sin(points[:, 0]), 100 * rng.normal(size=300), np.zeros(300)], axis=1)
    noise = 0.05
    direct = solve(KERNELS["matern52"], noise, points, values)
    found = solve(KERNELS["matern52"], noise, points, values, 0, num_landmarks)
    covariance = reference.kernel_matrix("matern52", points, points, 1.0, np.ones(2))
    covariance += noise * np.eye(300)
    np.testing.assert_allclose(covariance @ direct.weights, values, rtol=1e-8, atol=1e-8)
    residuals = np.linalg.norm(covariance @ found.weights - values, axis=0)
    norms = np.linalg.norm(values, axis=0)
    assert (residuals <= 1.01 * TOLERANCE * norms).all()
    assert 0 < found.residual <= TOLERANCE
    assert found.residual == pytest.approx((residuals[:2] / norms[:2]).max(), rel=1e-3)


def test_a_system_that_is_not_solved_is_a_users_error():
    points = np.random.default_rng(0).normal(size=(60, 1))
    with pytest.raises(UserError, match=r"of 60 points was not solved .* --prior=sparse_gp"):
        solve(KERNELS["matern12"], 1e-9, points, np.sign(points), 0, num_landmarks=1)


@pytest.mark.parametrize("num_inducing_points", [15, N])
def test_the_sparse_posterior_equals_gpflows(num_inducing_points):
    prior = fitted(SparseGPPrior, kernel="matern32", num_inducing_points=num_inducing_points)
    arrays = prior.state()[1]
    model = gpflow.models.SGPR(
        data_of(prior),
        gpflow.kernels.Matern32(variance=1.0, lengthscales=np.ones(D)),
        arrays["centers"],
        noise_variance=arrays["noise_variance"],
    )
    states = scaled(prior, queries())
    expected_mean, expected_variance = model.predict_f(states)
    mean, variance = prior._posterior(tf.constant(states))
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(variance, expected_variance[:, 0], rtol=1e-5, atol=1e-5)


def test_the_sparse_prior_with_all_points_inducing_equals_the_exact_one():
    # A rough kernel, for which no point is superfluous.
    sparse = fitted(SparseGPPrior, kernel="matern12", num_inducing_points=N)
    assert len(sparse.state()[1]["centers"]) == N
    expected = fitted(GPPrior, kernel="matern12").statistics(queries())
    for one, other in zip(sparse.statistics(queries()), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3)


@pytest.mark.parametrize("cls", CLASSES)
def test_statistics_are_in_units_of_actions_and_include_the_noise(cls):
    prior = fitted(cls)
    arrays = prior.state()[1]
    mean, variance = prior._posterior(tf.constant(scaled(prior, queries())))
    location, scale = prior.statistics(queries())
    assert location.dtype == scale.dtype == tf.float32
    expected = arrays["action_shift"] + arrays["action_scale"] * mean
    np.testing.assert_allclose(location, expected, rtol=1e-4)
    noisy = np.sqrt(variance + arrays["noise_variance"])[:, np.newaxis]
    np.testing.assert_allclose(scale, noisy * arrays["action_scale"], rtol=1e-5)
    uncertainty = prior.uncertainty(queries())
    np.testing.assert_allclose(uncertainty, 0.5 * np.log(variance), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cls", CLASSES)
def test_the_scale_is_small_at_demonstrations_and_the_kernels_far_away(cls):
    prior, observations = fitted(cls), example_demonstrations().observations
    arrays = prior.state()[1]
    far = prior.statistics(tf.constant(observations[:5] + np.float32(1e4)))
    total = np.sqrt(1 + arrays["noise_variance"]) * arrays["action_scale"]
    np.testing.assert_allclose(far.scale, np.tile(total, (5, 1)), rtol=1e-5)
    np.testing.assert_allclose(far.location, np.tile(arrays["action_shift"], (5, 1)), rtol=1e-5)
    near = prior.statistics(tf.constant(observations)).scale
    assert np.median(near) < 0.35 * np.min(far.scale)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("cls", CLASSES)
def test_compiled_statistics_equal_eager_ones(cls, jit_compile):
    compiled = tf.function(fitted(cls).statistics, jit_compile=jit_compile)(queries())
    for one, other in zip(compiled, fitted(cls).statistics(queries()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4)


@pytest.mark.parametrize("cls", CLASSES)
def test_predictions_do_not_depend_on_how_many_states_are_asked_at_once(cls):
    prior = fitted(cls)
    many = tf.tile(queries(), [300, 1])  # More than a chunk.
    for all_of_them, few in zip(prior.statistics(many), prior.statistics(queries()), strict=True):
        np.testing.assert_allclose(all_of_them[-25:], few, rtol=2e-5)
    assert prior.statistics(tf.zeros([0, D])).scale.shape == [0, P]


@pytest.mark.parametrize("cls", CLASSES)
def test_the_distribution_is_a_batch_of_gaussians_over_actions(cls):
    prior = fitted(cls)
    distribution, statistics = prior.distribution(queries()), prior.statistics(queries())
    assert (distribution.batch_shape, distribution.event_shape) == ([25], [P])
    np.testing.assert_allclose(distribution.mean(), statistics.location)
    np.testing.assert_allclose(distribution.stddev(), statistics.scale)
    actions, scale = 5 * tf.ones([25, P]), 0.3 * tf.ones([25, P])
    location, prior_scale = (np.asarray(part, np.float64) for part in statistics)
    np.testing.assert_allclose(
        prior.log_prob(statistics, actions),
        reference.gaussian_log_density(actions.numpy(), location, prior_scale),
        rtol=1e-4,
    )
    expected = [
        reference.gaussian_kl(*(np.asarray(part, np.float64) for part in row))
        for row in zip(actions, scale, location, prior_scale, strict=True)
    ]
    np.testing.assert_allclose(prior.kl_divergence(statistics, actions, scale), expected, rtol=1e-4)


def test_a_gaussian_process_keeps_no_square_matrix():
    prior = fitted(GPPrior)
    kept = [*prior.state()[1].values(), *prior.variables]
    assert max(np.size(array) for array in kept) <= N * max(D, P)
    assert not prior.trainable_variables
