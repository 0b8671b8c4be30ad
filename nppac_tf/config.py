"""What a run is made of: frozen dataclasses, validated when constructed.

Every default of a run lives here, once. The launchers make one flag of each field, with the
field's `help` as its text, so a flag, its default and its documentation cannot drift apart. This
module imports the standard library only: `--help` must answer at once.
"""

import dataclasses
from typing import Any

from nppac_tf.errors import UserError
from nppac_tf.options import check_fields, option, require

PRIORS = (
    "gp",
    "sparse_gp",
    "gaussian_network",
    "ensemble",
    "bayesian_network",
    "dropout",
    "uniform",
)
KERNELS = ("rbf", "matern12", "matern32", "matern52")
ALGORITHMS = ("nppac", "awac", "cloning")
ACTORS = ("anchored", "network")
ACTOR_VALUES = ("min", "mean")
TAUGHT = ("critics", "all")
DIVERGENCES = ("auto", "sampled", "closed_form")
XLA_MODES = ("auto", "on", "off")
PRECISIONS = ("float32", "bfloat16", "auto")
REWARDS = ("binary", "negative")


@dataclasses.dataclass(frozen=True)
class PriorConfig:
    """How the behavioral prior pi0 is fitted to the demonstrations."""

    prior: str = option(
        "gp",
        "Class of the prior. gp: exact mean, variance from the nearest demonstration states.",
        PRIORS,
    )
    kernel: str = option("matern52", "Kernel of the Gaussian process.", KERNELS)
    ard: bool = option(
        True,
        "Fit one lengthscale per dimension of the observation; false: one for all, which few or "
        "uneven demonstrations determine better.",
    )
    lengthscale_factor: float = option(
        1.0,
        "Factor on the fitted lengthscales: above 1, the prior's mean is smoother than the "
        "demonstrations alone ask for.",
        positive=True,
    )
    num_neighbors: int = option(
        64, "Demonstration states that the variance of the prior gp is conditioned on.", minimum=1
    )
    action_lookahead: int = option(
        0,
        "Pair each observation with the action this many steps later, so that the prior is faster "
        "than a slow demonstrator.",
        minimum=0,
    )
    num_inducing_points: int = option(
        2000, "Inducing points of the sparse Gaussian process.", minimum=1
    )
    network_layers: tuple[int, ...] = option((256, 256), "Hidden layers of a network prior.")
    network_epochs: int = option(
        100, "Passes over the demonstrations to fit a network prior.", minimum=1
    )
    ensemble_size: int = option(5, "Networks in the ensemble.", minimum=1)
    dropout_rate: float = option(0.1, "Share of hidden units that dropout leaves out.")
    scale_factor: float = option(
        0.3,
        "Factor on the prior's standard deviation, with which the policy starts and explores: most "
        "of the whole is the demonstrator's own noise.",
        positive=True,
    )
    scale_floor: float | None = option(
        None,
        "Smallest standard deviation of the prior, in units of the action; 0 for none (default: "
        "the factor times that where held-out episodes are predicted best; none for a network).",
        minimum=0,
    )
    fixed_scale: float | None = option(
        None,
        "Standard deviation of the prior in every state, in units of the action; or none.",
        positive=True,
    )
    prior_seed: int | None = option(
        None, "Seed of the prior's fit (default: the training seed).", minimum=0
    )

    def __post_init__(self) -> None:
        check_fields(self)
        require(0 < self.dropout_rate < 1, "dropout_rate", "in (0, 1)", self.dropout_rate)
        allowed = self.fixed_scale is None or not self.scale_floor
        overrides = "none with a scale_floor, which it overrides"
        require(allowed, "fixed_scale", overrides, self.fixed_scale)

    def unscaled(self) -> "PriorConfig":
        """The same fit without factor, floor and fixed scale."""
        return dataclasses.replace(self, scale_factor=1.0, scale_floor=0.0, fixed_scale=None)


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    """Networks and constants of the KL-regularized soft actor-critic.

    The defaults are the recipe of docs/recipe.md; configs/paper has the settings of the paper.
    """

    actor: str = option(
        "anchored",
        "Policy. anchored: the prior plus a learned correction, so that it is the prior until it "
        "learns; network: a network of its own (always, with a uniform prior).",
        ACTORS,
    )
    actor_layers: tuple[int, ...] = option((256, 256), "Hidden layers of the actor.")
    critic_layers: tuple[int, ...] = option((256, 256), "Hidden layers of each critic.")
    squash: bool = option(
        False, "Network actor: tanh-squashed Gaussian, instead of a Gaussian with a tanh mean."
    )
    critic_layer_norm: bool = option(True, "Use layer normalization in the critics.")
    num_critics: int = option(6, "Number of critics.", minimum=2)
    num_target_critics: int | None = option(
        None, "Critics drawn for each update, whose minimum is the target; none for all."
    )
    actor_value: str = option(
        "min", "Value that the actor maximizes: minimum or mean of the critics.", ACTOR_VALUES
    )
    kl_in_target: bool = option(True, "Include the KL term in the critics' targets.")
    divergence: str = option(
        "auto",
        "Estimate of the KL. auto: closed form where the policy is Gaussian, else one sample.",
        DIVERGENCES,
    )
    temperature: float = option(
        0.2, "First weight alpha of the KL term, per unit of --reward_scale.", positive=True
    )
    target_kl: float | None = option(
        None,
        "Tune alpha to a mean KL that grows with each episode to this many nats; none: no tuning.",
        positive=True,
    )
    reward_scale: float | None = option(
        None,
        "Reward of a good step, the unit of alpha and Q (default: largest of an epoch).",
        positive=True,
    )
    precision: str = option(
        "float32",
        "Precision of hidden layers' products. auto: bfloat16 where the hardware has it.",
        PRECISIONS,
    )
    learning_rate: float = option(
        3e-4, "Step size of Adam for actor, critics and alpha.", positive=True
    )
    discount: float = option(0.98, "Discount gamma per environment step.")
    target_update_rate: float = option(0.05, "Rate tau of the target critics' moving average.")
    algorithm: str = option("nppac", "N-PPAC, or a baseline.", ALGORITHMS)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.num_target_critics is None or 1 <= self.num_target_critics <= self.num_critics,
            "num_target_critics",
            f"none, or from 1 to num_critics ({self.num_critics})",
            self.num_target_critics,
        )
        require(
            self.divergence != "closed_form" or not self.squash,
            "divergence",
            "'auto' or 'sampled' with a squashed actor",
            self.divergence,
        )
        require(
            self.actor == "network" or not self.squash,
            "squash",
            "false with actor anchored, whose mean is squashed already (--actor=network)",
            self.squash,
        )
        if self.algorithm != "nppac":
            require(
                self.target_kl is None,
                "target_kl",
                f"none with algorithm {self.algorithm}",
                self.target_kl,
            )
        require(0 <= self.discount < 1, "discount", "in [0, 1)", self.discount)
        require(
            0 < self.target_update_rate <= 1,
            "target_update_rate",
            "in (0, 1]",
            self.target_update_rate,
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """The loop: pre-train, then collect, update, evaluate, save.

    Warm-up and averaging are shares of the run unless given.
    """

    num_env_steps: int = option(
        50_000, "Environment steps of online training, rounded up to whole epochs.", minimum=0
    )
    num_environments: int = option(10, "Environments stepped side by side.", minimum=1)
    num_greedy_environments: int | None = option(
        None, "Environments that take the policy's mean action (default: half of them)."
    )
    exploration_spread: float = option(
        3.0,
        "Largest factor on the policy's standard deviation among the environments that explore; "
        "the factors rise evenly from 1.",
        minimum=1,
    )
    episode_limit: int | None = option(
        None,
        "Steps after which four of five environments start a new episode (default: 200 for a task "
        "without a success signal, else no limit).",
        minimum=1,
    )
    steps_per_epoch: int = option(
        1000, "Environment steps between two rounds of updates.", minimum=1
    )
    updates_per_step: float = option(1.0, "Gradient updates per environment step.", positive=True)
    policy_interval: int = option(1, "Critic updates per actor update.", minimum=1)
    n_step: int = option(
        5, "Steps of reward in a critic's target; sums end with an epoch.", minimum=1
    )
    batch_size: int = option(256, "Transitions per update.", minimum=1)
    final_temperature: float | None = option(
        0.001,
        "Smallest alpha. Once the actor learns, alpha falls with the greedy training episodes, and "
        "rises while they go worse than before; none: alpha stays.",
        positive=True,
    )
    temperature_decay: float = option(
        0.06, "Share by which alpha falls per greedy episode of full length.", positive=True
    )
    annealing_steps: int | None = option(
        None,
        "Environment steps in which alpha falls geometrically to final_temperature, instead of "
        "following the episodes.",
        minimum=0,
    )
    policy_averaging: int | None = option(
        None,
        "Updates over which the evaluated policy averages the actor's weights (default: 4 % of "
        "all; 0 for none).",
        minimum=0,
    )
    critic_warmup_steps: int | None = option(
        None,
        "Environment steps before the actor learns (default: 4,000, or half of a shorter run).",
        minimum=0,
    )
    warmup_imitation: bool = option(
        True, "Network actor: fit it to the prior on visited states during the warm-up."
    )
    pretraining_steps: int = option(
        20_000, "Network actor: updates that fit it to the prior before the first step.", minimum=0
    )
    pretraining_batch_size: int = option(256, "States per pre-training update.", minimum=1)
    demonstration_share: float = option(
        0.0, "Share of each batch drawn from the demonstrations, which need rewards."
    )
    demonstrations_teach: str = option(
        "critics", "Networks that learn from that share: critics, or all.", TAUGHT
    )
    offline_updates: int = option(
        0, "Updates on the replayed demonstrations before the first environment step.", minimum=0
    )
    prefill_replay: bool = option(False, "Put the demonstrations into the replay.")
    replay_capacity: int = option(
        1_000_000, "Largest number of transitions in the replay.", minimum=1
    )
    eval_interval: int = option(2000, "Environment steps between evaluations.", minimum=1)
    eval_episodes: int = option(50, "Episodes per evaluation.", minimum=1)
    checkpoint_interval: int = option(2000, "Environment steps between checkpoints.", minimum=1)
    seed: int = option(0, "Seed of networks, environments, replay and exploration.", minimum=0)
    xla: str = option("auto", "Compile updates with XLA; auto: on a GPU.", XLA_MODES)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            0 <= self.greedy_environments < self.num_environments,
            "num_greedy_environments",
            f"none, or at least 0 and below num_environments ({self.num_environments}), "
            "or nothing explores",
            self.num_greedy_environments,
        )
        require(
            self.num_env_steps == 0 or (self.critic_warmup_steps or 0) < self.num_env_steps,
            "critic_warmup_steps",
            f"below num_env_steps ({self.num_env_steps}), or the actor never learns",
            self.critic_warmup_steps,
        )
        replayed = round(self.demonstration_share * self.batch_size)
        require(
            self.demonstration_share == 0 or 1 <= replayed <= self.batch_size - 1,
            "demonstration_share",
            f"0, or between 1 and {self.batch_size - 1} of the {self.batch_size} transitions",
            self.demonstration_share,
        )
        require(
            self.demonstration_share > 0 or self.demonstrations_teach == "critics",
            "demonstrations_teach",
            "'critics' without a demonstration_share, since it means nothing then",
            self.demonstrations_teach,
        )
        require(
            self.num_env_steps > 0 or self.offline_updates == 0 or not self.critic_warmup_steps,
            "critic_warmup_steps",
            "0 with offline_updates alone, or the actor never learns",
            self.critic_warmup_steps,
        )
        require(
            self.offline_updates == 0 or self.prefill_replay,
            "offline_updates",
            "0 without prefill_replay, or there is nothing to learn from",
            self.offline_updates,
        )
        require(
            self.steps_per_epoch % self.num_environments == 0,
            "steps_per_epoch",
            f"a multiple of num_environments ({self.num_environments})",
            self.steps_per_epoch,
        )
        require(
            self.replay_capacity >= self.steps_per_epoch,
            "replay_capacity",
            f"at least steps_per_epoch ({self.steps_per_epoch})",
            self.replay_capacity,
        )
        for name in ("eval_interval", "checkpoint_interval", "critic_warmup_steps"):
            require(
                (getattr(self, name) or 0) % self.steps_per_epoch == 0,
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

    @property
    def judged_environments(self) -> int:
        """Environments whose episodes say how the policy does: the greedy ones, or all."""
        return self.greedy_environments or self.num_environments

    @property
    def warmup_steps(self) -> int:
        """`critic_warmup_steps`, or 4,000, or half of a shorter run, in whole epochs."""
        if self.critic_warmup_steps is not None:
            return self.critic_warmup_steps
        steps = min(4000, self.num_env_steps // 2)
        return steps - steps % self.steps_per_epoch

    @property
    def averaged_updates(self) -> int:
        """`policy_averaging`, or 4 % of the run's updates; at least 1, which averages nothing."""
        given = self.policy_averaging
        updates = self.num_env_steps * self.updates_per_step
        return max(1, round(0.04 * updates) if given is None else given)


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything needed to repeat a run."""

    task: str = option(
        "pen-binary", "pen-binary, fetch-push, halfcheetah, a Gymnasium id, or module:function."
    )
    observation_keys: tuple[str, ...] = option(
        (), "Parts of a Dict observation to use, in this order (default: all)."
    )
    success_key: str | None = option(
        None, "Entry of info that is true at the goal (default: success or is_success)."
    )
    reward: str = option("binary", "Own reward (hand: 0/1), or negative: -1 off goal.", REWARDS)
    demonstrations: str = option(
        "embedded:pen", "embedded:NAME, minari:ID, a file or a folder; several with commas."
    )
    prior: PriorConfig = dataclasses.field(default_factory=PriorConfig)
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)

    def __post_init__(self) -> None:
        check_fields(self)
        require(
            self.demonstrations != "",
            "demonstrations",
            "named, by a file, embedded:NAME or minari:ID",
            self.demonstrations,
        )
        if self.agent.algorithm == "cloning":
            require(
                self.prior.prior != "uniform",
                "prior",
                "one that is fitted with algorithm cloning, which acts as it does",
                self.prior.prior,
            )
            require(
                self.training.pretraining_steps == 0,
                "pretraining_steps",
                "0 with algorithm cloning, which has nothing to train",
                self.training.pretraining_steps,
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
                **_with_tuples(rest),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(f"not the configuration of a run of this version: {error}") from None


def _with_tuples(values: dict[str, Any]) -> dict[str, Any]:
    """JSON knows no tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
