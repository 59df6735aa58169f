"""What a model holds, layer by layer: shapes, binary and real weights, stored bytes, spike rates."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.nn import NEURONS, SPIKE_RATES, Spikes
from bsojax.online import call_options
from bsojax.signs import is_sign

_NOT_STORED = (NEURONS, SPIKE_RATES, "intermediates")

Path = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer of a model.

    Attributes:
      name: the layer's path in the model, joined by slashes: its name in the collections and in metrics.
      kind: the class of its module.
      output_shape: the shape that its ``__call__`` returns (of Spikes the value's, of several arrays the first one's),
        or None if it was used another way.
      binary_weights: the number of its boolean weights, each stored as one bit.
      real_parameters: the number of its elements in the collection "params" that are not boolean.
      statistics: the number of its other stored elements, such as a norm's running mean and variance.
      stored_bytes: bytes of all of these, each leaf of signs packed eight a byte.
      spike_rate: spikes a neuron and time step, or None.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    binary_weights: int
    real_parameters: int
    statistics: int
    stored_bytes: int
    spike_rate: float | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a model, in the order in which they are called, and their totals; ``str`` makes it a table.

    Attributes:
      title: the class of the model, and its input.
      rows: the layers: modules that have variables of their own or no other modules inside.
      binary_leaves: the names of the leaves that are stored at one bit a weight, such as "signs/conv_1/kernel".
    """

    title: str
    rows: tuple[LayerSummary, ...]
    binary_leaves: tuple[str, ...]

    @property
    def binary_weights(self) -> int:
        """The number of weights that are one bit in storage."""
        return sum(row.binary_weights for row in self.rows)

    @property
    def real_parameters(self) -> int:
        """The number of real parameters."""
        return sum(row.real_parameters for row in self.rows)

    @property
    def statistics(self) -> int:
        """The number of stored elements that are neither."""
        return sum(row.statistics for row in self.rows)

    @property
    def binary_share(self) -> float:
        """The share of binary weights among weights and parameters, in 0 .. 1."""
        return self.binary_weights / max(self.binary_weights + self.real_parameters, 1)

    @property
    def stored_bytes(self) -> int:
        """Bytes of the stored model with packed signs, without any file format's overhead."""
        return sum(row.stored_bytes for row in self.rows)

    @property
    def float32_bytes(self) -> int:
        """Bytes of the same model if every element were a float32."""
        return 4 * (self.binary_weights + self.real_parameters + self.statistics)

    @property
    def compression(self) -> float:
        """How many times smaller the stored model is than in float32."""
        return self.float32_bytes / max(self.stored_bytes, 1)

    def __str__(self) -> str:
        return _table(self)


def summarize(model: nn.Module, x: Any, *, spikes: Mapping[str, Any] | None = None) -> Summary:
    """Returns what each layer of a model holds and gives, and what the model takes in storage; nothing is run.

    Use it to see which weights are one bit, and what the rest costs: ``print(bsojax.summarize(model, x))``. Any Linen
    module will do, with modules nested in it to any depth; one that is called several times is one layer.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> summary = bsojax.summarize(bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5)))
      >>> summary.binary_weights, summary.real_parameters
      (64, 107)

    Args:
      model: a Linen module (see init).
      x: a batch of one time step, an array or a ``jax.ShapeDtypeStruct``.
      spikes: ``metrics["spikes"]`` of a training step, to show the rate of each neuron layer.

    Raises:
      ValueError: spikes names a layer that the model does not have.
    """
    x = jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))
    calls, variables = _trace(model, x)
    owned = _by_owner(calls, variables)
    rates = {} if spikes is None else {name: float(rate) for name, rate in spikes.items()}
    _validate.known_layers("spikes", set(rates) - {"/".join(path) for path in calls})
    rows = []
    for path, (kind, shape) in calls.items():
        name = "/".join(path)
        if path in owned or name in rates or not _is_container(path, calls):
            rows.append(LayerSummary(name, kind, shape, *_counts(owned.get(path, [])), rates.get(name)))
    binary = tuple(name for leaves in owned.values() for name, _, leaf in leaves if is_sign(leaf))
    title = f"{type(model).__name__} on {x.dtype}{list(x.shape)}"
    return Summary(title, tuple(rows), binary)


def _trace(model: nn.Module, x: jax.ShapeDtypeStruct) -> tuple[dict[Path, tuple[str, Any]], Any]:
    """Returns kind and output shape of every module that is called, in order, and the shapes of all variables."""
    calls: dict[Path, tuple[str, Any]] = {}

    def record(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.scope is None:
            return call(*args, **kwargs)
        path = context.module.path
        kind, shape = calls.setdefault(path, (type(context.module).__name__, None))
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and shape is None:
            calls[path] = (kind, _shape(output))
        return output

    def variables_of(frame: jax.Array) -> Any:
        # As bsojax.init: what training holds is what is counted.
        return model.init(jax.random.key(0), frame, **call_options(model, train=True, time_step=0))

    with nn.intercept_methods(record):
        variables = jax.eval_shape(variables_of, x)
    return calls, variables


def _shape(output: Any) -> tuple[int, ...] | None:
    leaves = jax.tree.leaves(output.value if isinstance(output, Spikes) else output)
    return tuple(jnp.shape(leaves[0])) if leaves else None


def _by_owner(calls: Mapping[Path, Any], variables: Any) -> dict[Path, list[tuple[str, str, Any]]]:
    """Returns (name, collection, leaf) of each variable that is stored, by the path of the module that owns it."""
    owned: dict[Path, list[tuple[str, str, Any]]] = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(variables):
        name = leaf_name(keys)
        collection, *path = (str(getattr(key, "key", key)) for key in keys)
        if collection in _NOT_STORED:
            continue
        # The value of a variable may be a tree itself: the owner is the innermost module around the leaf.
        owner = tuple(path[:-1])
        while owner not in calls:  # the model itself, at (), always is
            owner = owner[:-1]
        owned.setdefault(owner, []).append((name, collection, leaf))
    return owned


def _is_container(path: Path, calls: Mapping[Path, Any]) -> bool:
    return any(len(other) > len(path) and other[: len(path)] == path for other in calls)


def _counts(leaves: list[tuple[str, str, Any]]) -> tuple[int, int, int, int]:
    """The numbers of binary weights, real parameters and statistics, and the bytes of all in storage."""
    binary = real = statistics = stored = 0
    for _, collection, leaf in leaves:
        size = math.prod(leaf.shape)
        if is_sign(leaf):
            binary += size
            stored += (size + 7) // 8
            continue
        stored += size * leaf.dtype.itemsize
        if collection == "params":
            real += size
        else:
            statistics += size
    return binary, real, statistics, stored


def _table(summary: Summary) -> str:
    with_rates = any(row.spike_rate is not None for row in summary.rows)
    head = ["layer", "kind", "output shape", "1-bit weights", "real params", "statistics", "stored bytes", "spike rate"]
    lines = [
        [
            row.name or "(the model itself)",
            row.kind,
            "" if row.output_shape is None else str(row.output_shape),
            *(f"{n:,}" if n else "-" for n in (row.binary_weights, row.real_parameters, row.statistics)),
            f"{row.stored_bytes:,}" if row.stored_bytes else "-",
            "-" if row.spike_rate is None else f"{row.spike_rate:.4f}",
        ]
        for row in summary.rows
    ]
    numbers = (summary.binary_weights, summary.real_parameters, summary.statistics, summary.stored_bytes)
    total = ["total", "", "", *(f"{n:,}" for n in numbers), ""]
    columns = len(head) if with_rates else len(head) - 1
    widths = [max(len(line[column]) for line in (head, total, *lines)) for column in range(columns)]

    def text(line: list[str]) -> str:
        cells = zip(line, widths, strict=False)
        aligned = (cell.ljust(width) if column < 3 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        return "  ".join(aligned).rstrip()

    rule = "-" * (sum(widths) + 2 * (columns - 1))
    return "\n".join(
        [
            summary.title,
            rule,
            text(head),
            rule,
            *map(text, lines),
            rule,
            text(total),
            "",
            _one_bit(summary),
            f"Stored with packed signs: {_size(summary.stored_bytes)}, {summary.compression:.1f} times smaller than "
            f"the {_size(summary.float32_bytes)} of float32.",
        ]
    )


def _one_bit(summary: Summary) -> str:
    leaves = summary.binary_leaves
    if not leaves:
        return "One bit in storage: nothing; the model has no binary layer."
    count = "the boolean leaf" if len(leaves) == 1 else f"{len(leaves)} boolean leaves, the first"
    return f"One bit in storage: {summary.binary_share:.2%} of the weights, {count} {leaves[0]}."


def _size(number: int) -> str:
    unit, name = (1e6, "MB") if number >= 1e6 else (1e3, "kB")
    return f"{number / unit:,.2f} {name}"
