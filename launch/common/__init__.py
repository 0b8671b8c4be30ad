"""Code that the launchers share."""

import importlib.util
import sys

if any(importlib.util.find_spec(name) is None for name in ("absl", "nppac_tf")):
    sys.exit(
        "error: nppac_tf is not installed for this Python: run `make setup` and use "
        ".venv/bin/python, or run `pip install .`"
    )
