"""docs/USING.md as a user follows it: its code runs from top to bottom."""

import contextlib
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import bsojax
import bsojax.nnx
from experiments.data.known import SETS
from experiments.front_ends import sequences

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "USING.md").read_text()


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    found = {}
    with contextlib.chdir(tmp_path_factory.mktemp("using")):  # the page saves a network
        for code in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
            exec(code, found)
    return found


def test_the_page_runs_and_says_what_is(names):
    assert {"loss", "mae", "flips", "spikes", "skipped"} == set(names["options"]["metrics"]) | {
        "loss",
        "flips",
        "spikes",
        "skipped",
    }
    assert names["crossings"].all()
    assert names["answers"].shape == (8, 3)
    assert names["logits"].shape == (8, 3)
    assert names["left_fresh"] == ["params/readout/bias", "params/readout/kernel"]
    assert names["metrics"]["skipped"] == 0
    for leaf in jax.tree.leaves(names["state"].params):
        assert np.isfinite(leaf).all()


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(?:bsojax\.)?([A-Za-z_.]+)(?:\(.*?\))?`", PAGE))))
def test_the_names_on_the_page_exist(name):
    known = [bsojax, bsojax.losses, bsojax.encoders, bsojax.nn, bsojax.nnx, sequences]
    first = name.split(".")[0]
    outside = {"optax", "flax", "a", "x", "y", "b", "neuron", "state", "time_step", "total", "spike_rates", "sown"}
    outside |= {"optimizer", "saved", "deployed", "count", "value", "grad", "spike", "refractory_steps"}
    assert first in outside | SETS.keys() or any(hasattr(room, first) for room in known), name
