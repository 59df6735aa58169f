"""What an experiment is: every setting of a run, with the name and the help text that the command line shows."""

import dataclasses
import math
from pathlib import Path
from typing import Literal

import tyro

Channels = tuple[int | Literal["M"], ...]


@dataclasses.dataclass(frozen=True)
class Config:
    """Settings of one training run."""

    dataset: str
    """The data set, by its TensorFlow Datasets name."""
    channels: tyro.conf.Suppress[Channels]
    """Channels of each convolution of the SpikingVGG, "M" where a pooling stands."""
    binary_ends: bool = False
    """Make the first convolution and the readout binary too, so that flips alone do the learning."""
    optimizer: Literal["bso", "t-bso"] = "t-bso"
    """Flip optimizer: an absolute threshold (bso), or one in units of the gradient's root mean square (t-bso)."""
    preset: Literal["paper", "calibrated"] = "calibrated"
    """Its settings: the paper's, or ours: 1 - b1 annealed by a cosine, threshold half the momentum's noise."""
    threshold: float | None = None
    """Flip threshold; None: the preset's. In the calibrated preset it follows 1 - b1 as its square root."""
    b1: float | None = None
    """Decay of the momentum; None: the preset's. In the calibrated preset 1 - b1 is where the annealing starts."""
    b2: float | None = None
    """Decay of the second moment (t-bso); None: the preset's."""
    learning_rate: float = 0.1
    """Where the learning rate of the real parameters (SGD, cosine decay) starts."""
    num_steps: int = 4
    """Number of time steps T."""
    trace: Literal["ottt", "ndot", "ndot-released", "none"] = "ottt"
    """Presynaptic trace of the weight gradient."""
    batch_size: int = 32
    """Images a batch."""
    epochs: int = 15
    """Passes over the training images."""
    seed: int = 0
    """Seed of the weights and of the order of the images."""
    frozen: bool = False
    """Never flip a sign: the control, in which only the real parameters learn."""
    control: bool = True
    """Train the frozen control of the same seed afterwards, for the table."""
    validation: bool = False
    """Hold out a fifth of the training images and evaluate on it in place of the test set, to choose settings."""
    data_dir: Path | None = None
    """Where prepared data sets lie; None: TFDS_DATA_DIR, or ~/tensorflow_datasets."""
    output: Path | None = None
    """The run's folder, which must not hold a run yet; None: runs/NAME-DATE-TIME."""

    def check(self) -> None:
        """Raises ValueError unless every number is in range, naming the first that is not."""
        for name in ("num_steps", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')}: must be at least 1, got {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"--seed: must be in 0 .. 2^32 - 1, got {self.seed}.")
        if not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"--learning-rate: must be a finite number >= 0, got {self.learning_rate}.")
        if self.threshold is not None and not self.threshold >= 0:
            raise ValueError(f"--threshold: must be >= 0, got {self.threshold}.")
        for name in ("b1", "b2"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < 1:
                raise ValueError(f"--{name}: must be in [0, 1), got {value}.")
