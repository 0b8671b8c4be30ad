"""Evaluates a policy: metrics A, B and final success, and the return, with 95 % intervals.

python launch/evaluate.py --run=runs/...
python launch/evaluate.py --saved_model=exported/pen --num_episodes=200
python launch/evaluate.py --prior_file=prior.npz --task=pen-binary

The mean action is taken. A is the share of episodes that reach the goal, B the share of time at the
goal, and final success the share of episodes that end there.
"""

import math
from collections.abc import Callable
from typing import Any

import common
from absl import flags

common.define_policy_source()
flags.DEFINE_string("prior_file", None, "A fitted prior (.npz), for its mean.")
_NUM_EPISODES = flags.DEFINE_integer("num_episodes", 100, "Episodes.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of the episodes.", lower_bound=0)


def main() -> None:
    source = common.require_one("run", "saved_model", "prior_file")
    from nppac_tf import evaluation, progress

    if source == "prior_file":
        name, policy, task = _load_prior()
    else:
        name, policy, task, _ = common.load_policy_source()
    episodes = evaluation.evaluate(policy, task, _NUM_EPISODES.value, _SEED.value)
    intervals = episodes.intervals()
    progress.print_table(
        f"{name} on {task.name}, {_NUM_EPISODES.value} episodes, seed {_SEED.value}",
        ("", "mean", "95 % interval"),
        [
            (metric, f"{mean:,.4g}", "[{:,.4g}, {:,.4g}]".format(*intervals[metric]))
            for metric, mean in episodes.summary().items()
            if not math.isnan(mean)
        ],
    )


def _load_prior() -> tuple[str, Callable[[Any], Any], Any]:
    import tensorflow as tf

    from nppac_tf import priors

    task = common.make_task()
    prior = priors.load_prior(common.FLAGS.prior_file)
    common.require_sizes("prior", (prior.observation_size, prior.action_size), task)
    statistics = tf.function(prior.statistics)
    return "prior mean", lambda observations: statistics(observations).location.numpy(), task


if __name__ == "__main__":
    common.run(main)
