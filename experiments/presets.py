"""The numbers of the two presets, as the pages of results name them."""

from experiments.rules.flips import CalibratedTBso, TBso

PAPER_THRESHOLD = TBso.threshold
PAPER_B1 = TBso.b1
PAPER_B2 = TBso.b2
CALIBRATED_B1 = CalibratedTBso.b1
CALIBRATED_GROWTH = CalibratedTBso.growth
CALIBRATED_C = CalibratedTBso.threshold
