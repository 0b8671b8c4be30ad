"""Puts the package of this checkout, installed or not, and the launchers' own modules on the path.

To be imported before the package is.
"""

import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]

sys.path.insert(0, str(ROOT))
sys.path.append(str(pathlib.Path(__file__).resolve().parent))
