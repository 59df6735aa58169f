"""Data sets through TensorFlow Datasets and without TensorFlow: held on the device, or streamed."""

from experiments.data.data_sets import DataSet as DataSet
from experiments.data.data_sets import hold_out as hold_out
from experiments.data.known import SETS as SETS
from experiments.data.known import KnownSet as KnownSet
from experiments.data.loading import load as load
from experiments.data.preparing import prepare as prepare
from experiments.data.splits import MemorySplit as MemorySplit
from experiments.data.splits import Split as Split
from experiments.data.streams import StreamSplit as StreamSplit
