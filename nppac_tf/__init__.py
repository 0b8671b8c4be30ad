"""N-PPAC: reinforcement learning regularized toward a non-parametric behavioral prior.

The public names are listed once, in `__init__.pyi`, and loaded when first used: `import nppac_tf`
itself imports neither TensorFlow nor anything else that is slow.
"""

import importlib.util
import os
import sys

import lazy_loader

__version__ = "0.2.1"

# On Python 3.11 TF-Agents' PolicySaver fails with typing-extensions 4.6 and later, unless wrapt
# leaves its C code out.
if sys.version_info < (3, 12):
    os.environ.setdefault("WRAPT_DISABLE_EXTENSIONS", "1")

# TF-Agents needs Keras 2. From TensorFlow 2.16 `tf.keras` is Keras 3, unless this is set before
# `tf.keras` is first used; then it is tf_keras.
if importlib.util.find_spec("tf_keras") is not None:
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
