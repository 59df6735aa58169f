"""What a model contains, layer by layer: shapes, binary and real weights, stored bytes, spike rates."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.inspect._operations import LayerOperations, OperationEnergy, connections, frame_of, measured
from bsojax.inspect._synapses import Path
from bsojax.inspect._table import summary_table
from bsojax.nn import NEURONS, SPIKE_RATES, Spikes
from bsojax.online import TrainState, call_options
from bsojax.signs import is_sign

_NOT_STORED = (NEURONS, SPIKE_RATES, "intermediates")


@dataclasses.dataclass(frozen=True)
class LayerSummary:
    """One layer of a model.

    Attributes:
      name: the layer's path in the model, joined by slashes: its name in the collections and in metrics.
      kind: the class of its module.
      output_shape: the shape that its ``__call__`` returns (that of the value for Spikes, of the first one for several
        arrays), or None if it was used in another way.
      binary_weights: the number of its boolean weights, each stored as one bit.
      real_parameters: the number of its elements in the collection "params" that are not boolean.
      statistics: the number of its other stored elements, such as a norm's running mean and variance.
      stored_bytes: bytes of all of these, each leaf of signs packed eight per byte.
      spike_rate: spikes per neuron and time step, or None.
      connections: products of an input and a weight, for one example at one time step, where this is a layer of this
        library's synapses; products with padding are left out.
      operations: what these synapses did for a frame, where that was measured.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...] | None
    binary_weights: int
    real_parameters: int
    statistics: int
    stored_bytes: int
    spike_rate: float | None = None
    connections: int = 0
    operations: LayerOperations | None = None


@dataclasses.dataclass(frozen=True)
class Summary:
    """The layers of a model, in the order in which they are called, and their totals; ``str`` formats it as a table.

    Attributes:
      title: the class of the model, and its input.
      rows: the layers: modules that have variables of their own or no other modules inside.
      binary_leaves: the names of the leaves that are stored at one bit per weight, such as "signs/conv_1/kernel".
      uncounted: the names of layers with kernels whose operations cannot be counted here, such as flax's own.
      num_steps: the time steps of a frame over which operations were measured; None if they were not.
      passes: how many passes of a float twin a frame takes: num_steps where it is a sequence, otherwise 1.
      energy: the cost of operations.
    """

    title: str
    rows: tuple[LayerSummary, ...]
    binary_leaves: tuple[str, ...]
    uncounted: tuple[str, ...] = ()
    num_steps: int | None = None
    passes: int = 1
    energy: OperationEnergy = dataclasses.field(default_factory=OperationEnergy)

    @property
    def binary_weights(self) -> int:
        """The number of weights that are stored as one bit."""
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
        """The fraction of binary weights among weights and parameters, in 0 .. 1."""
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

    @property
    def connections(self) -> int:
        """Products of an input and a weight, for one example at one time step."""
        return sum(row.connections for row in self.rows)

    @property
    def additions(self) -> float | None:
        """Synaptic operations that are additions, for a frame of num_steps time steps; None if not measured."""
        return self._sum("additions")

    @property
    def multiply_adds(self) -> float | None:
        """Synaptic operations that are not, those of real inputs with real weights; None if not measured."""
        return self._sum("multiply_adds")

    @property
    def frame_energy(self) -> float | None:
        """Picojoules of the arithmetic of a frame; None if its operations were not measured."""
        if self.additions is None or self.multiply_adds is None:
            return None
        return self.additions * self.energy.addition + self.multiply_adds * self.energy.multiply_add

    @property
    def twin_energy(self) -> float:
        """Picojoules of the arithmetic of a float twin for a frame: a multiply-add for each connection and pass."""
        return self.passes * self.connections * self.energy.multiply_add

    def _sum(self, name: str) -> float | None:
        if self.num_steps is None:
            return None
        return float(sum(getattr(row.operations, name) for row in self.rows if row.operations is not None))

    def __str__(self) -> str:
        return summary_table(self)


def summarize(
    model: nn.Module,
    x: Any,
    *,
    spikes: Mapping[str, Any] | None = None,
    state: TrainState | None = None,
    num_steps: int | None = None,
    rngs: Any = None,
    energy: OperationEnergy | None = None,
) -> Summary:
    """Returns what each layer of a model holds, returns and does, and how much storage the model takes.

    Use it to see which weights are one bit, and what the rest costs: ``print(bsojax.summarize(model, x))``. Any Linen
    module will do, with modules nested to any depth; a module that is called several times is one layer. Nothing is run
    unless a state is given: then the model runs on x in evaluation, and the synaptic operations that its spikes cause
    are counted and shown beside the multiply-adds of a float twin: the network of the same layers with real weights and
    activations. The twin answers after one pass; for a sequence, whose frames differ, it needs a pass for each.

    A frame is one example with all its time steps. A zero input costs nothing where it is Spikes or an array of zeros
    and ones; any other input costs one operation for each weight that it reaches: an addition or, where neither the
    weight is a sign nor the input 1, a multiply-add. Norms, biases, pooling and the neurons themselves are not counted.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> summary = bsojax.summarize(bsojax.models.SpikingMLP(features=(8, 8), num_classes=3), jnp.ones((2, 5)))
      >>> summary.binary_weights, summary.real_parameters
      (64, 107)

    Args:
      model: a Linen module (see init).
      x: a batch of one time step, an array or a ``jax.ShapeDtypeStruct``; with state, real examples, as predict takes
        them, over which the results are averaged.
      spikes: ``metrics["spikes"]`` of a training step, to show the rate of each neuron layer; with state and without
        spikes, the rates are those measured on x.
      state: the training state, to count operations.
      num_steps: the number of time steps of a frame, given together with state.
      rngs: random keys, for models that use them.
      energy: the cost of an operation; None means the defaults of OperationEnergy.

    Raises:
      ValueError: spikes names a layer that the model does not have, or only one of state and num_steps is given.
    """
    _validate.measured_together(state is not None, num_steps is not None)
    operations: dict[Path, LayerOperations] = {}
    passes = 1
    rates = {} if spikes is None else {name: float(rate) for name, rate in spikes.items()}
    if state is not None and num_steps is not None:
        operations, found = measured(model, state, x, num_steps, rngs)
        rates = found if spikes is None else rates
        frame = frame_of(state, x, num_steps)
        x, passes = frame, num_steps if jnp.ndim(x) > jnp.ndim(frame) else 1
    x = jax.ShapeDtypeStruct(jnp.shape(x), jnp.result_type(x))
    calls, variables = _trace(model, x)
    owned, counted = _by_owner(calls, variables), connections(model, x)
    _validate.known_layers("spikes", set(rates) - {"/".join(path) for path in calls})
    rows = []
    for path, (kind, shape) in calls.items():
        name = "/".join(path)
        if path in owned or name in rates or not _is_container(path, calls):
            held = _counts(owned.get(path, []))
            does = rates.get(name), counted.get(path, 0), operations.get(path)
            rows.append(LayerSummary(name, kind, shape, *held, *does))
    binary = tuple(name for leaves in owned.values() for name, _, leaf in leaves if is_sign(leaf))
    uncounted = tuple("/".join(path) for path, leaves in owned.items() if path not in counted and _has_kernel(leaves))
    title = f"{type(model).__name__} on {x.dtype}{list(x.shape)}"
    return Summary(title, tuple(rows), binary, uncounted, num_steps, passes, energy or OperationEnergy())


def _has_kernel(leaves: list[tuple[str, str, Any]]) -> bool:
    return any(is_sign(leaf) or name.rpartition("/")[2] == "kernel" for name, _, leaf in leaves)


def _trace(model: nn.Module, x: jax.ShapeDtypeStruct) -> tuple[dict[Path, tuple[str, Any]], Any]:
    """Returns the kind and output shape of every module that is called, in order, and the shapes of all variables."""
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
        # As in bsojax.init: what training holds is what is counted.
        return model.init(jax.random.key(0), frame, **call_options(model, train=True, time_step=0))

    with nn.intercept_methods(record):
        variables = jax.eval_shape(variables_of, x)
    return calls, variables


def _shape(output: Any) -> tuple[int, ...] | None:
    leaves = jax.tree.leaves(output.value if isinstance(output, Spikes) else output)
    return tuple(jnp.shape(leaves[0])) if leaves else None


def _by_owner(calls: Mapping[Path, Any], variables: Any) -> dict[Path, list[tuple[str, str, Any]]]:
    """Returns (name, collection, leaf) of each stored variable, by the path of the module that owns it."""
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
