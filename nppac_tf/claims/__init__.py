"""The paper's claims C1 to C5 and C8, measured.

Each is a function that gives arrays, numbers and a table.
"""

from nppac_tf.claims.c1_degeneracy import Degeneracy, measure_degeneracy
from nppac_tf.claims.c2_deviations import Deviations, measure_deviations
from nppac_tf.claims.c3_fixed_scales import FixedScaleRuns, read_fixed_scale_runs
from nppac_tf.claims.c4_gradients import GradientGrowth, measure_gradient_growth
from nppac_tf.claims.c5_calibration import Recalibration, recalibrate
from nppac_tf.claims.c8_prior_classes import PriorClassRuns, read_prior_class_runs
from nppac_tf.claims.writing import write_claim

__all__ = [
    "Degeneracy",
    "Deviations",
    "FixedScaleRuns",
    "GradientGrowth",
    "PriorClassRuns",
    "Recalibration",
    "measure_degeneracy",
    "measure_deviations",
    "measure_gradient_growth",
    "read_fixed_scale_runs",
    "read_prior_class_runs",
    "recalibrate",
    "write_claim",
]
