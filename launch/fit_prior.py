"""Fits a behavioral prior without an agent, reports how good it is, and saves it.

python launch/fit_prior.py --demonstrations=embedded:pen --output=prior.npz

The prior is fitted to part of the episodes and scored on the others; then it is fitted to all, its
mean acts in the simulator, and it is saved. Where there is no simulator, pass --task=none. What a
run does to its scale (--scale_factor and the like) is not part of it.

Where the prior does poorly, --search tries other lengthscales and lookaheads in the simulator.
"""

import dataclasses
from typing import Any

from common import checks, config_flags, program
from absl import flags

from nppac_tf.config import PriorConfig, RunConfig
from nppac_tf.errors import UserError

_LEVELS = (0.5, 0.9, 0.99)
_NO_TASK = "none"

config_flags.define(
    RunConfig, only=("task", "observation_keys", "success_key", "reward", "demonstrations")
)
_OF_RUNS = ("scale_factor", "scale_floor", "fixed_scale")
config_flags.define(
    PriorConfig,
    only=[field.name for field in dataclasses.fields(PriorConfig) if field.name not in _OF_RUNS],
)
_OUTPUT = flags.DEFINE_string("output", None, "File to write (.npz).")
_HELD_OUT = flags.DEFINE_float(
    "held_out_fraction", 0.2, "Fraction of the episodes to hold out; 0: score nothing.", 0.0
)
_SEED = flags.DEFINE_integer(
    "seed",
    1000,
    "Seed of the split and of the initial states. The default is not used in training.",
    lower_bound=0,
)
_NUM_EPISODES = flags.DEFINE_integer(
    "num_episodes", 50, "Number of episodes in which the mean acts.", lower_bound=0
)
_SEARCH = flags.DEFINE_bool(
    "search",
    False,
    "Try other lengthscales and lookaheads in the simulator and use the best. The search has "
    "initial states of its own.",
)


def main() -> None:
    config = config_flags.configuration(PriorConfig, base=PriorConfig().unscaled())
    if config.prior == "uniform":
        raise UserError("--prior must be one that is fitted; got 'uniform'")
    if _SEARCH.value and flags.FLAGS.task == _NO_TASK:
        raise UserError("--search needs a simulator: pass its --task")
    if _SEARCH.value and _NUM_EPISODES.value < 10:
        raise UserError(
            f"--num_episodes must be at least 10 to --search; got {_NUM_EPISODES.value}"
        )
    if _SEARCH.value and config.prior not in ("gp", "sparse_gp"):
        raise UserError(f"--search is for --prior=gp and sparse_gp; got {config.prior!r}")
    output = None if _OUTPUT.value is None else checks.output_file("output", (".npz",))
    from nppac_tf import demonstrations, environments

    task = None
    if flags.FLAGS.task != _NO_TASK:
        task = environments.make_task(
            flags.FLAGS.task,
            flags.FLAGS.reward,
            observation_keys=flags.FLAGS.observation_keys,
            success_key=flags.FLAGS.success_key,
        )
        data = demonstrations.load_demonstrations(flags.FLAGS.demonstrations, task)
    else:
        source, keys = flags.FLAGS.demonstrations, flags.FLAGS.observation_keys
        data = demonstrations.load_recording(source, keys).demonstrations()
    print(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps")

    from nppac_tf import priors
    from nppac_tf.demonstrations import modes
    from nppac_tf.evaluation import rollouts
    from nppac_tf.runs import display

    for notice in (*data.notices, modes.notice(data)):
        if notice:
            print(notice)
    if _SEARCH.value:
        config = _search(data, task, config)
    if _HELD_OUT.value and data.num_episodes > 1:
        _score(data, config, task.name if task else data.name)
    elif _HELD_OUT.value:
        print("Nothing is held out of a single episode")
    num_episodes = _NUM_EPISODES.value if task is not None else 0
    if not num_episodes and output is None:
        return
    with display.ProgressDisplay() as progress, progress.busy("Fitting to all episodes"):
        prior = priors.fit_prior(data, config, priors.default_cache())
    if task is not None and num_episodes:
        acting = f"Acting in {num_episodes:,} episodes"
        with display.ProgressDisplay() as progress, progress.busy(acting):
            mean = rollouts.mean_policy(prior)
            evaluated = rollouts.evaluate(mean, task, num_episodes, _SEED.value)
        print(f"mean of the prior fitted to all episodes, seed {_SEED.value}\n\n{evaluated}")
    if output is not None:
        priors.save_prior(prior, output)
        print(output)


def _search(data: Any, task: Any, config: PriorConfig) -> PriorConfig:
    """Prints each candidate as it ends, and the best; returns its settings."""
    from nppac_tf import priors
    from nppac_tf.evaluation import prior_search
    from nppac_tf.evaluation.episodes import readable
    from nppac_tf.runs import display

    print("Mean and standard error of B, or of the return, of each prior's mean:")
    with display.ProgressDisplay() as progress:

        def show(candidate: Any) -> None:
            mean, error = map(readable, (candidate.mean, candidate.standard_error))
            number, changes = len(candidate.values), candidate.changes or "as given"
            progress.say(f"  {mean:>8} ± {error:<7} {number:>3} episodes  {changes}")

        with progress.busy("Searching"):
            tried = prior_search.search(
                *(data, task, config, _NUM_EPISODES.value, _SEED.value + 1, show),
                cache=priors.default_cache(),
            )
    best, steps = tried[0], sum(candidate.num_steps for candidate in tried)
    (given,) = (candidate for candidate in tried if not candidate.changes)
    print(f"{len(tried)} priors, {steps:,} environment steps")
    if not best.is_better_than(given):
        print("No prior is clearly better than that of the settings as given")
        return config
    print(f"Pass to launch/train.py as well: {best.changes}")
    return best.config


def _score(data: Any, config: PriorConfig, name: str) -> None:
    """Fits to a part of the episodes, and prints how well it predicts the others."""
    import numpy as np
    import tensorflow as tf

    from nppac_tf import priors
    from nppac_tf.priors import scores
    from nppac_tf.runs import display

    training, held_out = data.split(_HELD_OUT.value, _SEED.value)
    held_out = held_out.look_ahead(config.action_lookahead)
    with display.ProgressDisplay() as progress, progress.busy("Fitting without the held-out part"):
        fitted = priors.fit_prior(training, config)
    statistics = tf.function(fitted.statistics, reduce_retracing=True)
    location, scale = scores.predict(statistics, held_out.observations)
    covered = scores.coverage(held_out.actions, location, scale, _LEVELS)
    rows = [
        (
            "held-out log likelihood (nats per action)",
            scores.log_likelihood(held_out.actions, location, scale).mean(),
        ),
        (
            "held-out root mean squared error",
            scores.root_mean_squared_error(held_out.actions, location),
        ),
        *(
            (f"held-out coverage of the {level:.0%} interval", share)
            for level, share in zip(_LEVELS, covered, strict=True)
        ),
    ]
    for where, observations in {
        "on fitted states": training.observations,
        "on held-out states": held_out.observations,
        "far from all states": scores.far_observations(held_out.observations, _SEED.value),
    }.items():
        scales = scores.predict(statistics, observations)[1]
        rows.append((f"median standard deviation {where}", np.median(scales)))
    episodes = f"{training.num_episodes} episodes fitted, {held_out.num_episodes} held out"
    title = f"{config.prior} on {name}, {episodes}"
    display.print_table(title, ("", "value"), [(label, f"{x:.4g}") for label, x in rows])


if __name__ == "__main__":
    program.run(main)
