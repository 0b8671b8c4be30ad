"""All that is measured, as one flat dictionary; each part gives its own keys.

updates_per_second/SHAPE/CONTENDER              medians; limit_float32 and limit_bfloat16 are the
                                                rate of matrix products by `Shape.update_flops`
updates_per_second/SHAPE/spread/CONTENDER       [lowest, highest] of the repeats
cores_used/SHAPE/CONTENDER                      processor time per time (medians)
prior_overhead/SHAPE                            time of an update with a prior by time with a
                                                uniform one, less 1 (median of rounds)
updates_per_second/SHAPE/fill_TRANSITIONS       N-PPAC's with so many transitions in the replay
profile/SHAPE/OPERATION                         share of the processor time of an update, float32
env_steps_per_second/TASK/PRECISION             of training as a whole
prior/CLASS/POINTS/fit_seconds, .../predictions_per_second, .../peak_memory_mb
startup/seconds_to_first_progress               of launch/train.py with a cached prior (median)
"""

import dataclasses
import pathlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.shapes import SHAPES, Shape
from benchmarks.startup import seconds_to_first_progress
from benchmarks.workers import Worker, measure, race, ready, summary
from nppac_tf.config import PriorConfig

Results = dict[str, Any]

PEERS = ("sbx", "sb3")
LIMITS = ("float32", "bfloat16")
_OWN = ("nppac_float32", "nppac_bfloat16", "uniform_float32", "tf_agents")
_NUM_TRANSITIONS = 100_000
_FILLS = (10_000, 1_000_000)
_DEMONSTRATIONS = "embedded:pen"
_TASK = "pen-binary"
# More points than this, and the exact posterior's matrices outgrow a workstation: 8 N^2 bytes each.
_LARGEST_EXACT = 10_000


@dataclasses.dataclass(frozen=True)
class Suite:
    """How long and how wide to measure.

    Args:
        threads: Of everything.
        repeats: Rounds over the contenders, and starts of launch/train.py.
        seconds: Of one contender in one round.
        num_env_steps: Of training, a multiple of 1,000 and at least 2,000.
        prior_sizes: Demonstration points, at least 1 each.
        prior: How priors are fitted.
        tell: Is told of progress, a line at a time.
    """

    threads: int
    repeats: int
    seconds: float
    num_env_steps: int
    prior_sizes: tuple[int, ...]
    prior: PriorConfig
    tell: Callable[[str], None]

    def updates(self, peers_python: pathlib.Path | None) -> Results:
        """Updates per second on each shape.

        Args:
            peers_python: Interpreter with Stable-Baselines3 and SBX; None leaves them out.
        """
        results: Results = {}
        for name, shape in SHAPES.items():
            results |= self._race(name, shape, peers_python)
        return results

    def _race(self, name: str, shape: Shape, peers_python: pathlib.Path | None) -> Results:
        common = {
            "shape": dataclasses.asdict(shape),
            "num_transitions": _NUM_TRANSITIONS,
            "threads": self.threads,
        }
        self.tell(f"shape {name}: preparing")
        own = [*_OWN, *(f"products_{precision}" for precision in LIMITS)]
        workers = [
            Worker(contender, "updates", {**common, "contender": contender}, self.threads)
            for contender in own
        ]
        if peers_python is not None:
            workers += [
                Worker(peer, "peers", {**common, "contender": peer}, self.threads, peers_python)
                for peer in PEERS
            ]
        workers += [
            Worker(
                f"fill_{fill}",
                "updates",
                {**common, "contender": "nppac_float32", "num_transitions": fill},
                self.threads,
            )
            for fill in _FILLS
        ]
        results: Results = {}
        with ready(workers) as said:
            for first in said:
                results |= first.get("versions", {})
            rounds = race(
                workers, self.repeats, self.seconds, lambda line: self.tell(f"shape {name}: {line}")
            )
        results[f"prior_overhead/{name}"] = (
            _median_ratio(rounds["uniform_float32"], rounds["nppac_float32"]) - 1.0
        )
        for contender, rate in ((worker, summary(answers)) for worker, answers in rounds.items()):
            scale, label = 1.0, contender
            if contender.startswith("products_"):
                scale, label = 1.0 / shape.update_flops, contender.replace("products", "limit")
            results |= {
                f"updates_per_second/{name}/{label}": scale * rate.median,
                f"updates_per_second/{name}/spread/{label}": [
                    scale * rate.lowest,
                    scale * rate.highest,
                ],
                f"cores_used/{name}/{label}": rate.cores,
            }
        return results

    def profile(self) -> Results:
        """What the processor's time of an update goes to, by kind of operation."""
        results: Results = {}
        for name, shape in SHAPES.items():
            self.tell(f"shape {name}: profile")
            shares = measure("profile", {"shape": dataclasses.asdict(shape)}, self.threads)
            results |= {f"profile/{name}/{kind}": share for kind, share in shares.items()}
        return results

    def training(self) -> Results:
        """Environment steps per second on the pen, with the networks of configs/pen.flags."""
        results: Results = {}
        for precision in LIMITS:
            results |= self._training(precision)
        return results

    def _training(self, precision: str) -> Results:
        self.tell(f"training on {_TASK} in {precision}: {self.num_env_steps:,} environment steps")
        settings = {
            "task": _TASK,
            "demonstrations": _DEMONSTRATIONS,
            "prior": self._fields("exact_gp"),
            "agent": {
                "squash": False,
                "divergence": "closed_form",
                "critic_layer_norm": True,
                "num_critics": 2,
                "temperature": 0.1,
                "final_temperature": None,
                "policy_averaging": 0,
                "precision": precision,
            },
            "layers": {"actor_layers": [256] * 4},
            "training": {
                "critic_warmup_steps": 0,
                "n_step": 1,
                "num_greedy_environments": 0,
                "exploration_spread": 1.0,
            },
            "num_env_steps": self.num_env_steps,
        }
        answer = measure("end_to_end", settings, self.threads)
        return {f"env_steps_per_second/{_TASK}/{precision}": answer["steps_per_second"]}

    def priors(self) -> Results:
        """What exact and sparse Gaussian processes cost, by number of demonstration points."""
        results: Results = {}
        for size in self.prior_sizes:
            for prior in ("exact_gp", "sparse_gp"):
                if prior == "exact_gp" and size > _LARGEST_EXACT:
                    self.tell(f"{prior}: not with more than {_LARGEST_EXACT:,} points")
                    continue
                self.tell(f"{prior}: {size:,} points")
                settings = {
                    "prior": self._fields(prior),
                    "num_points": size,
                    "observation_size": SHAPES["B"].observation_size,
                    "action_size": SHAPES["B"].action_size,
                    "batch_size": 1000,
                    "seconds": self.seconds,
                }
                answer = measure("prior_costs", settings, self.threads)
                results |= {f"prior/{prior}/{size}/{key}": value for key, value in answer.items()}
        return results

    def startup(self) -> Results:
        """Seconds until launch/train.py learns, imports included, with the prior in the cache."""
        self.tell("startup of launch/train.py")
        fields = [f"--{name}={value}" for name, value in self._fields("exact_gp").items()]
        flags = [f"--task={_TASK}", f"--demonstrations={_DEMONSTRATIONS}", *fields]
        seconds = seconds_to_first_progress(flags, self.threads, self.repeats)
        return {
            "startup/seconds_to_first_progress": statistics.median(seconds),
            "startup/spread/seconds_to_first_progress": [min(seconds), max(seconds)],
        }

    def _fields(self, prior: str) -> dict[str, Any]:
        names = ("num_inducing_points", "num_hyperparameter_points", "max_fit_iterations")
        return {"prior": prior, **{name: getattr(self.prior, name) for name in names}}


def _median_ratio(
    one: Sequence[Mapping[str, float]], other: Sequence[Mapping[str, float]]
) -> float:
    """Of rates, each round's with its own: what slows a round slows both."""
    pairs = zip(one, other, strict=True)
    return statistics.median(first["rate"] / second["rate"] for first, second in pairs)


def rows(results: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """What a person reads: figure, value, and the spread where there is one."""
    table = []
    for key, value in results.items():
        if isinstance(value, float) and not key.startswith("cores_used/"):
            part, _, rest = key.rpartition("/")
            spread = results.get(f"{part}/spread/{rest}")
            table.append((key, _readable(value), " to ".join(map(_readable, spread or ()))))
    return table


def _readable(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:,.3g}"


def by_shape(results: Mapping[str, Any]) -> dict[str, dict[str, tuple[float, Sequence[float]]]]:
    """Updates per second and their spread, by shape and contender."""
    found: dict[str, dict[str, tuple[float, Sequence[float]]]] = {}
    for key, value in results.items():
        parts = key.split("/")
        if parts[0] == "updates_per_second" and len(parts) == 3:
            spread = results[f"{parts[0]}/{parts[1]}/spread/{parts[2]}"]
            found.setdefault(parts[1], {})[parts[2]] = (value, spread)
    return found


def by_prior(results: Mapping[str, Any], quantity: str) -> dict[str, list[tuple[int, float]]]:
    """Points and a quantity such as "fit_seconds", by class of prior, in the order of points."""
    found: dict[str, list[tuple[int, float]]] = {}
    for key, value in results.items():
        parts = key.split("/")
        if parts[0] == "prior" and parts[3] == quantity:
            found.setdefault(parts[1], []).append((int(parts[2]), value))
    return {name: sorted(pairs) for name, pairs in found.items()}
