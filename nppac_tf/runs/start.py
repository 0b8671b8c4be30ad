"""What a run starts from: copies of the weights and the prior of another run."""

import pathlib
import shutil

import tensorflow as tf

from nppac_tf.agents.nppac import NppacAgent
from nppac_tf.errors import UserError
from nppac_tf.training import checkpoints


class Start:
    """The folder start/ of a run; without it the run starts from nothing.

    Args:
        path: Nothing is made or read before it is needed.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path

    @property
    def prior(self) -> pathlib.Path:
        """Path of the other run's prior; absent where the run fits its own."""
        return self._path / "prior.npz"

    def take(self, checkpoint: pathlib.Path, prior: pathlib.Path | None) -> None:
        """Copies the weights of a checkpoint and, unless None, the file of a fitted prior."""
        checkpoints.copy_variables(checkpoint, self._path)
        if prior is not None:
            shutil.copyfile(prior, self.prior)

    def load(self, agent: NppacAgent, with_reward_scale: bool) -> None:
        """Gives an agent the networks and the number of updates, if there are any.

        Its temperature and its optimizers stay as they are.

        Args:
            agent: Changed in place.
            with_reward_scale: Whether it also gets the unit of rewards, in which the critics are.

        Raises:
            UserError: if the weights do not fit.
        """
        if not self._path.exists():
            return
        parts = {
            name: part
            for name, part in agent.learned.items()
            if name != "log_alpha" and not name.endswith("optimizer")
        }
        if not with_reward_scale:
            del parts["reward_scale"]
        read_learned(tf.train.Checkpoint(**parts), self._path)


def read_learned(objects: tf.train.Checkpoint, path: pathlib.Path) -> None:
    """As `checkpoints.read_variables`; UserError if they do not fit."""
    try:
        checkpoints.read_variables(objects, path)
    except (AssertionError, ValueError, tf.errors.OpError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} does not fit the run's configuration: {reason}") from None
