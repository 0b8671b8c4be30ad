"""Measures one of the paper's claims and writes numbers (JSON), tables (CSV) and figures (PNG).

python launch/diagnose.py --claim=C2 --demonstrations=pen.npy --task=pen-binary --output_dir=claims
python launch/diagnose.py --claim=C3 --runs='runs/c3/*' --output_dir=claims
python launch/diagnose.py --claim=C8 --runs=runs/a,runs/b --output_dir=claims
python launch/diagnose.py --claim=C9 --demonstrations=pen.npy --task=pen-binary --output_dir=claims

C1: KL(q || p) as p degenerates. C2 and C5 (measured together): the priors' scale on and off the
demonstrations, heat maps, calibration. C3: compares runs with different --fixed_scale. C4: the
actor's gradient as the prior's scale decreases. C8: compares runs with different --prior and
--scale_floor. C9: the mean of priors fitted to few of the demonstrations. With --task, C2 also
measures states that the priors and random actions visit.
"""

import dataclasses
import glob
import pathlib
from typing import Any

from common import checks, config_flags, policies, program
from absl import flags

from nppac_tf.config import PRIORS, REWARDS, PriorConfig, RunConfig
from nppac_tf.errors import UserError

_FITTED = sorted(
    set(PRIORS) - {"uniform"}, key=lambda name: (name.endswith("gp"), PRIORS.index(name))
)

_CLAIMS = ("C1", "C2", "C3", "C4", "C5", "C8", "C9")

config_flags.define(RunConfig, only=("demonstrations",))
config_flags.define(PriorConfig)
flags.DEFINE_string("task", None, "Task whose states are visited and whose action bounds apply.")
flags.DEFINE_enum("reward", None, REWARDS, "Reward of the task.")
policies.define_observation_flags()
_CLAIM = flags.DEFINE_enum("claim", None, _CLAIMS, "Claim to measure.")
flags.DEFINE_string("output_dir", None, "Output folder.")
_PRIORS = flags.DEFINE_list(
    "priors",
    None,
    "C2, C5, C9: comma-separated prior classes (default: all; C9: that of --prior, and a network).",
)
_RUNS = flags.DEFINE_list(
    "runs",
    None,
    "C3, C8: comma-separated run folders or patterns ('runs/c3/*').",
)
_HELD_OUT = flags.DEFINE_float(
    "held_out_fraction", 0.2, "C2, C5: fraction of episodes to hold out."
)
_NUM_STATES = flags.DEFINE_integer(
    "num_states", 500, "C2: number of states of each kind; C4: batch size.", lower_bound=10
)
_NUM_EPISODES = flags.DEFINE_integer(
    "num_episodes", None, "Episodes for each prior (default: C2 5, C9 20).", lower_bound=1
)
_COUNTS = flags.DEFINE_list("num_demonstrations", ["1", "5", "15"], "C9: episodes to fit to.")
_NUM_SUBSETS = flags.DEFINE_integer(
    "num_subsets", 3, "C9: random choices of so many episodes.", lower_bound=1
)
_SEED = flags.DEFINE_integer("seed", 0, "Random seed.", lower_bound=0)
_PRIOR_CACHE = flags.DEFINE_string(
    "prior_cache", None, "Folder of cached priors, or 'none' (default: that of train.py)."
)


def main() -> None:
    if _CLAIM.value is None:
        raise UserError(f"--claim must be one of {', '.join(_CLAIMS)}; got none")
    folder = checks.output_folder("output_dir")
    given = _PRIORS.value
    if given is not None and (not given or set(given) - set(_FITTED)):
        raise UserError(f"--priors must be among {', '.join(_FITTED)}; got {','.join(given)}")
    if _CLAIM.value == "C9":
        if not flags.FLAGS.task:
            raise UserError("--task must be given for C9, in which the priors act; got none")
        if not all(count.isdecimal() for count in _COUNTS.value):
            raise UserError(f"--num_demonstrations must be numbers; got {','.join(_COUNTS.value)}")
    if _CLAIM.value == "C3" and not _RUNS.value:
        raise UserError("--runs must name runs made with --fixed_scale for C3; got none")
    if _CLAIM.value == "C8" and not _RUNS.value:
        raise UserError("--runs must name runs of two or more priors for C8; got none")
    config = config_flags.configuration(PriorConfig).unscaled()
    if _CLAIM.value in ("C4", "C9") and config.prior == "uniform":
        raise UserError("--prior must be one that is fitted; got 'uniform'")
    print(f"{_CLAIM.value}: loading", flush=True)
    measure = {
        "C1": _degeneracy,
        "C2": _scales_and_calibration,
        "C3": _fixed_scales,
        "C4": _gradients,
        "C5": _scales_and_calibration,
        "C8": _prior_classes,
        "C9": _few_demonstrations,
    }
    for path in measure[_CLAIM.value](folder, config):
        print(path)


def _runs() -> list[str]:
    """The folders that --runs names, with patterns expanded."""
    found: list[str] = []
    for name in _RUNS.value or ():
        matches = sorted(glob.glob(name)) if glob.has_magic(name) else [name]
        if not matches:
            raise UserError(f"--runs must name run folders; found none at {name}")
        found += matches
    return found


def _degeneracy(folder: pathlib.Path, _: PriorConfig) -> list[pathlib.Path]:
    from nppac_tf import claims

    result = claims.measure_degeneracy()
    figures = {"c1": result.figure()}
    return claims.write_claim(folder, "c1", result.numbers(), result.table(), figures)


def _fixed_scales(folder: pathlib.Path, _: PriorConfig) -> list[pathlib.Path]:
    from nppac_tf import claims

    result = claims.read_fixed_scale_runs(_runs())
    figures = {"c3": result.figure()}
    return claims.write_claim(folder, "c3", result.numbers(), result.table(), figures)


def _prior_classes(folder: pathlib.Path, _: PriorConfig) -> list[pathlib.Path]:
    from nppac_tf import claims

    result = claims.read_prior_class_runs(_runs())
    for line in (*result.notices(), result.finding()):
        print(line)
    figures = {"c8": result.figure()}
    return claims.write_claim(folder, "c8", result.numbers(), result.table(), figures)


def _scales_and_calibration(folder: pathlib.Path, config: PriorConfig) -> list[pathlib.Path]:
    task, data = _load()
    fitted, held_out = data.split(_HELD_OUT.value, _SEED.value)
    from nppac_tf import claims

    priors = {
        name: _fit(fitted, dataclasses.replace(config, prior=name))
        for name in _PRIORS.value or _FITTED
    }
    scales = claims.measure_predictive_scales(
        priors,
        fitted,
        held_out,
        task,
        num_states=_NUM_STATES.value,
        num_episodes=_NUM_EPISODES.value or 5,
        seed=_SEED.value,
        on_progress=lambda name: print(f"measuring {name}", flush=True),
    )
    print("measuring calibration", flush=True)
    calibration = claims.measure_calibration(priors, held_out)
    about = {
        "demonstrations": {
            "name": data.name,
            "fitted_episodes": fitted.num_episodes,
            "fitted_steps": fitted.num_steps,
            "held_out_episodes": held_out.num_episodes,
            "held_out_steps": held_out.num_steps,
        }
    }
    title = f"{data.name}: {scales.finding()}"
    figures = {"c2": scales.figure(title), "c2_maps": scales.maps(title)}
    return [
        *claims.write_claim(folder, "c2", about | scales.numbers(), scales.table(), figures),
        *claims.write_claim(
            folder,
            "c5",
            about | calibration.numbers(),
            calibration.table(),
            {"c5": calibration.figure(data.name)},
        ),
    ]


def _gradients(folder: pathlib.Path, config: PriorConfig) -> list[pathlib.Path]:
    task, data = _load()
    import numpy as np

    from nppac_tf import claims

    chosen = np.random.default_rng(_SEED.value).permutation(data.num_steps)[: _NUM_STATES.value]
    prior = _fit(data, config)
    print("measuring gradients", flush=True)
    result = claims.measure_gradient_growth(
        prior, data.observations[chosen], task or _Bounds.of(data), seed=_SEED.value
    )
    figures = {"c4": result.figure()}
    return claims.write_claim(folder, "c4", result.numbers(), result.table(), figures)


def _few_demonstrations(folder: pathlib.Path, config: PriorConfig) -> list[pathlib.Path]:
    task, data = _load()
    from nppac_tf import claims

    default = dict.fromkeys((config.prior, "gaussian_network"))
    result = claims.measure_few_demonstrations(
        data,
        task,
        lambda part, name: _fit(part, dataclasses.replace(config, prior=name)),
        _PRIORS.value or list(default),
        [int(count) for count in _COUNTS.value],
        _NUM_SUBSETS.value,
        _NUM_EPISODES.value or 20,
        _SEED.value,
        on_progress=lambda what: print(what, flush=True),
    )
    print(result.finding())
    return claims.write_claim(
        folder, "c9", result.numbers(), result.table(), {"c9": result.figure()}
    )


@dataclasses.dataclass(frozen=True)
class _Bounds:
    """Sizes and bounds that an agent needs, taken from demonstrations."""

    observation_size: int
    action_low: Any
    action_high: Any

    @classmethod
    def of(cls, data: Any) -> "_Bounds":
        low, high = data.actions.min(axis=0), data.actions.max(axis=0)
        margin = (high <= low) * 1.0
        return cls(data.observation_size, low - margin, high + margin)


def _load() -> tuple[Any, Any]:
    """The task (or None) and the demonstrations, shifted by --action_lookahead."""
    from nppac_tf import demonstrations

    task = policies.make_task() if flags.FLAGS.task else None
    data = demonstrations.load_demonstrations(flags.FLAGS.demonstrations, task)
    print(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps", flush=True)
    for notice in data.notices:
        print(notice)
    return task, data.look_ahead(flags.FLAGS.action_lookahead)


def _fit(data: Any, config: PriorConfig) -> Any:
    from nppac_tf import priors
    from nppac_tf.runs import run

    print(f"fitting {config.prior} (or loading it from the cache)", flush=True)
    config = dataclasses.replace(config, action_lookahead=0)  # The data is already shifted.
    return priors.fit_prior(data, config, run.prior_cache(_PRIOR_CACHE.value))


if __name__ == "__main__":
    program.run(main)
