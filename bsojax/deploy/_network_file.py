"""An integer network as a file: nodes in the header, signs, weights and tables as arrays."""

import dataclasses
import os
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from bsojax import _validate
from bsojax.deploy import _container
from bsojax.deploy._container_header import quoted, refuse
from bsojax.deploy._graph import (
    Add,
    AnyPool,
    Current,
    Flatten,
    Graph,
    Input,
    Neurons,
    Node,
    Scale,
    SumPool,
    Synapse,
    Whole,
    Window,
)
from bsojax.deploy._layers import image
from bsojax.deploy._proof import proven
from bsojax.deploy._structure import check_structure

_KIND = "integer network"
_KINDS = {kind.__name__: kind for kind in (Input, SumPool, AnyPool, Flatten, Synapse, Current, Add, Neurons)}
_NAME = 512  # characters


_FIELDS = {"input_shape", "input_scale", "input_min", "input_max", "membrane_bits", "logit_scale"}


def write(path: str | os.PathLike[str], graph: Graph, numbers: Mapping[str, Any]) -> None:
    """Writes a network into a file.

    Args:
      path: where to write.
      graph: a graph of integers.
      numbers: the other fields of IntegerNetwork.

    Raises:
      OSError: it cannot be written.
      ValueError: it could not be read again: it is too large, or a layer's name cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    _check(Path(path), graph, numbers)
    nodes = [{"kind": type(node).__name__, **_said(node, f"{place}", arrays)} for place, node in enumerate(graph.nodes)]
    steps = {"num_steps": graph.num_steps, "is_sequence": graph.is_sequence}
    _container.write(path, _KIND, {**numbers, **steps, "nodes": nodes}, arrays)


def read(path: str | os.PathLike[str]) -> tuple[Graph, dict[str, Any]]:
    """Reads a network from a file, in the form that write takes, and proves its bounds again.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it does not hold a consistent network within its widths. The message begins with the path.
    """
    header, arrays = _container.read(path, _KIND)
    try:
        graph, numbers = _meant(header, arrays)
    except (TypeError, ValueError) as error:
        _refuse(Path(path), error)
    _check(Path(path), graph, numbers)
    return graph, numbers


def _check(path: Path, graph: Graph, numbers: Mapping[str, Any]) -> None:
    try:
        for node in graph.nodes:
            _value("name", str, {"name": node.name})
        check_structure(graph)
        proven(graph, numbers["input_min"], numbers["input_max"], numbers["membrane_bits"])
    except ValueError as error:
        _refuse(path, error)


def _refuse(path: Path, error: Exception) -> NoReturn:
    refuse(path, str(error).rstrip(".").encode("ascii", "backslashreplace").decode()[:400])


def _said(record: Any, name: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """A node, or a part of one, in JSON form; its arrays are added to those of the file."""
    said: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, np.ndarray):
            arrays[f"{name}/{field.name}"] = _narrow(value)
        elif dataclasses.is_dataclass(value):
            said[field.name] = _said(value, name, arrays)
        else:
            said[field.name] = value
    return said


def _narrow(values: np.ndarray) -> np.ndarray:
    """Whole numbers in the narrowest dtype."""
    if values.dtype == np.bool_:
        return values
    fitting = (np.int8, np.int16, np.int32)
    return values.astype(next(kind for kind in fitting if np.array_equal(values, values.astype(kind))))


def _meant(header: Mapping[str, Any], arrays: dict[str, np.ndarray]) -> tuple[Graph, dict[str, Any]]:
    """The network of a header and arrays; its nodes need not fit each other."""
    shape = _value("input_shape", tuple[int, ...], header)
    said = header.get("nodes")
    if len(shape) > 3 or not isinstance(said, list):
        raise ValueError("it must say an input_shape, of at most three sides, and nodes")
    left = dict(arrays)
    nodes = tuple(_node(each, f"{place}", left) for place, each in enumerate(said))
    if left:
        raise ValueError(f"it holds the array {quoted(next(iter(left)))}, which belongs to no node")
    if nodes and nodes[0].shape != image(shape):
        raise ValueError(f"its input has the shape {shape}, and its first node {nodes[0].shape}")
    names = _FIELDS | {"nodes", "num_steps", "is_sequence"}
    if header.keys() != names:
        raise ValueError(f"its header must say {', '.join(sorted(names))}, and nothing else")
    least, largest = _validate.input_range(header["input_min"], header["input_max"])
    return Graph(nodes, _value("num_steps", int, header), _value("is_sequence", bool, header)), {
        "input_shape": shape,
        "input_scale": _validate.positive_number("input_scale", header["input_scale"]),
        "input_min": least,
        "input_max": largest,
        "membrane_bits": _validate.whole_between("membrane_bits", header["membrane_bits"], 8, 32),
        "logit_scale": _validate.positive_number("logit_scale", header["logit_scale"]),
    }


def _node(said: Any, name: str, arrays: dict[str, np.ndarray]) -> Node:
    kind = said.get("kind") if isinstance(said, dict) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise ValueError(f"{quoted(said)} is not a node")
    node: Node = _record(_KINDS[kind], {key: value for key, value in said.items() if key != "kind"}, name, arrays)
    return node


def _record(kind: type, said: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """A node, or a part of one; the arrays that it uses are removed."""
    values: dict[str, Any] = {}
    hints = typing.get_type_hints(kind)
    if not isinstance(said, dict):
        raise ValueError(f"{quoted(said)} is not a {kind.__name__}")
    for field, hint in hints.items():
        if hint is np.ndarray:
            values[field] = _array(f"{name}/{field}", arrays)
        elif hint is Window or hint is Scale:
            values[field] = _record(Whole if hint is Scale else Window, said.get(field), name, arrays)
        else:
            values[field] = _value(field, hint, said)
    if unknown := said.keys() - hints.keys():
        raise ValueError(f"a {kind.__name__} has no {quoted(min(unknown))}")
    return kind(**values)


def _array(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"the array {quoted(name)} is missing")
    found = arrays.pop(name)
    if found.dtype not in (np.bool_, np.int8, np.int16, np.int32):
        raise ValueError(f"the array {quoted(name)} cannot be {found.dtype}")
    return found if found.dtype == np.bool_ else found.astype(np.int32)


def _value(name: str, hint: Any, said: Mapping[str, Any]) -> Any:
    """A value of a field, of its hint's type; where the hint allows real numbers or whole ones, it is whole."""
    value: Any = said.get(name)
    parts = typing.get_args(hint)
    if parts:
        size = None if parts[-1] is ... else len(parts)
        good = isinstance(value, list) and all(_is_int(each) for each in value) and size in (None, len(value))
        value = tuple(value) if good else value
    elif hint is str:
        good = isinstance(value, str) and value.isprintable() and len(value) <= _NAME
    else:
        good = isinstance(value, bool) if hint is bool else _is_int(value)
    if not good:
        raise ValueError(f"{quoted(value)} cannot be the {name} of anything in a network")
    return value


def _is_int(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**53  # True is an int too
