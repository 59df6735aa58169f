"""C code of deployed networks: the bits of the reference, whatever compiles and runs it."""

import ctypes
import functools
import re
import shutil
import subprocess

import drawn_networks
import jax
import numpy as np
import optax
import pytest
from deployable import CASES, NUM_STEPS, network_of, state_of
from fast_and_slow import rarely
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

import bsojax
from bsojax.deploy import integer_network

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITISED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", *STRICT)
pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")


def assert_same(found, wanted):
    np.testing.assert_array_equal(found[0], wanted[0])
    assert found[1].keys() == wanted[1].keys()
    for name, spikes in wanted[1].items():
        np.testing.assert_array_equal(found[1][name], spikes, err_msg=name)


@functools.cache
def prepared(name):
    network, x = network_of(CASES[name])
    return network, x, network.run(x)


QUICK = ("VGG, sequence", "MLP, spectra", "branches")
"""Cases of convolutions, of dense layers and of both beside each other; the slow tests compile the others."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in CASES]
)
def test_c_gives_the_bits_of_the_reference(name):
    network, x, wanted = prepared(name)
    assert all(0 < spikes.mean() < 1 for spikes in wanted[1].values())
    assert_same(network.run_c(x, flags=("-O0", *STRICT)), wanted)


@pytest.mark.parametrize(
    "name",
    ["MLP, spectra", *(pytest.param(f"VGG, sequence{more}", marks=pytest.mark.slow) for more in ("", ", 16 bits"))],
)
def test_shorter_sequences_are_the_beginning_of_longer_ones(name):
    network, x, (whole, spikes) = prepared(name)
    wanted = network.run(x[:2])
    for layer, found in wanted[1].items():
        np.testing.assert_array_equal(found, spikes[layer][:2])
    assert (wanted[0] != whole).any()
    assert_same(network.run_c(x[:2], flags=STRICT), wanted)
    state, _ = state_of(CASES[name])
    short, long = (network.agreement(CASES[name].model, state, inputs) for inputs in (x[:2], x))
    assert short.spikes_differ <= long.spikes_differ + 2  # which two programs of JAX may round differently
    for count in (0, NUM_STEPS + 1):
        with pytest.raises(ValueError, match=rf"x: needs shape \(1 to {NUM_STEPS}, batch"):
            network.run(np.zeros((count, *x.shape[1:]), int))


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_c_does_nothing_undefined(name):
    network, x, wanted = prepared(name)
    assert_same(network.run_c(x, flags=SANITISED), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_c_reads_nothing_that_was_not_written(name):
    if shutil.which("clang") is None:
        pytest.skip("clang, which has a memory sanitizer, is not installed")
    network, x, wanted = prepared(name)
    assert_same(network.run_c(x, compiler="clang", flags=("-O1", "-fsanitize=memory")), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc -O2", "gcc -O3 -march=native", "clang -O3 -march=native"])
@pytest.mark.parametrize("name", CASES)
def test_every_compiler_gives_the_same_bits(name, compiler):
    compiler, *flags = compiler.split()
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    network, x, wanted = prepared(name)
    assert_same(network.run_c(x, compiler=compiler, flags=(*STRICT, *flags)), wanted)


MACHINES = {
    "aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64-static"),
    "big-endian": ("s390x-linux-gnu-gcc", "qemu-s390x-static"),
    "arm": ("arm-linux-gnueabihf-gcc", "qemu-arm-static"),
}


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", CASES)
def test_other_machines_give_the_same_bits(name, machine):
    compiler, emulator = MACHINES[machine]
    if shutil.which(compiler) is None or shutil.which(emulator) is None:
        pytest.skip(f"{compiler} and {emulator} are not both installed")
    network, x, wanted = prepared(name)
    assert_same(network.run_c(x, compiler=compiler, flags=("-O2", "-static"), runner=(emulator,)), wanted)


@pytest.mark.slow
def test_all_digits_through_c_and_jax():
    images, labels = load_digits(return_X_y=True)
    x = images.astype(np.int64).reshape(-1, 8, 8, 1)
    norm = functools.partial(bsojax.BatchNorm, num_steps=4)
    model = bsojax.models.SpikingVGG(channels=(16, 32, "M", 64, 64), norm=norm)
    inputs = (x / 16).astype(np.float32)
    tx = bsojax.split_optimizer(bsojax.calibrated(4, 112), optax.adam(1e-2))
    state, step = bsojax.init(model, tx, jax.random.key(0), inputs[:1]), bsojax.make_train_step(model, tx, 4)
    for at in range(0, 1792, 64):
        state, _ = step(state, inputs[at : at + 64], labels[at : at + 64])
    state = bsojax.refresh_statistics(model, state, [inputs[:512]], 4)
    network = integer_network(model, state, inputs, 4, input_scale=16, input_max=16)
    wanted = network.run(x)
    assert_same(network.run_c(x, flags=("-O3", "-march=native")), wanted)
    outputs = np.asarray(bsojax.predict(model, state, inputs, 4)).argmax(-1)
    assert np.mean(outputs == labels) > 0.5
    recorded = bsojax.record(model, state, inputs, 4)
    differing = examples_that_differ(wanted[1], recorded)
    assert len(differing) < len(x) / 4  # the machine's rounding makes the network, and with it how many these are
    assert set(np.nonzero(wanted[0].argmax(-1) != outputs)[0]) <= differing


def examples_that_differ(spikes, recorded):
    """The examples of which any spike differs; each must begin with a membrane within rounding of its threshold."""
    found = set()
    for name, wanted in spikes.items():  # from the first layer to the last
        differs = wanted != np.asarray(recorded[name].spikes)
        for example in set(np.nonzero(differs)[1]) - found:
            first = differs[:, example].any(axis=tuple(range(1, differs.ndim - 1))).argmax()
            membranes = np.asarray(recorded[name].membranes)[first, example][differs[first, example]]
            np.testing.assert_allclose(membranes, 1, atol=1e-4)
            found.add(example)
    return found


def test_the_sizes_of_the_digits_network():
    norm = functools.partial(bsojax.BatchNorm, num_steps=4)
    model = bsojax.models.SpikingVGG(channels=(16, 32, "M", 64, 64), norm=norm)
    state = bsojax.init(model, optax.identity(), jax.random.key(0), np.zeros((1, 8, 8, 1), np.float32))
    x = jax.ShapeDtypeStruct((1, 8, 8, 1), np.float32)
    source = integer_network(model, state, x, 4, input_scale=16, input_max=16)._c_source("digits")
    assert source.constant_bytes <= 17_000
    assert source.scratch_bytes <= 3_000


@pytest.mark.parametrize("name", ["VGG, sequence, 16 bits", *rarely("VGG", "ResNet")])
def test_the_scratch_struct_has_the_size_that_is_said(name, tmp_path):
    network, _, _ = prepared(name)
    network.write_c(tmp_path, "some_net")
    said = network._c_source("some_net").scratch_bytes
    check = f'#include "some_net.h"\ntypedef char same[sizeof(some_net_scratch) == {said} ? 1 : -1];\n'
    (tmp_path / "check.c").write_text(check)
    subprocess.run(["cc", "-std=c99", "-c", "check.c"], cwd=tmp_path, check=True)
    sizes = re.findall(r"static const (?:word|int32_t) \w+\[(\d+)\] = \{", (tmp_path / "some_net.c").read_text())
    assert 4 * sum(map(int, sizes)) == network._c_source("some_net").constant_bytes


@pytest.mark.parametrize("name", ["VGG, sequence", "branches", *rarely("VGG", "ResNet")])
def test_nothing_is_called_that_bare_metal_lacks(name, tmp_path):
    network, _, _ = prepared(name)
    network.write_c(tmp_path, "net")
    for flags in (("-Os",), ("-O2",)):
        subprocess.run(["cc", *STRICT, *flags, "-c", "net.c"], cwd=tmp_path, check=True)
        listed = subprocess.run(["nm", "net.o"], cwd=tmp_path, check=True, capture_output=True, text=True).stdout
        symbols = [line.split()[-2:] for line in listed.splitlines()]
        assert {name for kind, name in symbols if kind == "U"} <= {"memset", "memcpy"}
        declared = {"net_run", "net_reset", "net_step"} if network.is_sequence else {"net_run"}
        assert {name for kind, name in symbols if kind == "T"} == declared
        assert not [kind for kind, _ in symbols if kind in "bBdDC"]  # no state of its own: it may be called at once


def test_a_header_serves_cpp(tmp_path):
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler")
    network, _, _ = prepared("VGG, sequence")
    network.write_c(tmp_path, "net")
    (tmp_path / "use.cpp").write_text('#include "net.h"\nint main() { static net_scratch s; return sizeof s == 0; }\n')
    subprocess.run(["c++", "-Wall", "-Werror", "-c", "use.cpp"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("name", ["VGG, sequence", "VGG, sequence, 16 bits", "MLP, spectra"])
def test_streams_frame_by_frame(name, tmp_path):
    network, x, (wanted, _) = prepared(name)
    network.write_c(tmp_path, "net")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "net.c", "-o", "net.so"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "net.so"))
    frames = np.ascontiguousarray(x.astype(network.input_dtype))
    scratch = [ctypes.create_string_buffer(b"\xa5" * network._c_source("net").scratch_bytes) for _ in range(2)]
    logits = np.zeros((2, wanted.shape[1]), np.int32)
    pointers = [ctypes.c_void_p(row.ctypes.data) for row in logits]
    for first in (0, 4):  # two streams at once, and then again in the same memory
        for stream in (0, 1):
            library.net_reset(pointers[stream], scratch[stream])
        for t in range(NUM_STEPS + 2):
            for stream in (0, 1):
                frame = frames[min(t, NUM_STEPS - 1), first + stream]
                library.net_step(ctypes.c_void_p(frame.ctypes.data), pointers[stream], scratch[stream])
        np.testing.assert_array_equal(logits, wanted[first : first + 2])  # frames too many are left out


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.integers(0, 2**32 - 1), st.booleans())
def test_the_largest_inputs_do_nothing_undefined(name, seed, two_sided):
    network, x, _ = prepared(name)
    random = np.random.default_rng(seed)
    extremes = [network.input_min, network.input_max] if two_sided else [network.input_max]
    x = random.choice(extremes, x.shape)
    assert_same(network.run_c(x, flags=SANITISED), network.run(x))


@pytest.mark.slow
@settings(max_examples=10, deadline=None)
@given(drawn_networks.networks())
def test_drawn_networks_compiled_three_times(drawn):
    network = drawn.whole
    wanted = network.run(drawn.x)
    for flags in (("-O2", *STRICT), ("-O3", "-march=native", *STRICT), SANITISED):
        assert_same(network.run_c(drawn.x, flags=flags), wanted)


def test_what_is_refused(tmp_path):
    network, x, _ = prepared("MLP")
    with pytest.raises(ValueError, match=r"name: needs a C identifier, such as 'net', got 'a-b'"):
        network.write_c(tmp_path, "a-b")
    with pytest.raises(FileNotFoundError, match=r"compiler: there is no 'no-such-cc' on this machine"):
        network.run_c(x, compiler="no-such-cc")
    with pytest.raises(RuntimeError, match=r"--no-such-flag"):
        network.run_c(x, flags=("--no-such-flag",))
    assert not list(tmp_path.iterdir())
