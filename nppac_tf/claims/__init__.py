"""Measures the paper's claims C1 to C5, C8 and C9.

Each module measures one claim and draws its figure. A measurement returns a result with the
methods `numbers()` (for JSON), `table()` (for CSV) and `figure()`; `write_claim` writes the files.
"""

from nppac_tf.claims.c1_degeneracy import Degeneracy, measure_degeneracy
from nppac_tf.claims.c2_predictive_scale import PredictiveScales, measure_predictive_scales
from nppac_tf.claims.c3_fixed_scales import FixedScaleRuns, read_fixed_scale_runs
from nppac_tf.claims.c4_gradients import GradientGrowth, measure_gradient_growth
from nppac_tf.claims.c5_calibration import Calibration, measure_calibration
from nppac_tf.claims.c8_prior_classes import PriorClassRuns, read_prior_class_runs
from nppac_tf.claims.c9_few_demonstrations import FewDemonstrations, measure_few_demonstrations
from nppac_tf.claims.common import write_claim

__all__ = [
    "Calibration",
    "Degeneracy",
    "FewDemonstrations",
    "FixedScaleRuns",
    "GradientGrowth",
    "PredictiveScales",
    "PriorClassRuns",
    "measure_calibration",
    "measure_degeneracy",
    "measure_few_demonstrations",
    "measure_gradient_growth",
    "measure_predictive_scales",
    "read_fixed_scale_runs",
    "read_prior_class_runs",
    "write_claim",
]
