"""A run from its configuration to its policy: begun in a folder, or gone on with."""

import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from nppac_tf.agents.factory import make_agent
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import RunConfig
from nppac_tf.priors import chosen_class, default_cache, fit_prior, load_prior, rescale
from nppac_tf.runs import inputs
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.runs.display import ProgressDisplay
from nppac_tf.runs.inputs import Inputs
from nppac_tf.runs.unused_settings import unused_settings
from nppac_tf.training.loop import Metrics, train


class TrainingRun:
    """A run, in steps that whoever carries it out may stop between or within.

    `open`, `make_agent`, `train` and `conclude` are to be called in this order, while
    `directory.locked()` keeps other processes away.

    Args:
        folder: Of the run.
        config: What is asked.
        given: What `inputs.load` makes of the configuration.
        display: Is told what happens.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: RunConfig,
        given: Inputs,
        display: ProgressDisplay,
    ) -> None:
        self.directory = RunDirectory(folder)
        self._config = config
        self._task, self._demonstrations = given
        self._display = display

    def open(self, resume: bool) -> None:
        """Begins the run in its folder, or goes on with the one that is there.

        Raises:
            UserError: if there is a run, or none, or one that may not go on so.
        """
        data, say = self._demonstrations, self._display.say
        say(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps")
        for notice in data.notices:
            say(notice)
        unused = unused_settings(self._config)
        if unused:
            say(f"Without effect in this run: {', '.join(unused)}")
        if resume:
            notices = self.directory.resume(self._config, data)
            say(f"Going on with {self.directory.path}; its evaluations so far:")
            for notice in notices:
                say(notice)
        else:
            self.directory.require_new()
            self.directory.begin(self._config, data)
            say(f"Writing to {self.directory.path}")

    def make_agent(self, cache: pathlib.Path | None) -> NppacAgent:
        """The agent as the run begins, after its prior was fitted, unless the folder has that.

        Args:
            cache: Folder of fitted priors; None for none.
        """
        config = self._config
        if self.directory.prior.exists():
            fitted = load_prior(self.directory.prior)
        else:
            _, choice = chosen_class(config.prior, self._demonstrations.num_steps)
            self._display.say(f"Prior: {choice}")
            with self._display.busy("Fitting the prior"):
                fitted = fit_prior(self._demonstrations, config.prior.unscaled(), cache)
        self.directory.keep_prior(fitted)
        prior = rescale(fitted, config.prior)
        return make_agent(self._task, prior, config.agent, config.training.seed)

    def train(self, agent: NppacAgent, should_stop: Callable[[], Any]) -> list[Metrics]:
        """Trains to the end, from the newest checkpoint where there is one.

        Args:
            agent: Changed in place.
            should_stop: See `training.train`.

        Returns:
            One row of metrics per evaluation of the whole run.

        Raises:
            training.Stopped: if `should_stop` said so; the run can go on.
            UserError: see `training.train`.
        """
        return train(
            agent,
            self._task,
            self._demonstrations,
            config=self._config.training,
            observers=[self._display, self.directory.observer()],
            checkpoint=self.directory.checkpoint,
            should_stop=should_stop,
        )

    def conclude(self, agent: NppacAgent, rows: Sequence[Metrics]) -> None:
        """Draws the learning curve and exports the policy."""
        with self._display.busy("Exporting the policy"):
            self.directory.conclude(
                agent, self._task, rows, inputs.title(self._config), self._demonstrations
            )


def prior_cache(value: str | None) -> pathlib.Path | None:
    """The folder of fitted priors that --prior_cache names: none for "none", else the user's."""
    if value == "none":
        return None
    return pathlib.Path(value).expanduser() if value else default_cache()
