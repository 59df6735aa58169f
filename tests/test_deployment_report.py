"""Reports of deployed networks: bytes that can be counted elsewhere, bounds, and how often they decide as JAX does."""

import dataclasses
import re
import shutil
import subprocess

import deployable
import jax
import numpy as np
import pytest

import bsojax
from bsojax.deploy import Current, Synapse


@pytest.fixture(scope="module")
def vgg():
    case = deployable.CASES["VGG"]
    state, x = deployable.state_of(case)
    return case.model, state, x, deployable.network_of(case)[0]


def test_bytes_are_those_of_the_weights(vgg):
    _, state, _, network = vgg
    report = network.report()
    params = jax.tree.map(np.asarray, state.params)
    assert report.sign_bytes == bsojax.memory_report(state)["signs_packed"] == (9 * 16 * 33 + 9 * 33 * 64) // 8
    assert report.weight_bytes == 4 * (params["conv_0"]["kernel"].size + params["readout"]["kernel"].size)
    tables = [node.scale for node in network.graph.nodes if isinstance(node, Current)]
    assert report.table_bytes == 4 * sum(scale.gain.size + scale.shift.size for scale in tables)
    assert report.float32_bytes == 32 * report.sign_bytes + report.weight_bytes + report.table_bytes
    assert report.sign_bytes + report.weight_bytes + report.table_bytes <= report.constant_bytes
    kernels = [node for node in network.graph.nodes if isinstance(node, Synapse)]
    weighty = [layer for layer in report.layers if layer.weights]
    assert [(layer.name, layer.weights) for layer in weighty] == [(node.name, node.kernel.size) for node in kernels]
    assert sum(layer.weight_bytes for layer in report.layers) == report.sign_bytes + report.weight_bytes
    assert sum(layer.table_bytes for layer in report.layers) == report.table_bytes


@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.parametrize("name", ["MLP", pytest.param("VGG, sequence, 16 bits", marks=pytest.mark.slow)])
def test_constants_and_scratch_are_what_a_compiler_makes_of_them(name, tmp_path):
    network, _ = deployable.network_of(deployable.CASES[name])
    network.write_c(tmp_path, "net")
    main = '#include <stdio.h>\n#include "net.c"\nint main(void) { printf("%zu", sizeof(net_scratch)); }\n'
    (tmp_path / "main.c").write_text(main)
    subprocess.run(["cc", "-std=c99", "main.c", "-o", "main"], cwd=tmp_path, check=True)
    told = subprocess.run([tmp_path / "main"], capture_output=True, check=True, text=True).stdout
    report = network.report()
    assert report.scratch_bytes == int(told)
    sizes = re.findall(r"^static const \w+ \w+\[(\d+)\]", (tmp_path / "net.c").read_text(), re.MULTILINE)
    assert report.constant_bytes == 4 * sum(map(int, sizes))


def test_agreement_counts_every_prediction_and_every_spike(vgg):
    model, state, x, network = vgg
    logits, spikes = network.run(x)
    found = network.report(model, state, x).agreement
    assert (found.examples, found.predictions_differ) == (len(x), 0)
    assert found.spikes == sum(each.size for each in spikes.values())
    assert found.spikes_differ <= found.spikes / 1e4
    name = next(iter(spikes))
    flipped = {**spikes, name: spikes[name].copy()}
    flipped[name].reshape(-1)[:10] ^= True
    shown = network.agreement(model, state, x, outcome=(-logits, flipped))
    assert shown.spikes_differ == found.spikes_differ + 10
    assert shown.predictions_differ == len(x)


def test_an_outcome_of_other_inputs_is_refused(vgg):
    model, state, x, network = vgg
    logits, spikes = network.run(x[:-1])
    with pytest.raises(ValueError, match="outcome: it must be what run or run_c returned for the same x"):
        network.agreement(model, state, x, outcome=(logits, spikes))
    late = {name: each[:1] for name, each in network.run(x)[1].items()}
    with pytest.raises(ValueError, match=f"{len(x)} examples and"):
        network.agreement(model, state, x, outcome=(network.run(x)[0], late))


@pytest.mark.slow
def test_batches_that_are_not_full_and_sequences_are_compared_whole():
    case = deployable.CASES["MLP, binary, sequence"]
    state, x = deployable.state_of(case)
    network, _ = deployable.network_of(case)
    many = np.concatenate([x] * 9, 1)  # 72 examples: one batch, and eight of another
    logits, spikes = network.run(many)
    broken = {name: each.copy() for name, each in spikes.items()}
    next(iter(broken.values()))[:, 70] ^= True
    counted = [network.agreement(case.model, state, many, outcome=(logits, each)) for each in (spikes, broken)]
    assert (counted[0] + counted[1]).examples == 144
    each = next(iter(spikes.values()))[:, 0].size
    assert abs(counted[1].spikes_differ - counted[0].spikes_differ) == each


def test_a_membrane_share_is_of_its_width():
    case = deployable.CASES["VGG, sequence, 16 bits"]
    network, _ = deployable.network_of(case)
    shares = [layer.membrane_share for layer in network.report().layers if layer.membrane_share is not None]
    assert len(shares) == 2
    assert all(0 < share < 1 for share in shares)
    half = dataclasses.replace(network, membrane_bits=17).report()
    assert [layer.membrane_share for layer in half.layers if layer.membrane_share is not None] == [
        share / 2 for share in shares
    ]


def test_it_is_a_table_when_it_is_printed(vgg):
    model, state, x, network = vgg
    report = network.report(model, state, x)
    text = str(report)
    for number in (report.sign_bytes, report.constant_bytes, report.scratch_bytes, report.float32_bytes):
        assert f"{number:,}" in text
    lines = text.splitlines()
    for layer in report.layers:
        assert any(line.startswith(layer.name) for line in lines)
    assert lines[-1] == str(report.agreement)
    assert max(map(len, lines)) <= 120
    assert not any(line.endswith(" ") for line in lines)
    assert "JAX" not in str(network.report())


def test_model_state_and_data_belong_together(vgg):
    model, state, x, network = vgg
    with pytest.raises(ValueError, match="x: report takes model, state, x together, or none of them"):
        network.report(model, state)
    with pytest.raises(ValueError, match=r"x: needs shape \(batch, 8, 9, 1\)"):
        network.report(model, state, x[0])
    with pytest.raises(TypeError, match="x: needs whole numbers"):
        network.report(model, state, x / 16)
