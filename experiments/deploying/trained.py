"""The trained network in a run's folder, and the data that it was trained for."""

import dataclasses
from pathlib import Path
from typing import Any

import jax

import bsojax
from experiments.build import frame_of
from experiments.config import Config
from experiments.data import DataSet, load
from experiments.front_ends.sequences import Padded
from experiments.networks import make_model
from experiments.running.folder import MODEL, resumed

EARLIER = "model.msgpack"
"""The network's file in runs of earlier versions."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network.

    Attributes:
      folder: of its run.
      path: its file.
      config: the settings of the run.
      data: the data that it was trained on; its test part is that of the data set.
      model: the network.
      state: signs to ship, real parameters and statistics.
    """

    folder: Path
    path: Path
    config: Config
    data: DataSet
    model: Any
    state: bsojax.TrainState


def trained(folder: Path, data_dir: Path | None = None) -> Trained:
    """Reads the network of a run, with the neurons of evaluation, whichever rule trained it.

    Args:
      folder: the run's.
      data_dir: folder of prepared data sets; None: the one that the run used.

    Raises:
      FileNotFoundError: there is no run, it has no network yet, or its data are not on this machine.
      ValueError: a file is damaged; or the inputs are padded sequences, whose ends no file records.
    """
    try:
        begun = resumed(folder)
    except ValueError as error:
        raise ValueError(f"RUN: {folder / 'config.json'} is damaged ({error.__cause__ or error}).") from error
    if begun is None:
        raise FileNotFoundError(f"RUN: there is no run in {folder}: it holds no config.json.")
    path = next((folder / name for name in (MODEL, EARLIER) if (folder / name).is_file()), None)
    if path is None:
        command = f"python -m experiments.train --resume --output {folder}"
        raise FileNotFoundError(f"RUN: the run in {folder} has no network yet; finish it: {command}")
    config = begun[1]
    data = load(config.dataset, data_dir or config.data_dir, config.num_steps)
    model = make_model(config, data.num_classes, bsojax.LIF)
    frame = frame_of(config, data)
    stored = jax.ShapeDtypeStruct((1, *data.test.example.shape), data.test.example.dtype)
    if isinstance(jax.eval_shape(data.front_end.evaluate, stored), Padded):
        raise ValueError(f"RUN: '{config.dataset}' has padded sequences; integer networks need full ones.")
    state = bsojax.load_model(path, model, input_shape=frame.shape[1:]).state
    return Trained(folder, path, config, data, model, state)
