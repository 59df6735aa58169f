"""A trained network as a file: signs at one bit per weight, real parameters, statistics, and a description."""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.deploy import _container
from bsojax.deploy._container_header import Entry, is_shape, quoted, refuse
from bsojax.deploy._description import CannotBeSaidError, described, layers, rebuilt
from bsojax.deploy._earlier import is_earlier, read_earlier
from bsojax.online import InputShapes, TrainState, init, shapes_of
from bsojax.signs import unpack_signs

_KIND = "model"
_TEXT = 2**15  # characters of a description: Flax spends time on each constant of a neuron at every layer
_INPUTS = 2**8  # arrays that a model takes
_EXAMPLES = 2  # in a batch that is never computed
_COLLECTIONS = ("signs", "params", "batch_stats")


@dataclasses.dataclass(frozen=True, eq=False)
class SavedModel:
    """A trained network read from a file.

    Attributes:
      model: the Linen module; None where the file does not describe it and none was given.
      variables: the collections "signs", "params" and "batch_stats" for ``model.apply``, signs as booleans.
      input_shape: the shape of one example at one time step, as in TrainState; None where the file does not give it.
    """

    model: nn.Module | None
    variables: dict[str, Any]
    input_shape: Any

    @property
    def state(self) -> TrainState:
        """The state for evaluation: for ``bsojax.predict``, ``make_eval_step``, ``record`` and ``refresh_statistics``.

        It has no optimizer; ``state.replace(opt_state=tx.init(state.trainable))`` continues training from it.

        Raises:
          ValueError: the file gives no input shape, and none was passed.
        """
        _validate.knows_input(self.input_shape)
        zero = jnp.zeros((), jnp.int32)
        return TrainState(
            **self.variables,
            opt_state=optax.EmptyState(),
            step=zero,
            skipped=zero + 0,  # two buffers: a step donates both
            input_shape=self.input_shape,
        )


def save_model(path: str | os.PathLike[str], model: nn.Module, state: TrainState) -> None:
    """Writes a trained network into one file, from which load_model restores it.

    Use it at the end of training, after refresh_statistics. It writes ``state.variables``: the signs to deploy, at one
    bit per weight, and the real parameters and statistics in their own dtypes. It also writes a description that
    rebuilds the model, if the model is one of ``bsojax.models`` and all its attributes are numbers, tuples and the
    library's own neurons, norms, scales, stems, traces and surrogates, plain or in ``functools.partial``; any other
    model must be passed to load_model. No code is written, and no pickle.

    The file has a version and checksums, and is written completely or not at all. The same network gives the same
    bytes.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.bsojax"
      >>> bsojax.save_model(path, model, state)
      >>> bsojax.load_model(path).model == model
      True

    Args:
      path: where to write; a file of this name is replaced.
      model: the Linen module that was trained.
      state: a training state of this model, from ``bsojax.init`` or a step; signs packed or not.

    Raises:
      OSError: it cannot be written.
      ValueError: the state is not this model's, or a leaf has a name or dtype that cannot be written.
    """
    path = Path(path)
    _validate.linen(model)
    variables = nn.meta.unbox(jax.device_get(unpack_signs(jax.device_get(state.variables))))
    arrays = _by_name(variables)
    _validate.network(
        "state", arrays, _by_name(_shapes_of(model, state.input_shape)), "was it made with another model?"
    )
    header: dict[str, Any] = {"input_shape": _shape_said(state.input_shape), "model": None}
    try:
        header["model"] = described(model)
        if _is_long(header["model"]):
            raise CannotBeSaidError("its attributes have too many numbers")
    except CannotBeSaidError as error:
        header |= {"model": None, "because": str(error)[:200]}
    _container.write(path, _KIND, header, arrays)


def load_model(path: str | os.PathLike[str], model: nn.Module | None = None, *, input_shape: Any = None) -> SavedModel:
    """Reads a trained network that save_model wrote.

    Use it to evaluate, to ship or to continue training.

    A file from any source may be read: nothing in it is executed, its names are compared with known ones, and nothing
    is read into memory before its size is compared with the file's, and all names and shapes with those of the model.
    The ``model.msgpack`` of earlier runs can be read too; it contains neither model nor input shape, and unless a model
    is given only ``variables`` is set.

    Example:
      >>> import jax, jax.numpy as jnp, optax, bsojax
      >>> model, x = bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5))
      >>> tx = bsojax.split_optimizer(bsojax.t_bso(0.1, num_steps=4), optax.sgd(0.1))
      >>> state = bsojax.init(model, tx, jax.random.key(0), x)
      >>> import pathlib, tempfile
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "net.bsojax"
      >>> bsojax.save_model(path, model, state)
      >>> saved = bsojax.load_model(path)
      >>> bsojax.predict(saved.model, saved.state, x, num_steps=4).shape
      (2, 3)

    Args:
      path: the file.
      model: the Linen module that was trained; None: the one that the file describes.
      input_shape: the shape of one example at one time step, as in TrainState; None: the one that the file gives.

    Raises:
      OSError: there is no such file, or it cannot be read.
      ValueError: it is damaged or truncated, is not such a file, is of a newer version, or holds another network than
        the model; or no model is given and none described. The message begins with the path.
    """
    path = Path(path)
    if model is not None:
        _validate.linen(model)
    if input_shape is not None and not isinstance(input_shape, InputShapes):
        input_shape = tuple(input_shape)
    if _starts_as_earlier(path):
        return _load_earlier(path, model, input_shape)
    found: dict[str, Any] = {}

    def check(header: dict[str, Any], entries: dict[str, Entry]) -> None:
        shape = _shape_meant(path, header.get("input_shape")) if input_shape is None else input_shape
        found["input_shape"] = shape
        found["model"] = model if model is not None else _rebuilt(path, header, len(entries))
        found["like"] = _checked(path, found["model"], shape, entries)

    _, arrays = _container.read(path, _KIND, check)
    return SavedModel(found["model"], _filled(arrays, found["like"]), found["input_shape"])


def _starts_as_earlier(path: Path) -> bool:
    if path.exists() and not path.is_file():
        refuse(path, "it is not a regular file")
    with path.open("rb") as file:
        return is_earlier(file.read(1))


def _load_earlier(path: Path, model: nn.Module | None, input_shape: Any) -> SavedModel:
    arrays = read_earlier(path)
    if model is not None and input_shape is not None:
        entries = {name: Entry(array.dtype.name, array.shape) for name, array in arrays.items()}
        return SavedModel(model, _filled(arrays, _checked(path, model, input_shape, entries)), input_shape)
    tree: dict[str, Any] = {name: {} for name in _COLLECTIONS}
    for name, array in arrays.items():
        *branches, leaf = name.split("/")
        node = tree
        for branch in branches:
            node = node.setdefault(branch, {})
        node[leaf] = jnp.asarray(array)
    return SavedModel(model, tree, input_shape)


def _rebuilt(path: Path, header: Mapping[str, Any], count: int) -> nn.Module:
    """The model that a header describes; refuses more layers than the file has arrays for."""
    if header.get("model") is None:
        because = header.get("because")
        reason = f" ({because[:200]})" if isinstance(because, str) and because.isprintable() else ""
        refuse(path, f"it does not say how its model is built{reason}; load_model(path, model) takes the model")
    try:
        if _is_long(header["model"]):
            raise ValueError("its attributes have too many numbers")
        model = rebuilt(header["model"])
        if layers(model) > count:
            raise ValueError("it has more layers than the file has arrays for")
        return model
    except Exception as error:  # attributes of any kind, passed to whatever takes them
        raise ValueError(f"{path}: the model that it describes cannot be built: {_first_line(error)}.") from error


def _is_long(description: Any) -> bool:
    return len(json.dumps(description)) > _TEXT


def _first_line(error: Exception) -> str:
    return ascii(str(error).partition("\n")[0][:200])[1:-1]


def _shapes_of(model: nn.Module, input_shape: Any) -> dict[str, Any]:
    """Arrays like a model's variables for an input of the given shape."""
    x = _frame(input_shape)
    made = jax.eval_shape(lambda key: init(model, optax.identity(), key, x).variables, jax.random.key(0))
    shapes: dict[str, Any] = nn.meta.unbox(made)
    return shapes


def _frame(input_shape: Any) -> Any:
    """Arrays like a batch of one time step."""

    def like(shape: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((_EXAMPLES, *shape), jnp.float32)

    if not isinstance(input_shape, InputShapes):
        return like(input_shape)
    return jax.tree.unflatten(input_shape.structure, [like(shape) for shape in input_shape.shapes])


def _checked(path: Path, model: Any, input_shape: Any, entries: Mapping[str, Entry]) -> dict[str, Any]:
    """Returns arrays like a model's variables; refuses a file that holds others."""
    try:
        like = _shapes_of(model, input_shape)
    except Exception as error:  # from a model that is called with whatever shape a file gives
        raise ValueError(
            f"{path}: {type(model).__name__} cannot be called with the network's input, {quoted(input_shape)}; the "
            f"file holds another network ({_first_line(error)})."
        ) from error
    _validate.network(str(path), entries, _by_name(like), "the file holds another network.")
    wide = [name for name, entry in entries.items() if entry.dtype in ("int64", "uint64", "float64")]
    if wide and not jax.config.read("jax_enable_x64"):
        refuse(path, f"leaf '{wide[0]}' is {entries[wide[0]].dtype}, which JAX holds only under jax_enable_x64")
    return like


def _by_name(tree: Any) -> dict[str, Any]:
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _filled(arrays: Mapping[str, np.ndarray], like: Any) -> dict[str, Any]:
    """A tree like another one, with arrays by name."""
    filled: dict[str, Any] = jax.tree_util.tree_map_with_path(
        lambda path, _: jnp.asarray(arrays[leaf_name(path)]), like
    )
    return filled


def _shape_said(input_shape: Any) -> Any:
    """An input's shape in JSON form."""
    if not isinstance(input_shape, InputShapes):
        return {"array": list(input_shape)}

    def said(node: Any) -> Any:
        if isinstance(node, jax.ShapeDtypeStruct):
            return {"array": list(node.shape[1:])}
        is_named = type(node) is dict and all(isinstance(name, str) for name in node)
        _validate.plain_inputs(is_named or type(node) in (list, tuple), type(node).__name__)
        if is_named:
            return {"dict": {name: said(item) for name, item in node.items()}}
        return {type(node).__name__: [said(item) for item in node]}

    return said(_frame(input_shape))


def _shape_meant(path: Path, input_shape: Any) -> Any:
    """The input's shape that a JSON form stands for."""

    def meant(node: Any) -> Any:
        said: Any = next(iter(node.items())) if isinstance(node, dict) and len(node) == 1 else ("", None)
        kind, value = said
        if kind == "array" and is_shape(value):
            return jax.ShapeDtypeStruct((_EXAMPLES, *value), jnp.float32)
        if kind == "dict" and isinstance(value, dict):
            return {name: meant(item) for name, item in value.items()}
        if kind in ("list", "tuple") and isinstance(value, list):
            items: list[Any] = [meant(item) for item in value]
            return items if kind == "list" else tuple(items)
        refuse(path, f"{quoted(node)} is not a shape of an input")

    inputs = meant(input_shape)
    if len(jax.tree.leaves(inputs)) > _INPUTS:
        refuse(path, f"it says that its model takes more than {_INPUTS} arrays")
    return shapes_of(inputs)
