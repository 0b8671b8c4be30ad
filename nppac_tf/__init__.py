"""N-PPAC: reinforcement learning regularized toward a non-parametric behavioral prior.

The public names are listed once, in `__init__.pyi`, and loaded when first used: `import nppac_tf`
itself imports neither TensorFlow nor anything else that is slow.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
