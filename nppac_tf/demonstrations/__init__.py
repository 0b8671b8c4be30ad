"""Expert demonstrations: the data set, its recordings, and the readers of its file formats."""

from nppac_tf.demonstrations.dataset import Demonstrations
from nppac_tf.demonstrations.formats.loading import (
    load_demonstrations,
    load_recording,
    save_demonstrations,
)

__all__ = ["Demonstrations", "load_demonstrations", "load_recording", "save_demonstrations"]
