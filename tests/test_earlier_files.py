"""Networks of earlier runs, saved by flax: they are read, and any other file is refused by one clear error."""

import os
import struct

import flax.serialization
import fuzzing
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hostile_files import as_earlier
from hypothesis import strategies as st
from saved_networks import SMALL, STOCK, T, assert_same, batch, made, refusal

import bsojax
from bsojax.deploy import _earlier
from bsojax.models import SpikingMLP


@pytest.mark.parametrize("name", ["mlp", *(pytest.param(name, marks=pytest.mark.slow) for name in [*STOCK][1:])])
def test_networks_of_earlier_runs_are_read(tmp_path, name):
    model, shape = STOCK[name]
    state, path = made(model, shape), tmp_path / "model.msgpack"
    path.write_bytes(as_earlier(state.variables))
    for saved in (bsojax.load_model(path), bsojax.load_model(path, model)):
        assert_same(saved.variables, state.variables)
        with pytest.raises(ValueError, match=r"^input_shape: the file does not hold it"):
            _ = saved.state
    saved = bsojax.load_model(path, model, input_shape=shape)
    assert_same(saved.variables, state.variables)
    x = batch(shape)
    assert_same(bsojax.predict(saved.model, saved.state, x, T), bsojax.predict(model, state, x, T))
    assert "holds another network" in refusal(path, SpikingMLP((3,)), input_shape=shape)


def test_earlier_files_are_read_as_flax_reads_them(tmp_path):
    tree = {
        "signs": {},
        "params": {"a" * 40: {"b": np.arange(300, dtype=np.float32).reshape(3, 100)}, "c": np.array(5, np.int8)},
        "batch_stats": {f"{n}": {"x": np.zeros((n, 70_000 // (n + 1)), np.uint16)} for n in range(20)},
    }
    tree["params"]["half"] = np.asarray(jnp.arange(3, dtype=jnp.bfloat16))
    (tmp_path / "net").write_bytes(flax.serialization.msgpack_serialize(tree))
    found = bsojax.load_model(tmp_path / "net").variables
    assert_same(found, flax.serialization.msgpack_restore((tmp_path / "net").read_bytes()))


def test_damaged_earlier_files_are_refused_or_hold_arrays(tmp_path):
    path, whole = tmp_path / "net", as_earlier(jax.device_get(made(SMALL).variables))
    for place in range(1, len(whole), 5):
        path.write_bytes(whole[:place])
        with pytest.raises(ValueError, match=f"{path}: "):
            _earlier.read_earlier(path)
    refused = 0
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            held = _earlier.read_earlier(path)
            assert sum(leaf.nbytes for leaf in held.values()) < 8 * len(whole)
        except ValueError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
    assert refused > 100


def array_of(shape, dtype=b"float32", held=b"", count=None):
    """flax's array, whatever it says of itself; sizes below 2 ** 32."""
    content = bytes([0x93, 0x90 + len(shape)]) + b"".join(b"\xcf" + struct.pack(">Q", size) for size in shape)
    content += bytes([0xA0 + len(dtype)]) + dtype + b"\xc6" + struct.pack(">I", len(held)) + held
    return b"\xc9" + struct.pack(">I", len(content) if count is None else count) + b"\x01" + content


def with_param(value, name=b"\xa1a"):
    return b"\x83\xa5signs\x80\xabbatch_stats\x80\xa6params\x81" + name + value


EARLIER = {
    "lists without end": with_param(b"\xdd\x00\x0f\xff\xff" * 10**5),
    "a list of billions": with_param(b"\xdd\xff\xff\xff\xff" + bytes(10**5)),
    "a map of billions": with_param(b"\xdf\xff\xff\xff\xff" + b"\xa1b\x80" * 10**5),
    "maps without end": with_param(b"\x81\xa1a" * 10**5),
    "a map of many": with_param(b"\xdf\x00\x01\x86\xa0" + b"".join(b"\xa6%06d\x80" % n for n in range(10**5))),
    "text of billions": with_param(b"", name=b"\xdb\xff\xff\xff\xff"),
    "an extension of billions": with_param(b"\xc9\xff\xff\xff\xff\x01\x93"),
    "terabytes": with_param(array_of((2**38,))),
    "terabytes by two sides": with_param(array_of((2**22, 2**22), held=bytes(8))),
    "a side beyond numbers": with_param(array_of((2**63, 2), held=bytes(8))),
    "sides beyond memory that hold nothing": with_param(array_of((2**40, 2**40, 0))),
    "an object": with_param(array_of((1,), b"object", bytes(8))),
    "a structure": with_param(array_of((1,), b"i4,(999,)i4", bytes(8))),
    "a boolean": with_param(array_of((1,), b"bool", bytes(1))),
    "a wrong length": with_param(array_of((2,), held=bytes(8), count=20)),
    "another extension": with_param(b"\xd4\x03a"),
    "a number": with_param(b"\x05"),
    "text": with_param(b"\xa1b"),
    "text that is none": with_param(array_of((1,), held=bytes(4)), name=b"\xa1\xff"),
    "a name that escapes": with_param(array_of((1,), held=bytes(4)), name=b"\xa4../a"),
    "a name of two": with_param(array_of((1,), held=bytes(4)), name=b"\xa3a/b"),
    "no name": with_param(array_of((1,), held=bytes(4)), name=b"\xa0"),
    "a name twice": with_param(array_of((1,), held=bytes(4))).replace(b"params\x81", b"params\x82")
    + b"\xa1a"
    + array_of((1,), held=bytes(4)),
    "another collection": b"\x83\xa5signs\x80\xabbatch_stats\x80\xa5other\x80",
    "collections of one name": b"\x83\xa5signs\x80\xa5signs\x80\xa6params\x80",
    "more behind": with_param(array_of((1,), held=bytes(4))) + b"\x00",
    "signs without a shape": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x81\xa4bits"
    + array_of((1,), b"uint8", b"a"),
    "signs of terabytes": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x82\xa4bits"
    + array_of((1,), b"uint8", b"a")
    + b"\xa5shape"
    + array_of((1,), b"int64", struct.pack("<q", 2**43)),
    "signs of a negative shape": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x82\xa4bits"
    + array_of((1,), b"uint8", b"a")
    + b"\xa5shape"
    + array_of((2,), b"int32", struct.pack("<ii", -2, -4)),
    "a shape without signs": b"\x83\xabbatch_stats\x80\xa6params\x80\xa5signs\x81\xa1k\x81\xa5shape"
    + array_of((1,), b"int32", bytes(4)),
}


@pytest.mark.parametrize("case", EARLIER)
def test_hostile_earlier_files_are_refused_in_a_second_and_little_memory(tmp_path, case):
    (tmp_path / "net").write_bytes(EARLIER[case])
    refusal(tmp_path / "net")


def test_an_earlier_file_with_holes_of_a_terabyte_is_not_read(tmp_path):
    (tmp_path / "net").write_bytes(with_param(array_of((1,), held=bytes(4))))
    os.truncate(tmp_path / "net", 2**40)
    assert "follow the network" in refusal(tmp_path / "net")


def test_fuzzed_earlier_files_are_refused_or_hold_arrays(tmp_path):
    path = tmp_path / "net"
    whole = with_param(array_of((2, 1), held=bytes(8)))

    def check(edit):
        place, count, new = edit
        path.write_bytes(whole[:1] + (whole[1:place] + new + whole[place + count :]))
        try:
            _earlier.read_earlier(path)
        except ValueError as error:
            assert str(error).startswith(f"{path}: ")  # noqa: PT017
            return False
        return True

    edits = st.tuples(st.integers(1, len(whole)), st.integers(0, 20), st.binary(max_size=20))
    assert not all(fuzzing.fuzz(edits, 300, check))
