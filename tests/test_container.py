"""The file of arrays: what goes in comes out, and what is damaged, newer, other or hostile is refused, cheaply."""

import json
import os

import fuzzing
import jax.numpy as jnp
import numpy as np
import pytest
from hostile_files import crafted, frugal_refusal
from hypothesis import given
from hypothesis import strategies as st

from bsojax.deploy import _container
from bsojax.deploy._container_header import HEADER_LIMIT

DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
DTYPES += ["float16", "bfloat16", "float32", "float64"]
GOOD = {"kind": "model", "header": {}, "arrays": [["a", "float32", [2]], ["b/c", "bool", [9]]]}


def refusal(path, content=None, check=None):
    """The message with which a file is refused, cheaply: by a ValueError, nothing else, that begins with its path."""
    if content is not None:
        path.write_bytes(content)
    return frugal_refusal(path, lambda: _container.read(path, "model", check))


@st.composite
def arrays(draw):
    shape = draw(st.lists(st.integers(0, 5), max_size=3).map(tuple))
    dtype = np.dtype(jnp.bfloat16) if (name := draw(st.sampled_from(DTYPES))) == "bfloat16" else np.dtype(name)
    raw = np.frombuffer(draw(st.binary(min_size=8 * 125, max_size=8 * 125)), np.uint8)
    count = int(np.prod(shape))
    flat = raw[:count] % 2 == 1 if name == "bool" else raw[: count * dtype.itemsize].view(dtype)
    return flat.reshape(shape)


NAMES = st.lists(st.sampled_from(["signs", "conv_1", "kernel", "ä b", "0", "..."]), min_size=1, max_size=3)


@given(st.lists(st.tuples(NAMES.map("/".join), arrays()), max_size=5), st.booleans())
def test_what_is_written_is_read(tmp_path_factory, pairs, transposed):
    held = {}
    for name, array in pairs:
        if not any(name.startswith(f"{other}/") or other.startswith(f"{name}/") for other in held):
            held[name] = array.T if transposed else array
    path = tmp_path_factory.getbasetemp() / "written"
    header = {"text": "ä\n", "numbers": [1, 0.1, None, True], "tree": {"": {}}}
    _container.write(path, "a kind", header, held)
    found, back = _container.read(path, "a kind")
    assert found == header
    assert list(back) == list(held)
    for name, array in held.items():
        assert back[name].dtype == array.dtype
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()  # NaN too


def test_booleans_take_a_bit_and_the_order_of_bytes_is_the_files(tmp_path):
    path = tmp_path / "file"
    _container.write(path, "k", {}, {"s": np.arange(17) % 3 == 0, "n": np.array([1, 258], ">u2")})
    assert path.read_bytes().endswith(bytes([0b10010010, 0b01001001, 0, 1, 0, 2, 1]))
    assert _container.read(path, "k")[1]["n"].tolist() == [1, 258]


def test_the_layout_is_the_one_that_is_written_down(tmp_path):
    held = {"a": np.zeros(2, np.float32), "b/c": np.zeros(9, bool)}
    _container.write(tmp_path / "file", "model", {}, held)
    text = json.dumps(GOOD, separators=(",", ":")).encode()
    assert (tmp_path / "file").read_bytes() == crafted(text)


@pytest.mark.parametrize(
    ("header", "held", "message"),
    [
        ({}, {"../a": np.zeros(2)}, "'../a' is not a name"),
        ({}, {"a": np.zeros(2), "a/b": np.zeros(2)}, "'a' cannot be an array and hold"),
        ({}, {"a": np.array("text")}, "is of dtype 'str"),
        ({}, {"a": np.zeros(2, complex)}, "is of dtype 'complex128'"),
        ({"a": "x" * HEADER_LIMIT}, {}, "more than the 524,288"),
        ({"a": [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]}, {}, "nested more than 32 deep"),
    ],
)
def test_what_nobody_could_read_is_not_written(tmp_path, header, held, message):
    with pytest.raises(ValueError, match=message):
        _container.write(tmp_path / "file", "model", header, held)
    assert not list(tmp_path.iterdir())


def test_a_file_is_replaced_whole_or_stays(tmp_path, monkeypatch):
    path = tmp_path / "file"
    _container.write(path, "k", {"version": 1}, {"a": np.arange(3)})
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    with pytest.raises(OSError, match="no space left"):
        _container.write(path, "k", {"version": 2}, {"a": np.arange(9)})
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    monkeypatch.undo()
    _container.write(path, "k", {"version": 2}, {"a": np.arange(9)})
    assert _container.read(path, "k")[0] == {"version": 2}
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_each_cut_each_flipped_byte_and_each_byte_too_many_is_found(tmp_path):
    good = crafted(GOOD)
    path = tmp_path / "file"
    path.write_bytes(good)
    _container.read(path, "model")
    for place in range(len(good)):
        refusal(path, good[:place])
        for bit in (1, 128):
            changed = bytearray(good)
            changed[place] ^= bit
            refusal(path, bytes(changed))
    assert "its arrays need" in refusal(path, good + b"\x00")


def test_what_a_file_is_instead_is_said(tmp_path):
    path = tmp_path / "file"
    assert "'counts', not 'model'" in refusal(path, crafted({**GOOD, "kind": "counts"}))
    assert "format version is 2, and this bsojax knows 1; update bsojax" in refusal(path, crafted(GOOD, version=2))
    assert "update bsojax" in refusal(path, crafted(b"\xff of a later day", version=7))
    assert "not a bsojax file" in refusal(path, b"PK\x03\x04" + bytes(100))
    assert "not a bsojax file" in refusal(path, b"")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        _container.read(path, "model")
    path.mkdir()
    assert "not a regular file" in refusal(path)
    os.mkfifo(tmp_path / "pipe")
    assert "not a regular file" in refusal(tmp_path / "pipe")


def with_arrays(*listed):
    return json.dumps({**GOOD, "arrays": [*listed]}).encode()


def named(name):
    return with_arrays([name, "int8", [0]])


HOSTILE = {
    "a terabyte": (with_arrays(["a", "float32", [2**38]]), "its arrays need 1,099,511,62"),
    "terabytes by two sides": (with_arrays(["a", "float64", [2**22, 2**22]]), "its arrays need"),
    "terabytes of bits": (with_arrays(["a", "bool", [2**44]]), "its arrays need"),
    "a side beyond memory": (with_arrays(["a", "bool", [2**64]]), "cannot have the shape"),
    "sides beyond memory that hold nothing": (with_arrays(["a", "int8", [2**40, 2**40, 0]]), "cannot have the shape"),
    "a side of thousands of digits": (
        b'{"kind":"model","header":{},"arrays":[["a","int8",[1' + b"0" * 4000 + b"]]]}",
        "cannot have the shape",
    ),
    "more digits": (b'{"kind":"model","header":' + b"1" * 5 * 10**5 + b"}", "not readable JSON"),
    "a negative side": (with_arrays(["a", "int8", [-10]]), "cannot have the shape"),
    "two negative sides": (with_arrays(["a", "int8", [-2, -5]]), "cannot have the shape"),
    "a side that is true": (with_arrays(["a", "int8", [True]]), "cannot have the shape"),
    "half a side": (with_arrays(["a", "int8", [1.5]]), "cannot have the shape"),
    "a side in words": (with_arrays(["a", "int8", ["10"]]), "cannot have the shape"),
    "a shape that is a number": (with_arrays(["a", "int8", 10]), "cannot have the shape"),
    "too many sides": (with_arrays(["a", "int8", [1] * 10**5]), "cannot have the shape"),
    "an object": (with_arrays(["a", "object", [1]]), "is of dtype"),
    "a void": (with_arrays(["a", "V8", [1]]), "is of dtype"),
    "a dtype that is a list": (with_arrays(["a", ["int8"], [1]]), "is of dtype"),
    "an array without a shape": (with_arrays(["a", "int8"]), "is not an array's name"),
    "an array that is text": (with_arrays("abc"), "is not an array's name"),
    "arrays in an object": (json.dumps({**GOOD, "arrays": {"a": 1}}).encode(), "must list"),
    "too many arrays": (with_arrays(*([f"{n}", "int8", [0]] for n in range(2**14 + 1))), "must list"),
    "a name twice": (with_arrays(["a", "int8", [5]], ["a", "int8", [5]]), "two arrays are named 'a'"),
    "a leaf that is a branch": (with_arrays(["a/b", "int8", [5]], ["a", "int8", [5]]), "hold the array 'a/b'"),
    "a name that escapes": (named("../../etc/passwd"), "is not a name"),
    "a name from the root": (named("/etc/passwd"), "is not a name"),
    "a name of a point": (named("a/./b"), "is not a name"),
    "a name with a gap": (named("a//b"), "is not a name"),
    "a name of another system": (named("C:\\a"), "is not a name"),
    "a name with a zero": (named("a\x00b"), "is not a name"),
    "a name that a terminal obeys": (named("\x1b[2Ja"), "is not a name"),
    "half a character": (named("\ud800"), "is not a name"),
    "no name": (named(""), "is not a name"),
    "a name that is a number": (named(5), "is not a name"),
    "a long name": (named("a" * 10**5), "is not a name"),
    "a deep name": (named("a/" * 100 + "a"), "is not a name"),
    "lists without end": (b"[" * 5 * 10**5, "not readable JSON"),
    "objects without end": (b'{"a":' * 8 * 10**4, "not readable JSON"),
    "lists deep in a header": (
        json.dumps(GOOD).encode().replace(b'"header": {}', b'"header": {"a":' + b"[" * 900 + b"]" * 900 + b"}"),
        "nested more than 32",
    ),
    "many small lists": (b"[" + b"[]," * (HEADER_LIMIT // 3 - 2) + b"[]]", "lacks a part"),
    "many small objects": (b"[" + b"{}," * (HEADER_LIMIT // 3 - 2) + b"{}]", "lacks a part"),
    "an enormous header": (b" " * (HEADER_LIMIT + 1), "its header has 524,289 bytes"),
    "no JSON": (b"kind: model", "not readable JSON"),
    "no text": (b"\xff\xfe\x00", "not readable JSON"),
    "nothing": (b"", "not readable JSON"),
    "a number": (b"5", "lacks a part"),
    "null": (b"null", "lacks a part"),
    "a number that is none": (json.dumps({**GOOD, "header": {"a": float("nan")}}).encode(), "not a JSON number"),
    "a key twice": (b'{"kind":"model","kind":"model","header":{},"arrays":[]}', "twice in one object"),
    "a part too many": (json.dumps({**GOOD, "import": "os"}).encode(), "lacks a part"),
    "a part too few": (b'{"kind":"model","arrays":[]}', "lacks a part"),
    "a header that is a list": (json.dumps({**GOOD, "header": []}).encode(), "lacks a part"),
    "a kind that is a list": (json.dumps({**GOOD, "kind": [["a"] * 10**4]}).encode(), "it holds [['a', 'a'"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_are_refused_in_a_second_and_little_memory(tmp_path, case):
    text, message = HOSTILE[case]
    assert message in refusal(tmp_path / "file", crafted(text))


def test_a_header_of_gigabytes_is_not_waited_for(tmp_path):
    assert "header has 4,294,967,295" in refusal(tmp_path / "file", crafted(GOOD, length=2**32 - 1))


def test_a_file_with_holes_of_a_terabyte_is_not_read(tmp_path):
    path = tmp_path / "file"
    for text in (json.dumps(GOOD).encode(), b"{}"):
        path.write_bytes(crafted(text))
        os.truncate(path, 2**40)
        refusal(path)


def test_who_reads_may_refuse_before_arrays_are_read(tmp_path):
    path = tmp_path / "file"
    good = crafted({**GOOD, "arrays": [["a", "float32", [2**30]]]}, payload=b"")
    path.write_bytes(good)
    os.truncate(path, len(good) + 2**32)  # of holes

    def check(header, entries):
        assert header == {}
        assert entries["a"].shape == (2**30,)
        raise ValueError(f"{path}: another.")

    assert refusal(path, check=check).endswith("another.")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(DTYPES),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


def test_fuzzed_headers_are_refused_or_are_what_they_say(tmp_path):
    path = tmp_path / "file"

    def check(listed):
        path.write_bytes(crafted(json.dumps({**GOOD, "arrays": listed}).encode(), bytes(8)))
        try:
            _, found = _container.read(path, "model")
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        assert [[name, each.dtype.name, list(each.shape)] for name, each in found.items()] == listed
        return True

    one = st.tuples(st.text(max_size=3) | JSON, st.sampled_from(DTYPES) | JSON, st.lists(st.integers(-1, 4)) | JSON)
    whole = st.lists(one.map(list) | JSON, max_size=3) | JSON
    fitting = st.sampled_from([[["a", "int8", [8]]], [["a", "int8", [2, 4]]], [["a", "float64", []]]])
    outcomes = fuzzing.fuzz(whole | fitting, 300, check)
    assert 0 < sum(outcomes) < len(outcomes)


def test_fuzzed_bytes_are_refused(tmp_path):
    path, good = tmp_path / "file", crafted(GOOD)

    def check(edit):
        place, count, new = edit
        changed = good[:place] + new + good[place + count :]
        if changed != good:
            refusal(path, changed)
        return changed != good

    edits = st.tuples(st.integers(0, len(good)), st.integers(0, 40), st.binary(max_size=40))
    assert any(fuzzing.fuzz(edits, 200, check))
