"""Files of integer networks: what goes in comes out, and what could compute wrongly is refused."""

import copy
import dataclasses
import functools
import tempfile
import time

import deployable
import fuzzing
import hostile_files
import numpy as np
import pytest
from hypothesis import strategies as st

import bsojax
from bsojax.deploy import Add, Current, Flatten, Input, Neurons, _container, _reference

KIND = "integer network"
FIRST = "VGG, sequence, 16 bits"
FEW = [FIRST, "MLP, binary, sequence", "ResNet", "branches", "chains"]
EACH = [
    pytest.param(name, marks=pytest.mark.slow if name not in FEW[:2] else ())
    for name in (*FEW, "MLP, spectra", "separable", "signals")
]
made = functools.cache(lambda name: deployable.network_of(deployable.CASES[name]))


@functools.cache
def saved(name):
    with tempfile.TemporaryDirectory() as folder:
        made(name)[0].save(f"{folder}/network")
        return _container.read(f"{folder}/network", KIND)


def told(name):
    """The header and the arrays of a network's file, to be changed."""
    header, arrays = saved(name)
    return copy.deepcopy(header), dict(arrays)


def maps(network, x):
    """Every time step, place and map of a run, and of neurons their membranes when the spike is decided."""
    graph, membranes = network.graph, {}
    x = network._inputs(x)
    for t in range(graph.num_steps):
        made = []
        for place, node in enumerate(graph.nodes):
            match node:
                case Input():
                    made.append((x[t] if graph.is_sequence else x).astype(np.int64))
                case Neurons():
                    before = membranes.get(place, np.zeros((), np.int64))
                    spikes, membranes[place] = _reference.fire(node, before, made[node.source])
                    yield t, place, ((before * int(node.decay)) >> node.decay_bits) + made[node.source]
                    made.append(spikes)
                case Current():
                    made.append(_reference.scaled(node, made[node.source], t))
                case Add():
                    made.append(made[node.source] + made[node.other])
                case _:
                    made.append(_reference.RULES[type(node)](node, made[node.source]))
            if not isinstance(node, Neurons):
                yield t, place, made[-1]


def check_bounds(network, x):
    """No map or membrane of a run lies outside of what is proven; returns how close one comes, from 0 to 1."""
    graph, proof = network.graph, network.proof
    last, closest = len(graph.nodes) - 1, 0.0
    total = 0
    for t, place, found in maps(network, x):
        if place == last:
            total = total + found
            continue
        bounds = proof.membranes.get(place, proof.intervals[place])
        low, high = (end[t % len(end)] for end in bounds)
        assert np.all(found >= low), graph.nodes[place]
        assert np.all(found <= high), graph.nodes[place]
        closest = max(closest, np.max(found / np.maximum(high, 1)))
    low, high = proof.intervals[last]
    assert np.all(total >= low)
    assert np.all(total <= high)
    return closest


def refusal(path, header, arrays):
    _container.write(path, KIND, header, arrays)
    return hostile_files.frugal_refusal(path, lambda: bsojax.deploy.load(path))


@pytest.mark.parametrize("name", EACH)
def test_what_is_saved_is_loaded_and_runs_to_the_same_bits(name, tmp_path):
    network, x = made(name)
    for path in (tmp_path / "one", tmp_path / "other"):
        network.save(path)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()
    loaded = bsojax.deploy.load(tmp_path / "one")
    for field in dataclasses.fields(network):
        if field.name != "graph":
            assert getattr(loaded, field.name) == getattr(network, field.name)
    assert loaded._c_source("net") == network._c_source("net")
    (logits, spikes), (again, spikes_again) = network.run(x), loaded.run(x)
    np.testing.assert_array_equal(logits, again)
    assert spikes.keys() == spikes_again.keys()
    for layer, found in spikes.items():
        np.testing.assert_array_equal(found, spikes_again[layer])


def test_signs_take_a_bit_and_numbers_no_more_than_they_need(tmp_path):
    network = made("MLP, binary, sequence")[0]
    header, arrays = told("MLP, binary, sequence")
    kernels = [node.kernel for node in network.graph.nodes if hasattr(node, "kernel")]
    signs = [array for array in arrays.values() if array.dtype == np.bool_]
    assert sum(array.size for array in signs) == sum(kernel.size for kernel in kernels) == 20 * 70 + 70 * 270 + 270 * 12
    for name, array in arrays.items():
        if array.dtype != np.bool_:
            narrower = {np.dtype(np.int8): None, np.dtype(np.int16): np.int8, np.dtype(np.int32): np.int16}[array.dtype]
            assert narrower is None or np.any(array != array.astype(narrower)), name
    assert header["num_steps"] == deployable.NUM_STEPS


@pytest.mark.parametrize("name", EACH)
def test_no_input_leads_beyond_what_is_proven(name):
    network, x = made(name)
    rng = np.random.default_rng(1)
    extremes = [np.where(rng.random(x.shape) < share, network.input_max, network.input_min) for share in (0, 0.5, 1)]
    closest = [check_bounds(network, each) for each in (x, *extremes)]
    assert max(closest) == 1  # spikes are 0 or 1: the check looks at every map


def node_of(header, kind, number=0):
    return [node for node in header["nodes"] if node["kind"] == kind][number]


def with_node(kind, number=0, /, **changes):
    def change(header, arrays):
        node_of(header, kind, number).update(changes)

    return change


def scaled_by(field, factor):
    """Multiplies the numbers of the first table or kernel of a name."""

    def change(header, arrays):
        name = next(name for name in arrays if name.endswith(field) and arrays[name].dtype != np.bool_)
        arrays[name] = np.clip(arrays[name].astype(np.int64) * factor, -(2**31), 2**31 - 1).astype(np.int32)

    return change


def without_bounds(header, arrays):
    header["input_max"] = 2**16 - 1


def narrow(header, arrays):
    header["membrane_bits"] = 8


def narrow_products(header, arrays):
    for node in header["nodes"]:
        if node["kind"] == "Current":
            node["scale"]["is_wide"] = False


def other_array(field, make):
    def change(header, arrays):
        name = next(name for name in arrays if name.endswith(field))
        arrays[name] = make(arrays[name])

    return change


def other_window(**changes):
    return lambda header, arrays: node_of(header, "Synapse")["window"].update(changes)


def large_gains(header, arrays):
    node_of(header, "Current")["scale"]["after"] = 0


def thousands(header, arrays):
    header["nodes"][1:] = [{"kind": "Flatten", "source": 0, "name": "f", "shape": [1, 1, 72]}] * 2100
    arrays.clear()


WRONG = {
    "weights beyond the proof": (scaled_by("kernel", 2**12), "which does not fit into 32 bits"),
    "gains beyond the proof": (large_gains, "which does not fit into 32 bits"),
    "shifts beyond the proof": (scaled_by("shift", 2**31), "does not fit into"),
    "inputs beyond the proof": (without_bounds, "which does not fit into 32 bits"),
    "membranes beyond the proof": (narrow, "which does not fit into 8 bits"),
    "products that are called narrow": (narrow_products, "which does not fit into 32 bits"),
    "a threshold beyond the proof": (with_node("Neurons", threshold=2**31), "which does not fit into 16 bits"),
    "a threshold of nothing": (with_node("Neurons", threshold=0), "a threshold is at least 1"),
    "a decay that grows": (with_node("Neurons", decay=2**32), "is not a decay"),
    "a decay below 0": (with_node("Neurons", decay=-1), "is not a decay"),
    "a decay of no number": (with_node("Neurons", decay=0.5), "0.5 cannot be the decay"),
    "a decay of many bits": (with_node("Neurons", decay_bits=200), "is not a decay"),
    "a node that reads itself": (with_node("Neurons", source=3), "it reads no node before it"),
    "a node that reads backwards": (with_node("Neurons", source=-1), "it reads no node before it"),
    "neurons that no current charges": (with_node("Neurons", 1, source=3), "makes"),
    "neurons of another form": (with_node("Neurons", form=[7, 7, 4]), "is not a form of"),
    "a node that reads a later one": (with_node("Synapse", source=2), "it reads no node before it"),
    "no nodes": (lambda header, arrays: (header.update(nodes=[]), arrays.clear()), "must begin with an Input"),
    "thousands of nodes": (thousands, "not what a network can have"),
    "no node of a kind": (with_node("Current", kind="Exec"), "is not a node"),
    "a kind that is a list": (with_node("Current", kind=[]), "is not a node"),
    "a field too many": (with_node("Flatten", exec="rm"), "a Flatten has no 'exec'", "chains"),
    "a scale that is text": (with_node("Current", scale="wide"), "'wide' is not a Whole"),
    "a name that a terminal obeys": (with_node("Neurons", name="\x1b[2J"), "cannot be the name"),
    "a vector of another size": (with_node("Flatten", shape=[1, 1, 9]), "and what it reads makes", "chains"),
    "a terabyte of a map": (with_node("Input", shape=[2**20, 2**20, 2]), "and its first node"),
    "a map of many elements": (with_node("Synapse", shape=[2**20, 2**20, 4]), "a map cannot have the shape"),
    "a map of none": (with_node("Synapse", shape=[0, 6, 4]), "a map cannot have the shape"),
    "a shape of two sides": (with_node("Synapse", shape=[6, 4]), "cannot be the shape"),
    "groups that do not fit": (with_node("Synapse", groups=2), "does not fit 2 channels in 2 groups"),
    "no groups": (with_node("Synapse", groups=0), "in 0 groups"),
    "strides of 0": (other_window(strides=[0, 1]), "strides and dilations are at least 1"),
    "windows far away": (other_window(before=[-(2**40), 0]), "its window moves too far"),
    "dilations of terabytes": (other_window(dilation=[2**40, 1]), "its window moves too far"),
    "a kernel of three sides": (other_array("kernel", lambda array: array[0]), "its kernel cannot be"),
    "a kernel of reals": (other_array("kernel", lambda array: array.astype(np.float32)), "cannot be float32"),
    "a kernel of long numbers": (other_array("kernel", lambda array: array.astype(np.int64)), "cannot be int64"),
    "a kernel of less": (other_array("kernel", lambda array: array[:, :, :1]), "does not fit 2 channels"),
    "a gain of signs": (other_array("gain", lambda array: array > 0), "a table cannot be bool"),
    "a gain for other steps": (other_array("gain", lambda array: array[:2]), "a table of shape (2, 8)"),
    "an array too few": (lambda header, arrays: arrays.pop(next(iter(arrays))), "is missing"),
    "an array too many": (lambda header, arrays: arrays.update({"99/kernel": np.zeros(3, bool)}), "to no node"),
    "no time": (lambda header, arrays: header.update(num_steps=0), "not what a network can have"),
    "eternity": (lambda header, arrays: header.update(num_steps=2**40), "not what a network can have"),
    "steps that are true": (lambda header, arrays: header.update(num_steps=True), "cannot be the num_steps"),
    "a sequence that is a number": (lambda header, arrays: header.update(is_sequence=1), "cannot be the is_sequence"),
    "logits of no size": (lambda header, arrays: header.update(logit_scale=0.0), "logit_scale: needs a finite"),
    "an input scale in words": (lambda header, arrays: header.update(input_scale="255"), "input_scale: needs a num"),
    "a volume": (lambda header, arrays: header.update(input_shape=[1, 6, 6, 2]), "at most three sides"),
    "something more": (lambda header, arrays: header.update(author="me"), "and nothing else"),
    "something less": (lambda header, arrays: header.pop("logit_scale"), "its header must say"),
}


@pytest.mark.parametrize("case", WRONG)
def test_networks_that_do_not_fit_together_are_refused_by_what_is_wrong(case, tmp_path):
    change, message, network = (*WRONG[case], FIRST)[:3]
    header, arrays = told(network)
    change(header, arrays)
    assert message in refusal(tmp_path / "network", header, arrays)


def test_sums_over_currents_are_read_by_currents_alone(tmp_path):
    header, arrays = told("chains")
    nodes = header["nodes"]
    wide = next(
        place for place, node in enumerate(nodes)
        if node["kind"] == "Synapse" and nodes[node["source"]]["kind"] == "Current"
    )  # fmt: skip
    reader = next(node for node in nodes if node.get("source") == wide)
    reader |= {"kind": "AnyPool", "window": [1, 1]}
    for field in ("scale", "fraction_bits"):
        reader.pop(field)
    place = nodes.index(reader)
    for name in [name for name in arrays if name.startswith(f"{place}/")]:
        del arrays[name]
    assert "read only by currents" in refusal(tmp_path / "network", header, arrays)


def test_a_chain_of_thousands_of_nodes_is_looked_at_in_little_time(tmp_path):
    network = made("MLP, spectra")[0]
    first, *rest = network.graph.nodes
    chain = [Flatten(place, "flat", (1, 1, 9)) for place in range(2000)]
    moved = [dataclasses.replace(node, source=node.source + len(chain)) for node in rest]
    graph = dataclasses.replace(network.graph, nodes=(first, *chain, *moved))
    begun = time.process_time()
    dataclasses.replace(network, graph=graph).save(tmp_path / "network")
    bsojax.deploy.load(tmp_path / "network")
    assert time.process_time() - begun < 5


def test_added_currents_have_equal_fraction_bits(tmp_path):
    header, arrays = told("ResNet")
    header["nodes"][node_of(header, "Add")["source"]]["fraction_bits"] += 1
    assert "unequal fraction bits" in refusal(tmp_path / "network", header, arrays)


def test_a_file_of_another_kind_is_told_apart(tmp_path):
    case, (network, _) = deployable.CASES[FIRST], made(FIRST)
    bsojax.save_model(tmp_path / "model", case.model, deployable.state_of(case)[0])
    with pytest.raises(ValueError, match="it holds 'model', not 'integer network'"):
        bsojax.deploy.load(tmp_path / "model")
    network.save(tmp_path / "network")
    with pytest.raises(ValueError, match="it holds 'integer network', not 'model'"):
        bsojax.load_model(tmp_path / "network")
    with pytest.raises(FileNotFoundError):
        bsojax.deploy.load(tmp_path / "none")


def test_what_nobody_could_load_is_not_saved(tmp_path):
    network = made(FIRST)[0]
    renamed = dataclasses.replace(network.graph.nodes[0], name="\n")
    graph = dataclasses.replace(network.graph, nodes=(renamed, *network.graph.nodes[1:]))
    with pytest.raises(ValueError, match="cannot be the name"):
        dataclasses.replace(network, graph=graph).save(tmp_path / "network")
    assert not list(tmp_path.iterdir())


def places(tree, path=()):
    """The path of every value of a tree of JSON."""
    yield path
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from places(value, (*path, key))


NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 7, 31, 61, 2**15, 2**31, 2**52, 2**200, 0.5, 1e300])
JSON = st.recursive(
    NUMBERS | st.none() | st.booleans() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@st.composite
def damaged(draw):
    """A network's header and arrays of which something is something else."""
    header, arrays = told(draw(st.sampled_from(FEW)))
    for _ in range(draw(st.integers(1, 2))):
        if draw(st.integers(0, 3)):
            *path, last = draw(st.sampled_from([path for path in places(header) if path]))
            tree = header
            for key in path:
                if not isinstance(tree, dict | list) or (isinstance(tree, dict) and key not in tree):
                    return header, arrays
                tree = tree[key]
            value = tree[last]
            if type(value) is int and draw(st.booleans()):
                tree[last] = draw(st.sampled_from([value + 1, value - 1, -value, 2 * value, value // 2]))
            else:
                tree[last] = draw(JSON)
        else:
            name = draw(st.sampled_from([*arrays]))
            array, factor = arrays[name], draw(st.sampled_from([-1, 0, 3, 2**7, 2**20]))
            if array.dtype == np.bool_:
                arrays[name] = draw(st.sampled_from([~array, array[..., :1], array.T, array.astype(np.int8)]))
            else:
                large = np.clip(array.astype(np.int64) * factor, -(2**31), 2**31 - 1)
                arrays[name] = draw(st.sampled_from([large.astype(np.int32), array[:1], array.T, array > 0]))
    return header, arrays


@pytest.mark.slow
def test_what_is_damaged_is_refused_or_keeps_within_what_is_proven(tmp_path):
    path, rng = tmp_path / "network", np.random.default_rng(2)

    def check(case):
        _container.write(path, KIND, *case)
        try:
            network = bsojax.deploy.load(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        lead = (network.num_steps,) if network.is_sequence else ()
        x = rng.integers(network.input_min, network.input_max + 1, (*lead, 2, *network.input_shape))
        if network.num_steps * x.size < 2**20:
            check_bounds(network, x)
            logits, _ = network.run(x)
            assert logits.dtype == np.int32
            network._c_source("net")
        return True

    outcomes = fuzzing.fuzz(damaged(), 300, check)
    assert 10 < sum(outcomes) < len(outcomes) - 10
