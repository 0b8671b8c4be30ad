"""Agents: N-PPAC, its TF-Agents interface and networks, and the algorithms it is compared with."""

import importlib.util

import tensorflow as tf

from nppac_tf.errors import UserError

if importlib.util.find_spec("tf_agents") is None:
    raise UserError("TF-Agents must be installed: pip install --no-deps tf-agents==0.19.0")
if str(getattr(tf.keras, "__version__", 2)).startswith("3"):
    raise UserError(
        f"Keras must be version 2, of the package tf-keras; got {tf.keras.__version__}: import "
        "nppac_tf before tf_agents and before tf.keras is used, or set TF_USE_LEGACY_KERAS=1"
    )
