"""Data sets as arrays in memory, through TensorFlow Datasets and without TensorFlow."""

from experiments.data.arrays import Arrays as Arrays
from experiments.data.arrays import hold_out as hold_out
from experiments.data.arrays import load as load
