"""Expert demonstrations: the data set, and reading and writing it."""

from nppac_tf.demonstrations.demonstrations import Demonstrations
from nppac_tf.demonstrations.formats import load_demonstrations, save_demonstrations

__all__ = ["Demonstrations", "load_demonstrations", "save_demonstrations"]
