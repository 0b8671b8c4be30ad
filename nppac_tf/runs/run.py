"""A run from its configuration to its policy, started in a folder or resumed."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from nppac_tf.agents.factory import make_agent
from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.config import RunConfig
from nppac_tf.demonstrations import modes
from nppac_tf.errors import UserError
from nppac_tf.priors import cached, default_cache, fit_prior, load_prior, rescale
from nppac_tf.runs import inputs
from nppac_tf.runs.config_file import require_same_networks
from nppac_tf.runs.directory import RunDirectory
from nppac_tf.runs.display import ProgressDisplay
from nppac_tf.runs.inputs import Inputs
from nppac_tf.runs.unused_settings import unused_settings
from nppac_tf.training.evaluator import Metrics
from nppac_tf.training.loop import train


class TrainingRun:
    """A run, in steps that a caller may stop between or within.

    Call `open`, `make_agent`, `train` and `conclude` in this order, while `directory.locked()`
    keeps other processes away.

    Args:
        folder: Folder of the run.
        config: The run's configuration.
        given: What `inputs.load` makes of the configuration.
        display: Shows what happens.
        source: Folder of a run that a new run starts from: its newest policy and critics, and its
            prior if demonstrations and settings of the prior are the same.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        config: RunConfig,
        given: Inputs,
        display: ProgressDisplay,
        source: str | os.PathLike[str] | None = None,
    ) -> None:
        self.directory = RunDirectory(folder)
        self._task, self._demonstrations = given
        self._config = dataclasses.replace(config, task=self._task.name)
        self._display = display
        self._source = None if source is None else RunDirectory(source)

    def open(self, resume: bool) -> None:
        """Starts the run in its folder, or resumes the one that is there.

        Raises:
            UserError: if there is a run already, or none to resume, or one of other settings, or
                the source has other networks, or other sizes than the task.
        """
        data, say = self._demonstrations, self._display.say
        say(f"{data.name}: {data.num_episodes} episodes, {data.num_steps:,} steps")
        for notice in (*data.notices, modes.notice(data)):
            if notice:
                say(notice)
        unused = unused_settings(self._config)
        if unused:
            say(f"Ignored by this run: {', '.join(unused)}")
        if resume:
            notices = self.directory.resume(self._config, data, self._source)
            say(f"Resuming {self.directory.path}; its evaluations so far:")
            for notice in notices:
                say(notice)
        else:
            self.directory.require_new()
            if self._source is not None:
                self._require_sizes(self._source)
            notices = self.directory.begin(self._config, data, self._source)
            say(f"Writing to {self.directory.path}")
            for notice in notices:
                say(notice)

    def _require_sizes(self, source: RunDirectory) -> None:
        """Raises UserError unless a run has the task's sizes and the configuration's networks."""
        require_same_networks(source.config(), self._config, source.path)
        had, task = source.load_prior(), self._task
        sizes = had.observation_size, had.action_size
        if sizes != (wanted := (task.observation_size, task.action_size)):
            raise UserError(
                f"task must have observation and action size {sizes} to start from "
                f"{source.path}; got {wanted} of {task.name}"
            )

    def make_agent(self, cache: pathlib.Path | None) -> NppacAgent:
        """The agent as the run starts. Its prior is fitted, unless the folder has it.

        Args:
            cache: Folder of fitted priors; None for none.
        """
        config, data = self._config, self._demonstrations
        asked = config.prior.unscaled()
        if asked.prior_seed is None:
            asked = dataclasses.replace(asked, prior_seed=config.training.seed)
        kept = (self.directory.prior, self.directory.start.prior)
        if path := next(filter(pathlib.Path.exists, kept), None):
            fitted = load_prior(path)
        elif cached(data, asked, cache):
            fitted = fit_prior(data, asked, cache)
            self._display.say(f"Prior {asked.prior}: read from {cache}")
        else:
            with self._display.busy("Fitting the prior"):
                fitted = fit_prior(data, asked, cache)
        self.directory.keep_prior(fitted, data)
        prior = rescale(fitted, config.prior)
        agent = make_agent(self._task, prior, config.agent, config.training.seed)
        self.directory.start.load(agent, config.agent.reward_scale is None)
        return agent

    def train(self, agent: NppacAgent, should_stop: Callable[[], Any]) -> list[Metrics]:
        """Trains to the end, from the newest checkpoint where there is one.

        Args:
            agent: Changed in place.
            should_stop: See `training.train`.

        Returns:
            One row of metrics per evaluation of the whole run.

        Raises:
            training.loop.Stopped: if `should_stop` returned true; the run can be resumed.
            UserError: see `training.train`.
        """
        return train(
            agent,
            self._task,
            self._demonstrations,
            config=self._config.training,
            observers=[self._display, self.directory.observer()],
            checkpoint=self.directory.checkpoint,
            keep_best=self.directory.keep_best,
            should_stop=should_stop,
        )

    def conclude(self, agent: NppacAgent, rows: Sequence[Metrics]) -> None:
        """Draws the learning curve and exports the policy."""
        with self._display.busy("Exporting the policy"):
            self.directory.conclude(agent, self._task, rows, inputs.title(self._config))


def prior_cache(value: str | None) -> pathlib.Path | None:
    """The folder of fitted priors that --prior_cache names: none for "none", else the user's."""
    if value == "none":
        return None
    return pathlib.Path(value).expanduser() if value else default_cache()
