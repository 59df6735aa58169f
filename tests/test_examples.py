"""The examples as a user runs them: each ends, and what it prints is better than chance."""

import itertools
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from test_builders import wav, write

from experiments.data.preparing import prepare

FOLDER = Path(__file__).resolve().parents[1] / "examples"

EXPECTED = {
    "dropout": lambda found: found[1] > 75 and found[3] > found[1] - 2,
    "ensemble": lambda found: found[3] > found[0] > 75,
    "nnx_network": lambda found: found[-1] > 85,
    "own_flip_rule": lambda found: found[0] > found[2] + 3 and found[3] == 0,
    "own_neuron": lambda found: found[0] > 80,
    "padded_sequences": lambda found: found[0] > 70 and found[1] == 2,
    "recurrent_speech": lambda found: found[-1] > 50,
    "regression": lambda found: found[0] < 0.8 * found[1],
    "residual": lambda found: found[-1] > 80,
    "several_labels": lambda found: found[0] > found[1] + 20,
    "streaming": lambda found: found[7] > 2 * found[0],
    "transfer": lambda found: found[0] > 80,
}
"""What must hold of the numbers of the last lines, in their order."""


def clips():
    """Spoken digits that are whistled: a pitch for each, of unequal length."""
    rng = np.random.default_rng(0)
    found = {}
    for digit, number in itertools.product(range(10), range(25)):
        time = np.arange(int(rng.integers(2000, 6000))) / 8000
        tone = np.sin(2 * np.pi * 200 * 1.35**digit * time) + 0.3 * rng.standard_normal(len(time))
        found[f"{digit}_ann_{number}.wav"] = wav((8000 * tone).astype(np.int16))
    return found


def numbers(text):
    return [float(word) for word in re.findall(r"-?\d+\.?\d*", text)]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.stem for path in FOLDER.glob("*.py")))
def test_an_example_runs_and_learns(name, tmp_path):
    path = FOLDER / f"{name}.py"
    assert 15 <= len(path.read_text().splitlines()) <= 65
    if name == "recurrent_speech":
        prepare("fsdd_sequence", tmp_path / "data", write(tmp_path / "fsdd", clips()), quiet=True)
    environment = {
        **os.environ,
        "TFDS_DATA_DIR": str(tmp_path / "data"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "XLA_FLAGS": "",
    }
    done = subprocess.run(
        [sys.executable, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = 2 if name in ("dropout", "own_flip_rule") else 1
    assert EXPECTED[name](numbers(" ".join(done.stdout.splitlines()[-lines:]))), done.stdout


def test_every_example_has_its_bar():
    assert {path.stem for path in FOLDER.glob("*.py")} <= EXPECTED.keys()
