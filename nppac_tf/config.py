"""What a run is made of: frozen dataclasses, validated when constructed.

Every default of a run lives here, once. The launchers make one flag of each field, with the
field's `help` as its text, so a flag, its default and its documentation cannot drift apart. This
module imports the standard library only: `--help` must answer at once.
"""

import dataclasses
import math
from typing import Any

from nppac_tf.errors import UserError

PRIORS = (
    "gp",
    "sparse_gp",
    "exact_gp",
    "gaussian_network",
    "ensemble",
    "bayesian_network",
    "dropout",
    "uniform",
)
# Points up to which the prior "gp" is an exact Gaussian process: of the door's 6,729 a sparse one
# loses the skill (docs/recipe.md).
LARGEST_EXACT_GP = 10_000
KERNELS = ("rbf", "matern12", "matern32", "matern52")
ALGORITHMS = ("nppac", "awac", "cloning")
ACTOR_VALUES = ("min", "mean")
TAUGHT = ("critics", "all")
DIVERGENCES = ("sampled", "closed_form")
XLA_MODES = ("auto", "on", "off")
PRECISIONS = ("float32", "bfloat16", "auto")
REWARDS = ("binary", "negative")
_MAY_GROW = "training.num_env_steps"


def _option(default: Any, text: str, choices: tuple[str, ...] | None = None) -> Any:
    return dataclasses.field(default=default, metadata={"help": text, "choices": choices})


def _require(condition: bool, name: str, requirement: str, received: Any) -> None:
    if not condition:
        raise UserError(f"{name} must be {requirement}; got {received!r}")


def _require_positive(name: str, value: float) -> None:
    _require(0 < value < math.inf, name, "positive and finite", value)


def _check_choices(config: Any) -> None:
    for field in dataclasses.fields(config):
        choices = field.metadata.get("choices")
        value = getattr(config, field.name)
        if choices and value not in choices:
            raise UserError(f"{field.name} must be one of {', '.join(choices)}; got {value!r}")


def _check_layers(name: str, layers: tuple[int, ...]) -> None:
    _require(
        len(layers) > 0 and all(isinstance(units, int) and units > 0 for units in layers),
        name,
        "one or more positive layer sizes",
        layers,
    )


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """How the behavioral policy pi0 is fitted to the demonstrations."""

    prior: str = _option(
        "gp",
        f"Class of the behavioral prior; gp: exact up to {LARGEST_EXACT_GP:,} points, then sparse.",
        PRIORS,
    )
    kernel: str = _option("matern52", "Kernel of the Gaussian process (ARD).", KERNELS)
    action_lookahead: int = _option(
        0,
        "Steps to look ahead: pairs an observation with the action that many steps later, so that "
        "the prior hurries where a position-controlled demonstrator was slow.",
    )
    num_inducing_points: int = _option(500, "Inducing points of the sparse Gaussian process.")
    num_hyperparameter_points: int = _option(
        1000, "Random points on which a Gaussian process fits its hyper-parameters."
    )
    max_fit_iterations: int = _option(100, "L-BFGS iterations on the marginal likelihood.")
    observation_noise: bool = _option(
        True, "Count the demonstrator's noise in the deviation of the Gaussian process."
    )
    network_layers: tuple[int, ...] = _option((256, 256), "Hidden layers of a network as prior.")
    network_epochs: int = _option(100, "Passes over the demonstrations that fit a network.")
    weight_decay: float = _option(
        0.0,
        "Decoupled weight decay of a network; a Bayesian one has its weights' prior instead.",
    )
    entropy_bonus: float = _option(
        0.0,
        "Weight in [0, 1) of the entropy in a network's objective; c widens the fitted deviation "
        "by 1 / sqrt(1 - c).",
    )
    early_stopping_patience: int = _option(
        0,
        "Epochs without progress on held-out episodes after which a network's fit stops, and its "
        "best weights are restored; 0 to fit all episodes for all epochs.",
    )
    validation_fraction: float = _option(0.2, "Share of the episodes held out for early stopping.")
    ensemble_size: int = _option(5, "Networks in the ensemble.")
    num_network_samples: int = _option(
        20, "Draws of a Bayesian network's weights, or of dropout's masks, that a prior averages."
    )
    dropout_rate: float = _option(0.1, "Share of hidden units that dropout leaves out.")
    scale_factor: float = _option(1.0, "The prior's deviation is multiplied by this.")
    scale_floor: float = _option(
        0.0, "Lower bound on the prior's deviation, in units of the action; 0 for none."
    )
    fixed_scale: float | None = _option(
        None, "If given, the prior's deviation everywhere, in units of the action."
    )
    prior_seed: int = _option(
        0,
        "Seed of a Gaussian process's random subset, and of all that is random in a network's fit.",
    )

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in (
            "num_inducing_points",
            "num_hyperparameter_points",
            "max_fit_iterations",
            "network_epochs",
            "ensemble_size",
            "num_network_samples",
        ):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in ("action_lookahead", "early_stopping_patience", "prior_seed"):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _check_layers("network_layers", self.network_layers)
        _require(
            0 <= self.weight_decay < math.inf,
            "weight_decay",
            "finite and at least 0",
            self.weight_decay,
        )
        _require(0 <= self.entropy_bonus < 1, "entropy_bonus", "in [0, 1)", self.entropy_bonus)
        for name in ("validation_fraction", "dropout_rate"):
            _require(0 < getattr(self, name) < 1, name, "in (0, 1)", getattr(self, name))
        _require_positive("scale_factor", self.scale_factor)
        _require(
            0 <= self.scale_floor < math.inf,
            "scale_floor",
            "finite and at least 0",
            self.scale_floor,
        )
        if self.fixed_scale is not None:
            _require_positive("fixed_scale", self.fixed_scale)
            _require(
                self.scale_factor == 1.0 and self.scale_floor == 0.0,
                "fixed_scale",
                "none with a scale_factor or scale_floor, which it makes void",
                self.fixed_scale,
            )

    def unscaled(self) -> "PriorConfig":
        """The same fit, without what `priors.rescale` adds to it."""
        return dataclasses.replace(self, scale_factor=1.0, scale_floor=0.0, fixed_scale=None)


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Networks and constants of the KL-regularized soft actor-critic.

    The defaults hold the skill of a prior and climb from it; configs/paper has those of the paper.
    """

    actor_layers: tuple[int, ...] = _option((256, 256), "Hidden layers of the actor.")
    critic_layers: tuple[int, ...] = _option((256, 256), "Hidden layers of each critic.")
    squash: bool = _option(
        False, "Actor: tanh-squashed Gaussian (true), or Gaussian with a tanh mean (false)."
    )
    critic_layer_norm: bool = _option(True, "Layer normalization in the critics.")
    num_critics: int = _option(6, "Critics, each with its own weights and target.")
    num_target_critics: int | None = _option(
        None,
        "Critics, drawn anew for each update, of whose values a target takes the least; none for "
        "all of them.",
    )
    actor_value: str = _option(
        "min", "What the actor maximizes: the least or the mean of all critics.", ACTOR_VALUES
    )
    kl_in_target: bool = _option(True, "Count the KL term in the critics' targets.")
    divergence: str = _option(
        "closed_form",
        "KL from the prior by one sample, or in closed form (needs --nosquash).",
        DIVERGENCES,
    )
    temperature: float = _option(
        0.2,
        "Weight alpha of the KL term: its value, or its start, where it stays while critics warm "
        "up; annealed, it goes on from where the schedule is by then.",
    )
    target_kl: float | None = _option(
        None, "If given, alpha is tuned to hold the mean KL at this many nats."
    )
    final_temperature: float | None = _option(
        0.0015,
        "Alpha of N-PPAC goes to this value, geometrically, over --annealing_updates, once the "
        "policy learns, unless a --target_kl tunes it; none to stay.",
    )
    annealing_updates: int = _option(
        45_000,
        "Updates of the critics, their warm-up included, until alpha is at its final value.",
    )
    policy_averaging: int = _option(
        4_000,
        "Updates of the actor over which the policy that is evaluated and exported averages its "
        "weights, exponentially; 0 for none.",
    )
    precision: str = _option(
        "float32",
        "Of matrix products in hidden layers; auto: bfloat16 where the processor or GPU has it.",
        PRECISIONS,
    )
    learning_rate: float = _option(3e-4, "Adam's step size for actor, critics and alpha.")
    discount: float = _option(0.98, "Discount gamma per environment step.")
    target_update_rate: float = _option(0.05, "Share tau of the critics in each target update.")
    algorithm: str = _option("nppac", "N-PPAC, or what it is compared with.", ALGORITHMS)

    def __post_init__(self) -> None:
        _check_choices(self)
        _check_layers("actor_layers", self.actor_layers)
        _check_layers("critic_layers", self.critic_layers)
        _require(self.num_critics >= 2, "num_critics", "at least 2", self.num_critics)
        _require(
            self.num_target_critics is None or 1 <= self.num_target_critics <= self.num_critics,
            "num_target_critics",
            f"none, or from 1 to num_critics ({self.num_critics})",
            self.num_target_critics,
        )
        _require(
            self.divergence == "sampled" or not self.squash,
            "divergence",
            "'sampled' with a squashed actor (closed_form needs --nosquash)",
            self.divergence,
        )
        _require_positive("temperature", self.temperature)
        if self.target_kl is not None:
            _require_positive("target_kl", self.target_kl)
        if self.algorithm != "nppac":
            _require(
                self.target_kl is None,
                "target_kl",
                f"none with algorithm {self.algorithm}",
                self.target_kl,
            )
        if self.final_temperature is not None:
            _require_positive("final_temperature", self.final_temperature)
        _require(
            self.annealing_updates >= 1, "annealing_updates", "at least 1", self.annealing_updates
        )
        _require(
            self.policy_averaging >= 0, "policy_averaging", "at least 0", self.policy_averaging
        )
        _require_positive("learning_rate", self.learning_rate)
        _require(0 <= self.discount < 1, "discount", "in [0, 1)", self.discount)
        _require(
            0 < self.target_update_rate <= 1,
            "target_update_rate",
            "in (0, 1]",
            self.target_update_rate,
        )

    @property
    def anneals(self) -> bool:
        """Whether alpha goes to `final_temperature`."""
        tuned = self.target_kl is not None
        return self.algorithm == "nppac" and self.final_temperature is not None and not tuned


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The loop: pre-train, then collect, update, evaluate, save."""

    num_env_steps: int = _option(
        50_000, "Environment steps of online training; rounded up to whole epochs."
    )
    num_environments: int = _option(10, "Environments stepped side by side.")
    num_greedy_environments: int | None = _option(
        None,
        "Of these, those in which the mean of the newest policy acts, without exploring; "
        "none for half of them.",
    )
    exploration_spread: float = _option(
        3.0,
        "Of the others, where they are two or more, the first explores with the policy's deviation "
        "and the last with so many times as much, those between evenly between.",
    )
    steps_per_epoch: int = _option(
        1000, "Environment steps collected between two rounds of updates."
    )
    updates_per_step: float = _option(1.0, "Gradient updates per environment step.")
    policy_interval: int = _option(1, "Updates of the critics for one of the actor.")
    n_step: int = _option(
        5,
        "Environment steps whose rewards a critic's target sums; the KL term is that of the last, "
        "and sums end with an epoch.",
    )
    batch_size: int = _option(256, "Transitions per update.")
    demonstration_share: float = _option(
        0.0, "Share of each batch drawn from the demonstrations (hand tasks)."
    )
    demonstrations_teach: str = _option(
        "critics", "What learns from that share: the critics, or all.", TAUGHT
    )
    offline_updates: int = _option(
        0,
        "Updates on the replayed demonstrations before the first environment step; with "
        "--critic_warmup_steps of the critics alone.",
    )
    prefill_replay: bool = _option(False, "The replay begins with the demonstrations (hand tasks).")
    replay_capacity: int = _option(1_000_000, "Transitions the replay holds.")
    pretraining_steps: int = _option(
        20_000, "Updates that fit the actor to the prior on the demonstrations; 0 for none."
    )
    pretraining_batch_size: int = _option(256, "Demonstration states per pre-training update.")
    pretraining_noise: float = _option(
        0.05,
        "Noise on pre-training states, as a share of each dimension's deviation in the "
        "demonstrations; it makes the actor forgive states beside them.",
    )
    critic_warmup_steps: int = _option(
        4_000,
        "Environment steps at the start in which the critics learn and the actor does not: "
        "untrained critics would make it forget what it was pre-trained to do.",
    )
    warmup_imitation: bool = _option(
        True,
        "In those steps fit the actor to the prior where it is now, on the states of the replay.",
    )
    eval_interval: int = _option(2000, "Environment steps between evaluations.")
    eval_episodes: int = _option(50, "Episodes per evaluation.")
    checkpoint_interval: int = _option(10_000, "Environment steps between checkpoints.")
    seed: int = _option(0, "Seed of networks, environments, replay and exploration.")
    xla: str = _option("auto", "Compile updates with XLA; auto: with a GPU.", XLA_MODES)

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in (
            "num_environments",
            "steps_per_epoch",
            "policy_interval",
            "n_step",
            "batch_size",
            "replay_capacity",
            "pretraining_batch_size",
            "eval_interval",
            "eval_episodes",
            "checkpoint_interval",
        ):
            _require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        for name in (
            "num_env_steps",
            "pretraining_steps",
            "offline_updates",
            "critic_warmup_steps",
            "seed",
        ):
            _require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        _require(
            0 <= self.greedy_environments < self.num_environments,
            "num_greedy_environments",
            f"none, or at least 0 and below num_environments ({self.num_environments}), "
            "or nothing explores",
            self.num_greedy_environments,
        )
        _require(
            1 <= self.exploration_spread < math.inf,
            "exploration_spread",
            "finite and at least 1",
            self.exploration_spread,
        )
        _require(
            self.num_env_steps == 0 or self.critic_warmup_steps < self.num_env_steps,
            "critic_warmup_steps",
            f"below num_env_steps ({self.num_env_steps}), or the actor never learns: fewer, in "
            f"epochs of {self.steps_per_epoch}, or 0 for none",
            self.critic_warmup_steps,
        )
        _require(
            0 <= self.pretraining_noise < math.inf,
            "pretraining_noise",
            "finite and at least 0",
            self.pretraining_noise,
        )
        replayed = round(self.demonstration_share * self.batch_size)
        _require(
            self.demonstration_share == 0 or 1 <= replayed <= self.batch_size - 1,
            "demonstration_share",
            f"0, or between 1 and {self.batch_size - 1} of the {self.batch_size} transitions",
            self.demonstration_share,
        )
        _require(
            self.demonstration_share > 0 or self.demonstrations_teach == "critics",
            "demonstrations_teach",
            "'critics' without a demonstration_share, since it means nothing then",
            self.demonstrations_teach,
        )
        _require(
            self.num_env_steps > 0 or self.offline_updates == 0 or self.critic_warmup_steps == 0,
            "critic_warmup_steps",
            "0 with offline_updates alone, or the actor never learns",
            self.critic_warmup_steps,
        )
        _require(
            self.offline_updates == 0 or self.prefill_replay,
            "offline_updates",
            "0 without prefill_replay, or there is nothing to learn from",
            self.offline_updates,
        )
        _require_positive("updates_per_step", self.updates_per_step)
        _require(
            self.steps_per_epoch % self.num_environments == 0,
            "steps_per_epoch",
            f"a multiple of num_environments ({self.num_environments})",
            self.steps_per_epoch,
        )
        _require(
            self.replay_capacity >= self.steps_per_epoch,
            "replay_capacity",
            f"at least steps_per_epoch ({self.steps_per_epoch})",
            self.replay_capacity,
        )
        for name in ("eval_interval", "checkpoint_interval", "critic_warmup_steps"):
            _require(
                getattr(self, name) % self.steps_per_epoch == 0,
                name,
                f"a multiple of steps_per_epoch ({self.steps_per_epoch})",
                getattr(self, name),
            )

    @property
    def greedy_environments(self) -> int:
        """`num_greedy_environments`, or half of all."""
        if self.num_greedy_environments is None:
            return self.num_environments // 2
        return self.num_greedy_environments


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything needed to repeat a run."""

    task: str = _option("pen-binary", "pen-binary, door-binary, halfcheetah, or a Gymnasium id.")
    reward: str = _option("binary", "Hand tasks: 0/1 (binary) or -1/0 (negative).", REWARDS)
    demonstrations: str = _option(
        "embedded:pen", "embedded:NAME, minari:ID, or a .npz, AWAC .npy or DAPG .pickle file."
    )
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        _check_choices(self)
        _require(
            self.demonstrations != "",
            "demonstrations",
            "named, by a file, embedded:NAME or minari:ID",
            self.demonstrations,
        )
        if self.agent.algorithm == "cloning":
            _require(
                self.prior.prior != "uniform",
                "prior",
                "one that is fitted with algorithm cloning, which acts as it does",
                self.prior.prior,
            )
            _require(
                self.training.pretraining_steps == 0,
                "pretraining_steps",
                "0 with algorithm cloning, which has nothing to train",
                self.training.pretraining_steps,
            )

    def require_resumable(self, asked: "RunConfig", run: Any) -> None:
        """Checks that a run of this configuration may go on as asked: the same, or longer.

        Raises:
            UserError: names the first field that differs, and `run`.
        """
        had, wanted = flatten(self.to_dict()), flatten(asked.to_dict())
        for name, value in wanted.items():
            longer = name == _MAY_GROW and value >= had[name]
            if value != had[name] and not longer:
                flag = name.rpartition(".")[2]
                or_more = " or more" if name == _MAY_GROW else ""
                raise UserError(
                    f"{flag} must be {had[name]!r}{or_more} to resume {run}; got {value!r}"
                )

    def to_dict(self) -> dict[str, Any]:
        """Nested plain values, ready for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """The inverse of `to_dict`; an unknown or missing field is a UserError."""
        try:
            parts: tuple[tuple[Any, dict[str, Any]], ...] = (
                (cls, values),
                (PriorConfig, values["prior"]),
                (AgentConfig, values["agent"]),
                (TrainingConfig, values["training"]),
            )
            for kind, part in parts:
                missing = {field.name for field in dataclasses.fields(kind)} - part.keys()
                if missing:
                    raise KeyError(", ".join(sorted(missing)))
            rest = {k: v for k, v in values.items() if k not in ("prior", "agent", "training")}
            return cls(
                prior=PriorConfig(**_with_tuples(values["prior"])),
                agent=AgentConfig(**_with_tuples(values["agent"])),
                training=TrainingConfig(**values["training"]),
                **rest,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not the configuration of a run of this version: {error}") from None


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by their dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat
