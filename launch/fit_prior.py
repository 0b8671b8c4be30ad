"""Fits a behavioral prior alone, says how good it is, and saves it.

python launch/fit_prior.py --demonstrations=embedded:pen --output=prior.npz

Fitted to most episodes, the prior is judged on those held out; fitted to all, its mean acts in the
simulator, and it is saved. --scale_factor, --scale_floor and --fixed_scale count in the report, but
are no part of the file: they belong to a run's configuration.
"""

import math

import config_flags
import path_flags
import program
from absl import flags

from nppac_tf.config import PriorConfig, RunConfig
from nppac_tf.errors import UserError

_LEVELS = (0.5, 0.9, 0.99)

config_flags.define(RunConfig, only=("task", "reward", "demonstrations"))
config_flags.define(PriorConfig)
_OUTPUT = flags.DEFINE_string("output", None, "The file to write (.npz); none if not given.")
_HELD_OUT = flags.DEFINE_float("held_out_fraction", 0.2, "Share of the episodes held out.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the split and of the episodes.", lower_bound=0)
_NUM_EPISODES = flags.DEFINE_integer(
    "num_episodes", 50, "Episodes in which the mean acts; 0 for none.", lower_bound=0
)


def main() -> None:
    config = config_flags.configuration(PriorConfig)
    if config.prior == "uniform":
        raise UserError("--prior must be one that is fitted; got 'uniform'")
    output = None if _OUTPUT.value is None else path_flags.require_output("output", (".npz",))
    from nppac_tf import demonstrations, environments

    task = environments.make_task(flags.FLAGS.task, flags.FLAGS.reward)
    data = demonstrations.load_demonstrations(flags.FLAGS.demonstrations, task)
    training, held_out = data.split(_HELD_OUT.value, _SEED.value)
    held_out = held_out.look_ahead(config.action_lookahead)
    print(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps")
    for notice in data.notices:
        print(notice)

    import numpy as np
    import tensorflow as tf

    from nppac_tf import priors
    from nppac_tf.evaluation import rollouts
    from nppac_tf.priors import scores
    from nppac_tf.runs import display as progress
    from nppac_tf.runs import metrics

    name, choice = priors.chosen_class(config, training.num_steps)
    print(f"Prior: {choice}")
    with progress.ProgressDisplay() as display, display.busy("Fitting to most episodes"):
        fitted = priors.fit_prior(training, config)
    statistics = tf.function(fitted.statistics, reduce_retracing=True)
    location, scale = scores.predict(statistics, held_out.observations)
    far = scores.far_observations(held_out.observations, _SEED.value)
    covered = scores.coverage(held_out.actions, location, scale, _LEVELS)

    def median_deviation(observations: np.ndarray) -> str:
        return f"{np.median(scores.predict(statistics, observations)[1]):.4g}"

    log_likelihood = scores.log_likelihood(held_out.actions, location, scale).mean()
    error = scores.root_mean_squared_error(held_out.actions, location)
    progress.print_table(
        f"{name} on {task.name}, {training.num_episodes} episodes fitted, "
        f"{held_out.num_episodes} held out",
        ("", "value"),
        [
            ("held-out log likelihood (nats per action)", f"{log_likelihood:.4g}"),
            ("held-out root mean squared error", f"{error:.4g}"),
            *(
                (f"held-out coverage of the {level:.0%} interval", f"{share:.1%}")
                for level, share in zip(_LEVELS, covered, strict=True)
            ),
            ("median deviation on fitted states", median_deviation(training.observations)),
            ("median deviation on held-out states", median_deviation(held_out.observations)),
            ("median deviation far from all", median_deviation(far)),
        ],
    )

    if not _NUM_EPISODES.value and output is None:
        return
    with progress.ProgressDisplay() as display, display.busy("Fitting to all"):
        prior = priors.fit_prior(data, config)
    if _NUM_EPISODES.value:
        act = tf.function(prior.statistics)
        episodes = rollouts.evaluate(
            lambda observations: act(observations).location.numpy(),
            task,
            _NUM_EPISODES.value,
            _SEED.value,
        )
        progress.print_table(
            f"mean of the prior fitted to all, {_NUM_EPISODES.value} episodes",
            ("", "value"),
            [
                (metrics.LABELS[name], f"{value:,.4g}")
                for name, value in episodes.summary().items()
                if not math.isnan(value)
            ],
        )
    if output is not None:
        fitted = prior.prior if isinstance(prior, priors.RescaledPrior) else prior
        priors.save_prior(fitted, output)
        print(output)


if __name__ == "__main__":
    program.run(main)
