"""Files of earlier versions, files that say what they like, and what it may cost to refuse one."""

import hashlib
import json
import struct
import time
import tracemalloc

import flax.serialization
import jax
import numpy as np
import pytest

import bsojax

SECONDS, MEMORY = 1.0, 64 * 2**20


def crafted(text, payload=b"\x00" * 10, version=1, length=None):
    """A file of arrays with right checksums, whatever it says: as the first lines of _container.py give the layout."""
    text = text if isinstance(text, bytes) else json.dumps(text).encode()
    start = struct.pack("<8sII", b"\x93bsojax\n", version, len(text) if length is None else length)
    of_payload = hashlib.sha256(payload).digest()
    return start + hashlib.sha256(start + of_payload + text).digest() + of_payload + text + payload


def as_earlier(variables):
    """The bytes that runs of earlier versions wrote into model.msgpack."""
    packed = jax.tree.map(
        lambda leaf: {"bits": np.asarray(leaf.bits), "shape": np.array(leaf.shape, np.int32)},
        bsojax.pack_signs(variables["signs"]),
        is_leaf=lambda leaf: isinstance(leaf, bsojax.PackedSigns),
    )
    return flax.serialization.msgpack_serialize(jax.device_get({**variables, "signs": packed}))


def frugal_refusal(path, call):
    """The message of the ValueError, nothing else, that a call raises in a second and little memory."""
    begun = time.process_time()  # of this process, however busy the machine is
    caught = refused(call)
    taken = time.process_time() - begun
    assert taken < SECONDS, f"{taken} s"
    tracemalloc.start()  # again, as this takes time of its own
    try:
        refused(call)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MEMORY, f"{peak:,} bytes"
    message = str(caught)
    assert message.startswith(f"{path}: ")
    assert message.endswith(".")
    assert message.isprintable()
    assert len(message) < 600 + len(str(path))
    return message


def refused(call):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (its words are looked at by who calls)
        call()
    assert type(caught.value) is ValueError
    return caught.value
