"""NIR: the graph computes what the integer network does, by its specification and in other simulators."""

import contextlib
import functools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import nir
import numpy as np
import optax
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from nir_simulator import conv as nir_conv
from nir_simulator import simulate
from sklearn.datasets import load_digits

import bsojax
from bsojax.deploy import Synapse, Window, _reference, integer_network
from bsojax.deploy._square import squared, ungrouped
from bsojax.models import cifar_stem

pytestmark = pytest.mark.slow  # each network is written, and simulated in NumPy

ROOT = Path(__file__).resolve().parents[1]
SCALE = 16


class Chain(nn.Module):
    """Functions of (x, train), one after the other."""

    parts: tuple

    @nn.compact
    def __call__(self, x, train=False, time_step=None):
        for part in self.parts:
            x = part(x, train)
        return x


def layer(kind, *args, **kwargs):
    return lambda x, train: kind(*args, **kwargs)(x)


def conv(out, size=(3, 3), **kwargs):
    return layer(bsojax.BinaryConv, out, size, **kwargs)


def real(out, size=(3, 3), **kwargs):
    return layer(bsojax.Conv, out, size, **kwargs)


def dense(out, **kwargs):
    return layer(bsojax.BinaryDense, out, **kwargs)


def norm(x, train):
    return bsojax.BatchNorm()(x, train)


def fire(kind=bsojax.LIF, **kwargs):
    return layer(kind, **kwargs)


def pool(function, *args):
    return lambda x, train: function(x, *args)


flatten, readout = pool(bsojax.flatten), layer(bsojax.Dense, 5)
HARD = functools.partial(fire, v_reset=0.0)


def residual(x, train):
    """Currents added to each other; neurons of different leaks read the sum, and a sum with it."""
    one = norm(conv(4)(x, train), train)
    two = norm(real(4)(x, train), train)
    first = one + two
    spikes = bsojax.LIF(tau=3.0, v_threshold=2.0)(first)
    third = norm(conv(4)(spikes, train), train) + first
    return bsojax.LIF(tau=1.5, v_threshold=3.0)(third)


def twice(x, train):
    """A current that is added to a sum of itself."""
    one = norm(conv(4)(x, train), train)
    return bsojax.LIF(v_threshold=2.0)((one + norm(real(4)(x, train), train)) + one * 0.5)


def flat_sum(x, train):
    """The pixels of an image and a vector of as many elements, added."""
    image = norm(conv(2)(x, train), train)
    vector = norm(dense(2 * 7 * 6)(bsojax.flatten(x), train), train)
    return bsojax.LIF()(bsojax.flatten(image) + vector)


IMAGE, SIGNAL, VECTOR = (7, 6, 3), (11, 3), (20,)
FIRING, END = (norm, fire()), (flatten, readout)
NETWORKS = {
    "convolutions": (IMAGE, (real(6), *FIRING, conv(5), *FIRING, pool(bsojax.global_avg_pool), readout)),
    "vectors": (VECTOR, (dense(30), *FIRING, dense(30), norm, fire(tau=3.0), readout)),
    "hard resets": (IMAGE, (real(6), norm, HARD(), conv(5), norm, HARD(tau=1.3), *END)),
    "resets to other values": (VECTOR, (dense(30), norm, fire(v_reset=-0.5, v_threshold=0.7), readout)),
    "no leak": (VECTOR, (dense(30), norm, fire(bsojax.IF), dense(30), norm, fire(bsojax.IF, v_reset=0.0), readout)),
    "learned leak": (VECTOR, (dense(30), norm, fire(bsojax.PLIF), readout)),
    "decayed inputs": (VECTOR, (dense(30), norm, fire(decay_input=True), readout)),
    "memory of nothing": (VECTOR, (dense(30), norm, fire(tau=1.0), readout)),
    "thresholds a channel": (VECTOR, (dense(4), norm, fire(v_threshold=(0.5, 0.8, 1.1, 1.4)), readout)),
    "averages behind neurons": (IMAGE, (conv(5), *FIRING, pool(bsojax.avg_pool, 2), conv(4), *FIRING, *END)),
    "averages before the norm": (IMAGE, (conv(5), pool(bsojax.avg_pool, (3, 2)), *FIRING, conv(3), *FIRING, *END)),
    "largest of spikes": (IMAGE, (conv(5), *FIRING, pool(bsojax.max_pool, 2), conv(4), norm, HARD(), *END)),
    "norm of a vector of pixels": (IMAGE, (conv(3), flatten, *FIRING, dense(9), *FIRING, readout)),
    "norm of the input": (IMAGE, (norm, conv(3), *FIRING, *END)),
    "neurons on a vector of pixels": (IMAGE, (conv(3), norm, flatten, fire(), dense(9), *FIRING, readout)),
    "layers without neurons between": (IMAGE, (conv(3), norm, real(4), *FIRING, flatten, dense(6), readout)),
    "strides, SAME": (IMAGE, (real(4, strides=(2, 2)), *FIRING, conv(4, strides=(2, 1)), *FIRING, *END)),
    "an even kernel, SAME": (IMAGE, (real(4, (2, 2)), *FIRING, conv(4, (4, 4)), *FIRING, *END)),
    "one row, one column": (IMAGE, (real(4, (1, 3)), *FIRING, conv(4, (5, 1)), *FIRING, *END)),
    "VALID": (IMAGE, (real(4, padding="VALID"), *FIRING, conv(4, padding="VALID"), *FIRING, *END)),
    "dilation": (IMAGE, (real(4, kernel_dilation=(2, 2)), *FIRING, conv(4, (2, 2), kernel_dilation=(3, 2)), *END)),
    "groups": (IMAGE, (real(6, feature_group_count=3), *FIRING, conv(4, feature_group_count=2), *FIRING, *END)),
    "uneven zeros": (IMAGE, (real(4, padding=((0, 2), (3, 1))), *FIRING, conv(4, padding=((1, 0), (2, 1))), *END)),
    "signals": (SIGNAL, (real(4, (3,)), *FIRING, pool(bsojax.avg_pool, 2), conv(4, (4,)), *FIRING, *END)),
    "sums of currents": (IMAGE, (residual, *END)),
    "a sum with one of its parts": (IMAGE, (twice, *END)),
    "pixels and a vector": (IMAGE, (flat_sum, readout)),
    "binary readout": (VECTOR, (dense(30), *FIRING, dense(5))),
    "logits of a norm": (VECTOR, (dense(30), *FIRING, dense(5), norm)),
}  # fmt: skip
RESNET = bsojax.models.SpikingResNet(num_classes=5, stages=(1, 1), width=4, stem=cifar_stem)
MODELS = {name: (shape, Chain(parts)) for name, (shape, parts) in NETWORKS.items()} | {
    "VGG": ((8, 8, 2), bsojax.models.SpikingVGG(channels=(4, "M", 6), num_classes=5)),
    "MLP on images": ((5, 4, 2), bsojax.models.SpikingMLP(features=(16, 16), num_classes=5)),
    "ResNet": ((8, 8, 2), RESNET),
}


def deployed(model, shape, num_steps=3, is_sequence=False):
    """A network of random numbers and inputs for it."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, SCALE + 1, ((num_steps, 4) if is_sequence else (4,)) + shape)
    given = (x / SCALE).astype(np.float32)

    def drawn(path, leaf):
        """Numbers with which neurons fire now and then."""
        kind = path[-1].key
        if leaf.dtype == bool:
            return jnp.asarray(rng.integers(0, 2, leaf.shape), bool)
        size = math.prod(leaf.shape[:-1]) ** -0.5
        low, high = {"mean": (-0.5, 0.5), "var": (2, 8), "bias": (0.2, 1), "scale": (0.5, 1.5), "w": (0, 1)}.get(
            kind, (-2 * size, 2 * size)
        )
        return jnp.asarray(rng.uniform(low, high, leaf.shape), jnp.float32)

    start = functools.partial(model.init, train=False, time_step=0)
    shapes = jax.eval_shape(start, jax.random.key(0), given[0] if is_sequence else given)
    variables = jax.tree_util.tree_map_with_path(drawn, {name: shapes[name] for name in shapes if name != "neurons"})
    trees = [variables.get(name, {}) for name in ("signs", "params", "batch_stats")]
    state = bsojax.TrainState(*trees, (), jnp.zeros((), int), jnp.zeros((), int), shape)
    return integer_network(model, state, given, num_steps, input_scale=SCALE, input_max=SCALE), x


def frames_of(network, graph, x):
    """Inputs as the graph takes them."""
    data = network.to_nir_data(x).nodes["input"].observables["input"].data
    return data.swapaxes(0, 1).reshape(network.num_steps, -1, *graph.nodes["input"].output_type["output"])


def assert_same(network, x, graph):
    logits, spikes = network.run(x)
    total, found, nearest = simulate(graph, frames_of(network, graph, x))
    told = network.to_nir_data(x)
    assert nearest > 1e-6  # else rounding decides, and the numbers drawn say nothing
    assert len(told.nodes) == 1 + len(spikes)
    for name, node in told.nodes.items():
        if "spikes" in node.observables:
            wanted = node.observables["spikes"].data
            np.testing.assert_array_equal(found[name].swapaxes(0, 1).reshape(wanted.shape), wanted)
            assert 0.02 < wanted.mean() < 0.9
    np.testing.assert_allclose(total, logits * network.logit_scale, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_graph_computes_what_the_network_does(name, tmp_path):
    shape, model = MODELS[name]
    network, x = deployed(model, shape)
    nir.write(tmp_path / "network.nir", network.to_nir())
    assert_same(network, x, nir.read(tmp_path / "network.nir"))


def test_each_time_step_of_a_sequence_has_its_frame():
    network, x = deployed(bsojax.models.SpikingMLP(features=(16, 16)), (20,), is_sequence=True)
    assert_same(network, x, network.to_nir())
    data = network.to_nir_data(x).nodes["input"].observables["input"].data
    np.testing.assert_array_equal(data * SCALE, x.swapaxes(0, 1))


@pytest.mark.parametrize("dt", [1e-4, 1e-3, 0.7])
def test_time_constants_are_told_in_seconds(dt):
    network, x = deployed(*MODELS["hard resets"][::-1])
    graph = network.to_nir(dt)
    leaks = [dt / node.tau.flat[0] for node in graph.nodes.values() if isinstance(node, nir.LIF)]
    np.testing.assert_allclose(leaks, [1 / 2, 1 / 1.3], rtol=1e-6)
    assert_same(network, x, graph)


def test_a_membrane_that_meets_its_threshold_fires():
    """Signs whose sums, times 1/8, meet a threshold of 1 exactly: NIR's neurons fire above theirs."""
    model = Chain((dense(64, scale=lambda fan_in: 1 / 8), fire(), readout))
    network, _ = deployed(model, (16,))
    x = np.random.default_rng(0).integers(0, 2, (64, 16)) * SCALE
    graph = network.to_nir()
    wanted = network.run(x)[1]
    _, found, _ = simulate(graph, frames_of(network, graph, x))
    (spikes,), (same,) = wanted.values(), found.values()
    np.testing.assert_array_equal(same, spikes)
    (neurons,) = (node for node in graph.nodes.values() if isinstance(node, nir.LIF))
    neurons.v_threshold = np.full_like(neurons.v_threshold, neurons.metadata["threshold"])
    _, found, nearest = simulate(graph, frames_of(network, graph, x))
    assert nearest == 0
    assert np.any(found.popitem()[1] != spikes)


def test_the_file_says_what_no_node_can(tmp_path):
    network, _ = deployed(*MODELS["no leak"][::-1])
    nir.write(tmp_path / "network.nir", network.to_nir(dt=1e-3))
    graph = nir.read(tmp_path / "network.nir")
    assert graph.metadata["dt"] == 1e-3
    assert graph.metadata["num_steps"] == 3
    assert "whole numbers over 16" in graph.metadata["input"]
    neurons = [node for node in graph.nodes.values() if isinstance(node, nir.IF)]
    assert [node.metadata["reset"] for node in neurons] == ["subtract", "zero"]
    assert all(0 < node.metadata["threshold"] - node.v_threshold.max() < 1e-6 for node in neurons)


def test_data_come_back_from_their_file(tmp_path):
    network, x = deployed(*MODELS["averages behind neurons"][::-1])
    told = network.to_nir_data(x, dt=1e-3)
    nir.write_data(tmp_path / "data.nir", told)
    back = nir.read_data(tmp_path / "data.nir")
    assert set(back.nodes) == set(told.nodes)
    assert set(told.nodes) <= set(network.to_nir().nodes)
    for name, node in told.nodes.items():
        for kind, values in node.observables.items():
            read = back.nodes[name].observables[kind]
            np.testing.assert_array_equal(read.data, values.data)
            assert read.data.dtype == values.data.dtype == (np.float32 if kind == "input" else np.bool_)
            assert read.dt == 1e-3


def test_data_of_vectors_fit_their_graph():
    network, x = deployed(*MODELS["vectors"][::-1])
    network.to_nir_data(x).check_nodes(network.to_nir())


PER_STEP = functools.partial(bsojax.BatchNorm, num_steps=3)
CANNOT = {
    "statistics a time step": (
        bsojax.models.SpikingVGG(channels=(4, 6), num_classes=5, norm=PER_STEP),
        (4, 4, 2),
        r"current of 'neuron_0' .*\(num_steps=None\).* refresh_statistics",
    ),
    "a repeated edge": (RESNET, (5, 8, 2), r"halve of .* odd side"),
    "an odd and an even side": (
        Chain((real(4, (2, 3), padding="VALID"), norm, fire(), flatten, readout)),
        (7, 6, 3),
        r"Conv_0' .* square kernel",
    ),
    "zeros that make it so": (
        Chain((real(4, padding=((0, 2), (3, 0))), *FIRING, *END)),
        (7, 6, 3),
        r"Conv_0' .* as many zeros",
    ),
}


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_be_said_is_refused_by_name(name):
    model, shape, message = CANNOT[name]
    with pytest.raises(ValueError, match="to_nir: .*" + message):
        deployed(model, shape)[0].to_nir()


@pytest.mark.parametrize(("dt", "kind"), [("1e-4", TypeError), (True, TypeError), (0.0, ValueError), (-1, ValueError)])
def test_a_time_step_is_a_number_above_0(dt, kind):
    network, _ = deployed(*MODELS["vectors"][::-1])
    with pytest.raises(kind, match="dt: needs a"):
        network.to_nir(dt)


def test_without_nir_the_error_names_the_extra():
    script = """
import sys
sys.modules["nir"] = None
from bsojax.deploy import IntegerNetwork
try:
    IntegerNetwork.to_nir(None)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "to_nir: needs a package; pip install 'bsojax[nir]'."


@st.composite
def geometries(draw):
    """A kernel of drawn sides, and how it moves over an image of drawn sides."""
    pairs = {name: (draw(numbers), draw(numbers)) for name, numbers in SIDES.items()}
    size = [step * (side - 1) + 1 for side, step in zip(pairs["kernel"], pairs["dilation"], strict=True)]
    room = [
        image + before + behind - side
        for image, before, behind, side in zip(pairs["image"], pairs["before"], pairs["behind"], size, strict=True)
    ]
    assume(min(room) >= 0)
    out = tuple(left // stride + 1 for left, stride in zip(room, pairs["strides"], strict=True))
    return pairs["kernel"], pairs["image"], out, Window(pairs["strides"], pairs["dilation"], pairs["before"])


SIDES = {
    "kernel": st.integers(1, 4),
    "image": st.integers(1, 7),
    "strides": st.integers(1, 3),
    "dilation": st.integers(1, 3),
    "before": st.integers(-1, 3),
    "behind": st.integers(-1, 3),
}


@given(geometries(), st.integers(1, 3), st.integers(0, 99))
def test_a_square_kernel_computes_the_same(geometry, groups, seed):
    sides, image, out, window = geometry
    rng = np.random.default_rng(seed)
    kernel = rng.integers(-9, 10, (*sides, 2, 3 * groups)).astype(float)
    x = rng.integers(0, 9, (2, *image, 2 * groups))
    synapse = Synapse(0, "", kernel, window, groups, (*out, 3 * groups))
    made = squared(ungrouped(kernel, groups), window, image, out)
    if made is None:
        assert min(window.strides) == 1
        assert max(out) > 1
        return
    assert made.kernel.shape[0] == made.kernel.shape[1]
    conv = nir.Conv2d(
        image, made.kernel.transpose(3, 2, 0, 1), made.strides, made.padding, made.dilation, 1, np.zeros(3 * groups)
    )
    np.testing.assert_array_equal(conv.output_type["output"], (3 * groups, *out))
    found = nir_conv(conv, x.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(found.transpose(0, 2, 3, 1), _reference.synapse(synapse, x))


DIGITS, STEPS = load_digits(), 4
RESETS = {"digits, soft": None, "digits, hard": 0.0}


def trained(v_reset):
    """A network that tells digits, and all 1,797 of them as whole numbers."""
    pixels = DIGITS.images[..., None].astype(int)
    x, y = (pixels / SCALE).astype(np.float32), DIGITS.target
    model = bsojax.models.SpikingVGG(
        channels=(16, 32, "M", 64, 64), neuron=functools.partial(bsojax.LIF, v_reset=v_reset)
    )
    flip = bsojax.calibrated(STEPS, total_updates=45 * STEPS)
    tx = bsojax.split_optimizer(flip=flip, real=optax.adam(1e-2))
    state, step = bsojax.init(model, tx, jax.random.key(0), x[:32]), bsojax.make_train_step(model, tx, STEPS)
    batches = [slice(i, i + 32) for i in range(0, 1440, 32)]
    for batch in batches:
        state, _ = step(state, x[batch], y[batch])
    state = bsojax.refresh_statistics(model, state, [x[batch] for batch in batches], STEPS)
    return integer_network(model, state, x[:2], STEPS, input_scale=SCALE, input_max=SCALE), pixels


@pytest.fixture(scope="session")
def python():
    """Python in an environment that has the readers."""
    named = os.environ.get("BSOJAX_NIR_PYTHON", str(ROOT / ".venv-nir" / "bin" / "python"))
    if shutil.which(named) is None:
        pytest.skip("no Python with the readers: `make .venv-nir/.ready` installs them, BSOJAX_NIR_PYTHON names one")
    return named


@pytest.fixture(scope="session")
def folder(python, made_once):
    """Every network here as NAME.nir and NAME.spikes, and its logits as NAME.npy."""

    def fill(folder):
        folder.mkdir()
        networks = {name: deployed(model, shape) for name, (shape, model) in MODELS.items()}
        networks |= {name: trained(v_reset) for name, v_reset in RESETS.items()}
        for name, (network, x) in networks.items():
            nir.write(folder / f"{name}.nir", network.to_nir())
            nir.write_data(folder / f"{name}.spikes", network.to_nir_data(x))
            np.save(folder / f"{name}.npy", network.run(x)[0] * network.logit_scale)

    return made_once("nir", fill)


def output_of(python, *arguments, **options):
    """The last line that a program prints there, as JSON."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, *arguments], capture_output=True, text=True, env=clean, **options)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def read_by(python, reader, folder):
    return output_of(python, str(ROOT / "tests" / "nir_reading.py"), reader, str(folder))


NOT_READ = {
    "spikingjelly": {"memory of nothing": r"tau / dt must be finite and greater than 1"},
    "norse": {
        "no leak": r"unexpected field names: \['reset_method'\]",
        **dict.fromkeys(("ResNet", "sums of currents", "a sum with one of its parts", "pixels and a vector")),
    },
    "norse_by_nirtorch": {"no leak": r"unexpected field names: \['reset_method'\]"},
}
NOT_READ["spikingjelly64"] = NOT_READ["spikingjelly"]
"""By reader what it refuses, and, where there is no message, what it reads wrongly; docs/DEPLOY.md names them."""


@pytest.mark.slow
@pytest.mark.parametrize("reader", NOT_READ)
def test_other_simulators_make_the_same_spikes(reader, python, folder):
    found = read_by(python, reader, folder)
    assert set(found) == {*MODELS, *RESETS}
    for name, told in found.items():
        if name in NOT_READ[reader]:
            message = NOT_READ[reader][name]
            assert re.search(message, told) if message else told["differ"] > 0.01 * told["of"]
        elif name in MODELS or reader == "spikingjelly64":
            assert told["differ"] == 0, name
        else:
            assert_differs_by_rounding_alone(folder, name, told)
        if name in RESETS:
            logits, read = np.load(folder / f"{name}.npy"), np.load(folder / f"{name}.{reader}.npy")
            assert np.all(logits.argmax(1) == read.argmax(1))
            same = np.setdiff1d(np.arange(len(logits)), told["examples"])
            np.testing.assert_allclose(read[same], logits[same], rtol=1e-4, atol=1e-4)


def assert_differs_by_rounding_alone(folder, name, told):
    """Spikes differ in few examples, in which a membrane comes to its threshold as near as float32 rounds."""
    assert told["of"] == 1797 * STEPS * (16 * 64 + 32 * 64 + 64 * 16 + 64 * 16)
    assert told["differ"] < 1e-5 * told["of"]
    assert len(told["examples"]) <= 3
    graph, data = nir.read(folder / f"{name}.nir"), nir.read_data(folder / f"{name}.spikes")
    for example in told["examples"]:
        x = data.nodes["input"].observables["input"].data[example].reshape(STEPS, 1, 1, 8, 8)
        assert simulate(graph, x)[2] < 1e-6


@pytest.mark.slow
def test_snntorch_makes_the_same_spikes_of_hard_resets(python, folder):
    found = read_by(python, "snntorch", folder)
    assert found["hard resets"]["differ"] == 0
    assert_differs_by_rounding_alone(folder, "digits, hard", found["digits, hard"])
    assert found["digits, soft"]["differ"] > 0.01 * found["digits, soft"]["of"]
    assert found["no leak"] == "AssertionError: r != 1 not supported"


PAGE = (ROOT / "docs" / "DEPLOY.md").read_text().split("\n## NIR\n")[1].split("\n## ")[0]
WRITING, READING, SPIKINGJELLY, NORSE, SNNTORCH, RUNNING = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("title", "lines", "name"),
    [("SpikingJelly", SPIKINGJELLY, "VGG"), ("Norse", NORSE, "VGG"), ("snnTorch", SNNTORCH, "hard resets")],
)
def test_the_lines_of_the_page_read_what_it_writes(title, lines, name, python, tmp_path):
    assert lines.startswith(f"# {title}")
    network, x = deployed(*MODELS[name][::-1])
    with contextlib.chdir(tmp_path):
        exec(WRITING, {"network": network, "x": x})
    program = f"{READING}{lines}with torch.no_grad():\n{textwrap.indent(RUNNING, '    ')}"
    found = output_of(python, "-c", f"import json\n{program}print(json.dumps(logits.tolist()))", cwd=tmp_path)
    np.testing.assert_allclose(found, network.run(x)[0] * network.logit_scale, rtol=1e-4, atol=1e-4)
