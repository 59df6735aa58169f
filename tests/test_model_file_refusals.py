"""Saved networks: any other file is refused by one clear error, in a second and in little memory."""

import copy
import json

import fuzzing
import jax
import pytest
from hostile_files import crafted
from hypothesis import strategies as st
from saved_networks import SMALL, made, refusal

import bsojax
from bsojax.models import SpikingMLP, SpikingVGG


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of a saved network."""
    path = tmp_path_factory.mktemp("good") / "net"
    bsojax.save_model(path, SMALL, made(SMALL))
    return path.read_bytes()


def parts(content):
    """The header and the arrays of a file."""
    length = int.from_bytes(content[12:16], "little")
    return json.loads(content[80 : 80 + length]), content[80 + length :]


OTHERS = {
    "other widths": (SpikingMLP((8, 7), 3), "leaf 'batch_stats/norm_1/mean' must be numbers[7], and is numbers[9]"),
    "other classes": (SpikingMLP((8, 9), 4), "leaf 'params/readout/bias' must be numbers[4], and is numbers[3]"),
    "more layers": (SpikingMLP((8, 9, 9), 3), "leaf 'batch_stats/norm_2/mean' must be numbers[9], and is missing"),
    "fewer layers": (SpikingMLP((8,), 3), "must be"),
    "without statistics": (SpikingMLP((8, 9), 3, norm=bsojax.Affine), "must be absent, and is numbers[8]"),
    "signs in the place of numbers": (
        SpikingMLP((8, 9), 3, binary_ends=True),
        "leaf 'signs/dense_0/kernel' must be signs[5, 8], and is missing",
    ),
    "another input": (SpikingVGG(channels=(8, 9)), "SpikingVGG cannot be called with"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_network_is_refused_by_its_first_leaf(tmp_path, good, name):
    (tmp_path / "net").write_bytes(good)
    model, message = OTHERS[name]
    found = refusal(tmp_path / "net", model)
    assert message in found
    assert "holds another network" in found


def test_numbers_in_the_place_of_signs_are_refused(tmp_path, good):
    tree, payload = parts(good)
    listed = next(each for each in tree["arrays"] if each[0].startswith("signs/"))
    listed[1:] = ["float32", listed[2]]
    (tmp_path / "net").write_bytes(crafted(tree, payload + bytes(4 * 8 * 9 - 9)))
    assert "must be signs[8, 9], and is numbers[8, 9]" in refusal(tmp_path / "net")


def test_damage_anywhere_is_refused(tmp_path, good):
    path = tmp_path / "net"
    for place in range(0, len(good), 61):
        path.write_bytes(good[:place])
        with pytest.raises(ValueError, match=f"{path}: "):
            bsojax.load_model(path)
    for place in [*range(0, 90), *range(90, len(good), 61), len(good) - 1]:
        path.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(ValueError, match=f"{path}: "):
            bsojax.load_model(path)
    path.write_bytes(good + b"\x00")
    assert "was cut, or is damaged" in refusal(path)
    path.write_bytes(crafted(*parts(good), version=2))
    assert "format version is 2" in refusal(path)
    path.write_bytes(crafted({**parts(good)[0], "kind": "integer network"}, parts(good)[1]))
    assert "it holds 'integer network', not 'model'" in refusal(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        bsojax.load_model(path)
    path.mkdir()
    assert "not a regular file" in refusal(path)


def attributes(**changed):
    """A description with other attributes."""
    return lambda header: header["model"]["attributes"].update(changed)


def replaced(**changed):
    return lambda header: header.update(changed)


BUILDS = "it describes cannot be built"
ESCAPES = {"module": "os.system", "attributes": {"command": "true"}}
DESCRIPTIONS = {
    "a network of another library": (replaced(model={"network": "os.system", "attributes": {}}), BUILDS),
    "a network by its path": (replaced(model={"network": "bsojax.models.SpikingMLP", "attributes": {}}), BUILDS),
    "a network that is a list": (replaced(model=[1]), BUILDS),
    "a network of no name": (replaced(model={"network": ["SpikingMLP"], "attributes": {}}), BUILDS),
    "an attribute too many": (attributes(parent=None), BUILDS),
    "an attribute of another class": (attributes(__class__="int"), BUILDS),
    "a neuron from elsewhere": (attributes(neuron=ESCAPES), BUILDS),
    "a neuron of no kind": (attributes(neuron={"import": "os"}), BUILDS),
    "a neuron in words": (attributes(neuron="LIF"), "cannot be called"),
    "a neuron that is a network": (attributes(neuron={"module": "SpikingMLP", "attributes": {}}), BUILDS),
    "a scale that is a stem": (attributes(scale={"value": "cifar_stem"}), "cannot be called"),
    "a surrogate without sharpness": (
        attributes(neuron={"module": "LIF", "attributes": {"surrogate": {"surrogate": "atan", "alpha": 0}}}),
        BUILDS,
    ),
    "a surrogate of a list": (
        attributes(neuron={"module": "LIF", "attributes": {"surrogate": {"surrogate": "atan", "alpha": [[]]}}}),
        BUILDS,
    ),
    "a time constant of words": (
        attributes(neuron={"module": "LIF", "attributes": {"tau": "two"}}),
        "cannot be called",
    ),
    "ragged time constants": (attributes(neuron={"module": "LIF", "attributes": {"tau": [[1], 2]}}), "cannot be"),
    "many time constants": (attributes(neuron={"module": "LIF", "attributes": {"tau": [2.0] * 90_000}}), BUILDS),
    "half a layer": (attributes(features=[8.5]), "holds another network"),
    "layers in words": (attributes(features="8"), BUILDS),
    "many layers": (attributes(features=[8] * 100_000), BUILDS),
    "more layers than arrays": (attributes(features=[8] * 256), "more layers than the file has arrays for"),
    "a width beyond numbers": (attributes(features=[10**300, 9]), "holds another network"),
    "a width that takes terabytes": (attributes(features=[2**40, 2**40]), "holds another network"),
    "a negative width": (attributes(features=[-8, 9]), "holds another network"),
    "an infinite number": (attributes(num_classes=[1e400]), "not a JSON number"),
    "millions of blocks": (
        replaced(model={"network": "SpikingResNet", "attributes": {"stages": [10**9, -(10**9)]}}),
        BUILDS,
    ),
    "no end of blocks": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": [10**30]}}), BUILDS),
    "many stages": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": [0] * 99_999}}), BUILDS),
    "blocks of words": (replaced(model={"network": "SpikingResNet", "attributes": {"stages": ["2"]}}), BUILDS),
    "pooling without end": (
        replaced(model={"network": "SpikingVGG", "attributes": {"channels": ["M"] * 99_999}}),
        BUILDS,
    ),
    "pooling of what is no image": (
        replaced(model={"network": "SpikingVGG", "attributes": {"channels": ["M"] * 256}}),
        "cannot be called",
    ),
    "no model": (replaced(model=None), "it does not say how its model is built; load_model"),
    "no model, with a reason that a terminal obeys": (replaced(model=None, because="\x1b[2J"), "is built; load_model"),
    "no model, with no end of reasons": (replaced(model=None, because="a" * 10**5), "load_model(path, model)"),
    "no input": (replaced(input_shape=None), "is not a shape of an input"),
    "a negative input": (replaced(input_shape={"array": [-5]}), "is not a shape of an input"),
    "an input of words": (replaced(input_shape={"array": "5"}), "is not a shape of an input"),
    "an input without end": (replaced(input_shape={"array": [2**40, 2**40]}), "is not a shape of an input"),
    "a large input": (replaced(input_shape={"array": [2**40]}), "holds another network"),
    "an input of two kinds": (replaced(input_shape={"array": [5], "list": []}), "is not a shape of an input"),
    "an input in a dict": (replaced(input_shape={"dict": {"a": {"array": [5]}}}), "holds another network"),
    "an input of a kind that is made": (replaced(input_shape={"object": ["os"]}), "is not a shape of an input"),
    "inputs without end": (replaced(input_shape={"list": [{"array": [5]}] * 20_000}), "more than 256 arrays"),
}


@pytest.mark.parametrize("case", DESCRIPTIONS)
def test_hostile_descriptions_are_refused_in_a_second_and_little_memory(tmp_path, good, case):
    change, message = DESCRIPTIONS[case]
    tree, payload = parts(good)
    change(tree["header"])
    (tmp_path / "net").write_bytes(crafted(tree, payload))
    assert message in refusal(tmp_path / "net")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.sampled_from(["M", "LIF", "ottt", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "value", "array", "dict"]), inner, max_size=2)
        | st.fixed_dictionaries({"value": st.sampled_from(["ottt", "unit_scale", "cifar_stem", "x"])})
        | st.fixed_dictionaries({"module": st.sampled_from(["LIF", "BatchNorm", "x"]), "attributes": inner})
    ),
    max_leaves=6,
)


def places(tree, place=()):
    """All places in a tree of JSON."""
    yield place
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, item in items:
        yield from places(item, (*place, key))


def with_changed(tree, place, value):
    if not place:
        return value
    tree = copy.copy(tree)
    tree[place[0]] = with_changed(tree[place[0]], place[1:], value)
    return tree


def fuzz_headers(path, good, examples):
    tree, payload = parts(good)
    inside = [place for place in places(tree) if place[:1] in (("header",), ("arrays",))]

    def check(edit):
        place, value = edit
        path.write_bytes(crafted(with_changed(tree, place, value), payload))
        try:
            saved = bsojax.load_model(path)
        except ValueError as error:
            assert type(error) is ValueError  # noqa: PT017
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        for leaf in jax.tree.leaves(saved.variables):
            assert leaf.nbytes <= 8 * len(good)
        return True

    edits = st.tuples(st.sampled_from(inside), JSON | st.integers(0, 10) | st.floats(0.1, 10))
    return fuzzing.fuzz(edits, examples, check)


def test_fuzzed_headers_are_refused_or_read_as_a_network(tmp_path, good):
    outcomes = fuzz_headers(tmp_path / "net", good, 60)
    assert sum(outcomes) < len(outcomes)


@pytest.mark.slow
def test_many_fuzzed_headers_are_refused_or_read_as_a_network(tmp_path, good):
    assert sum(fuzz_headers(tmp_path / "net", good, 1500)) > 0
