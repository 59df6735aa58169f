"""docs/EXTENDING.md as a user follows it.

A rival and a data set are added to a copy of the experiments, and train; parts of the library do what the page says.
"""

import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bsojax

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS, LIBRARY = (ROOT / "docs" / "EXTENDING.md").read_text().split("## In the library\n")

RUN = """
import sys
from experiments.train import main
for words in (
    ["stripes", "--no-control", "--output", "stripes"],
    ["stripes", "--no-control", "--output", "lion", "--optimizer", "lion", "--weight-decay", "0.01"],
):
    main(words)
main(["stripes", "--optimizer", "sltt", "--weight-decay", "0.01", "--output", "refused"])
"""


def blocks():
    """The code of the first half: the file that the words before it name last, its language, and its lines."""
    found = re.findall(r"([^\n]*\n?[^\n]*):\n\n```(python|diff)\n(.*?)```", EXPERIMENTS, re.DOTALL)
    return [(re.findall(r"`(experiments/\S+\.py)`$", words), kind, code) for words, kind, code in found]


def changed(text, diff):
    """A text with a change: lines without a sign are found in it, those with a minus go, those with a plus come."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(old) == 1, old
        text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the experiments with what the page adds: its place, the files, and the page's last code."""
    place = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "experiments", place / "experiments", ignore=shutil.ignore_patterns("__pycache__"))
    touched, script = [], None
    for paths, kind, code in blocks():
        if not paths:
            script = code
            continue
        file = place / paths[0]
        assert file.exists() == (kind == "diff")
        file.write_text(changed(file.read_text(), code) if kind == "diff" else code)
        touched.append(paths[0])
    return place, touched, script


@pytest.fixture(scope="module")
def ran(extended):
    """What the copy printed when it was trained."""
    place, _, script = extended
    path = os.pathsep.join([str(place), str(ROOT)])  # the copy comes first
    environment = {**os.environ, "PYTHONPATH": path, "TFDS_DATA_DIR": str(place / "data")}
    return subprocess.run(
        [sys.executable, "-c", script + RUN], cwd=place, env=environment, capture_output=True, text=True, check=False
    )


def test_the_page_touches_no_more_files_than_it_says(extended):
    _, touched, _ = extended
    assert touched == [
        "experiments/rules/lion.py",
        "experiments/rules/__init__.py",
        "experiments/config.py",
        "experiments/data/known.py",
        "experiments/configs/stripes.py",
    ]


@pytest.mark.slow
def test_the_rival_and_the_data_set_of_the_page_train(extended, ran):
    place, _, _ = extended
    assert ran.returncode == 2, ran.stderr  # of the last command, which is refused
    assert ran.stderr.endswith(
        "error: --weight-decay: 'sltt' has no such setting; omit it. It has --latent-learning-rate, --average.\n"
    )
    lion = json.loads((place / "lion" / "summary.json").read_text())["results"]["Lion"]
    assert lion["flip_ratio"] > 0
    stripes = json.loads((place / "stripes" / "summary.json").read_text())["results"]["T-BSO, calibrated"]
    assert stripes["accuracy"] == 1


T = 4
X, Y = np.random.default_rng(0).random((16, 8, 8, 1), np.float32), np.arange(16) % 4
Network = functools.partial(bsojax.models.SpikingMLP, features=(32, 32), num_classes=4)


def optimizer(momentum="float32"):
    return bsojax.split_optimizer(bsojax.calibrated(T, 20 * T, momentum_dtype=momentum), optax.sgd(0.1))


def trained(model, tx):
    step, state = bsojax.make_train_step(model, tx, T), bsojax.init(model, tx, jax.random.key(0), X)
    flips = 0
    for _ in range(5):
        state, metrics = step(state, X, Y)
        flips += sum(int(count) for count in metrics["flips"].values())
    assert metrics["skipped"] == 0
    return state, flips


@pytest.fixture(scope="module")
def own():
    """What the code of the second half defines, run from top to bottom."""
    names = {}
    for code in re.findall(r"```python\n(.*?)```", LIBRARY, re.DOTALL):
        exec(code, names)
    return SimpleNamespace(**names)


def test_all_code_of_the_page_is_run():
    assert len(blocks()) == EXPERIMENTS.count("```") / 2
    assert LIBRARY.count("```python") == LIBRARY.count("```") / 2


@pytest.mark.slow
def test_the_trace_of_the_page_forgets_all_before_a_spike(own):
    neuron, current = bsojax.LIF(trace=own.last_spike), jnp.asarray(2 * X[0])
    variables, before, after = {}, np.zeros(current.shape, bool), 0
    for _ in range(T):
        old = np.asarray(variables["neurons"]["trace"]) if variables else np.zeros(current.shape)
        spikes, variables = neuron.apply(variables, current, mutable=["neurons"])
        fired, trace = np.asarray(spikes.value) == 1, np.asarray(variables["neurons"]["trace"])
        np.testing.assert_array_equal(trace[fired], 1)
        np.testing.assert_allclose(trace[~fired], 0.5 * old[~fired])
        after, before = after + (before & fired).sum(), before | fired
    assert after > 0
    assert not before.all()
    states = [trained(Network(neuron=functools.partial(bsojax.LIF, trace=rule)), optimizer())[0].signs
              for rule in (own.last_spike, bsojax.ottt)]  # fmt: skip
    assert any((one != other).any() for one, other in zip(*map(jax.tree.leaves, states), strict=True))


def test_the_neuron_of_the_page_tires_trains_and_stays_on_the_path_that_saves_memory(own):
    neuron, current = own.Adapting(strength=0.5), jnp.full((1, 4), 1.2)
    variables, rates = {}, []
    for _ in range(20):
        spikes, variables = neuron.apply(variables, current, mutable=["neurons"])
        rates.append(float(spikes.value.mean()))
    assert np.mean(rates[10:]) < np.mean(rates[:3])
    model = Network(neuron=own.Adapting)
    _, flips = trained(model, optimizer())
    assert flips > 0
    neurons = bsojax.online.start(model, jnp.asarray(X), T, train=True).neurons["neuron_1"]
    assert isinstance(neurons["membrane"], bsojax.nn.BeforeReset)
    assert set(neurons) == {"membrane", "trace", "fatigue"}


def test_the_momentum_of_the_page_rests_in_16_bits_without_bias_and_trains(own):
    state, flips = trained(Network(), optimizer(own.FixedPoint()))
    assert flips > 0
    kept = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.dtype == jnp.int16]
    assert [leaf.shape for leaf in kept] == [leaf.shape for leaf in jax.tree.leaves(state.signs)]
    kind, zero, gradient = own.FixedPoint(), jnp.zeros(64, jnp.int16), jnp.full(64, 1e-3)
    rested = jnp.stack([kind.advance(zero, gradient, 0.9, 0, jnp.int32(count))[0] for count in range(200)])
    assert set(np.unique(rested)) == {0, 1}  # of 0.41 steps
    np.testing.assert_allclose(rested.mean(), 4096 * 1e-4, atol=4 * 0.5 / np.sqrt(rested.size))


@pytest.mark.slow
def test_the_exchange_of_the_page_sends_bfloat16_and_averages_in_float32(own):
    devices, exchange = jax.local_device_count(), own.HalfBytes("batch")
    assert devices > 1
    grads = {"a": jax.random.normal(jax.random.key(0), (devices, 5)), "b": jnp.full((devices, 2), 1 + 2.0**-7)}
    mean = jax.pmap(exchange.gradients, axis_name="batch")(grads)
    np.testing.assert_array_equal(mean["b"], grads["b"])  # a bfloat16; summed as such it would be rounded
    rounded = grads["a"].astype(jnp.bfloat16).astype(jnp.float32)
    np.testing.assert_allclose(mean["a"], jnp.stack([rounded.mean(0)] * devices), rtol=1e-6, atol=1e-6)

    model, tx = Network(norm=functools.partial(bsojax.BatchNorm, axis_name="batch")), optimizer()
    step = jax.pmap(bsojax.make_train_step(model, tx, T, exchange=exchange), axis_name="batch")
    state = jax.tree.map(lambda leaf: jnp.stack([leaf] * devices), bsojax.init(model, tx, jax.random.key(0), X))
    shares = [part.reshape(devices, -1, *part.shape[1:]) for part in (X, Y)]
    assert re.search(r"all_gather[^\n]*bf16", step.lower(state, *shares).as_text())
    state, metrics = step(state, *shares)
    assert sum(int(count[0]) for count in metrics["flips"].values()) > 0
    for leaf in jax.tree.leaves(state):
        np.testing.assert_array_equal(leaf, jnp.stack([leaf[0]] * devices))


def test_the_step_of_the_page_is_ours_where_labels_do_not_change(own):
    model, tx = Network(), optimizer()
    loss = lambda logits, y: bsojax.cross_entropy_mse()(logits, y) / T  # noqa: E731
    ours, usual = own.make_labelling_step(model, tx, loss, T), bsojax.make_train_step(model, tx, T)
    one, other = (bsojax.init(model, tx, jax.random.key(0), X) for _ in range(2))
    xs, flips = np.stack([X] * T), 0
    for _ in range(3):
        one, value = ours(one, xs, np.stack([Y] * T))
        other, metrics = usual(other, X, Y)
        flips += sum(int(count) for count in metrics["flips"].values())
        np.testing.assert_allclose(T * value, metrics["loss"], rtol=1e-5)
    assert flips > 0
    assert one.step == other.step == 3
    jax.tree.map(np.testing.assert_array_equal, one.signs, other.signs)
    _, changing = ours(one, xs, np.stack([(Y + t) % 4 for t in range(T)]))
    _, metrics = usual(other, X, Y)
    assert np.isfinite(changing)
    assert not np.isclose(T * changing, metrics["loss"], rtol=1e-3)
