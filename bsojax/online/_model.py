"""How a Linen model is called: on one time step, with the state of its neurons passed in and returned."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.nn import NEURONS, RECORDINGS, SPIKE_RATES, Spikes, StateForm, counted_examples, counting, resting_as
from bsojax.online._batch import along, keys_at

LOSSES = "losses"
"""The collection into which models sow loss terms."""

_FLAGS = {"train": True, "training": True, "is_training": True, "deterministic": False, "use_running_average": False}
"""The names models use for the argument that says whether they are in training, and its value in training."""


class Forward(NamedTuple):
    """The results of one time step of a model.

    Attributes:
      logits: the model's outputs.
      batch_stats: its running statistics after the step.
      neurons: the state of its neurons after the step.
      spike_rates: the mean spike of each neuron layer, by its name; empty where not requested.
      sown: the collection "losses", likewise.
      recordings: the collection "recordings", likewise.
    """

    logits: Any
    batch_stats: Any
    neurons: Any
    spike_rates: dict[str, jax.Array]
    sown: Any = ()
    recordings: Any = ()


class Start(NamedTuple):
    """A model before the first time step.

    Attributes:
      logits: arrays like the model's outputs.
      variables: arrays like the variables of its collections.
      neurons: the state of its neurons at rest.
      spike_rates: arrays like the spike rates of its neuron layers, by name.
    """

    logits: Any
    variables: dict[str, Any]
    neurons: Any
    spike_rates: dict[str, jax.Array]


def call_options(model: nn.Module, *, train: bool, time_step: int | jax.Array) -> dict[str, Any]:
    """Returns the arguments for the time step and the training flag that the model's ``__call__`` takes.

    The flag is "train" or one of its other common names: "training", "is_training", "deterministic" and
    "use_running_average", of which the last two are False in training.
    """
    if isinstance(model, nn.Sequential):
        return {}  # it passes all of its arguments to its first layer
    parameters = inspect.signature(type(model).__call__).parameters
    options: dict[str, Any] = {
        name: train == when_training for name, when_training in _FLAGS.items() if name in parameters
    }
    if "time_step" in parameters:
        options["time_step"] = time_step
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    return {**({"train": train, "time_step": time_step} if anything else {}), **options}


def check_flag(model: nn.Module, variables: Any) -> None:
    """Raises ValueError where a model has running statistics but takes no training flag."""
    options = call_options(model, train=True, time_step=0)
    _validate.train_flag(any(name in _FLAGS for name in options), bool(jax.tree.leaves(variables.get("batch_stats"))))


def start(model: nn.Module, frame: Any, num_steps: int, *, train: bool, learns: bool | None = None) -> Start:
    """Calls the model once, to find out what it keeps and from where its neurons start.

    Use it in a loop of your own, under jit: the compiler treats everything except the constants of the neurons' state
    as dead code. The model receives the last time step as a plain int, so that a norm with statistics for fewer steps
    refuses it; in the loop the time step is traced.

    Args:
      model: a Linen module (see init).
      frame: a batch of one time step.
      num_steps: the number of time steps.
      train: whether the model is called in training.
      learns: whether gradients will be taken: neurons then hold the membrane before the reset, and traces. None means
        the same as train.

    Raises:
      ValueError: a norm keeps statistics for fewer time steps, or the model has running statistics and takes no
        training flag.
    """
    learns = train if learns is None else learns
    return started(model, frame, num_steps, train=train, form=StateForm(before_reset=learns, traces=learns))


def started(model: nn.Module, frame: Any, num_steps: int, *, train: bool, form: StateForm) -> Start:
    """Like start, with neurons in a given form."""
    options = call_options(model, train=train, time_step=num_steps - 1)
    with resting_as(form):
        logits, made = model.init_with_output(jax.random.key(0), frame, **options)
    variables: Any = made
    check_flag(model, variables)
    neurons = variables.get(NEURONS, {})
    return Start(logits, variables, neurons if form.traces else _without_traces(neurons), _by_layer(variables))


def forward(
    model: nn.Module,
    variables: dict[str, Any],
    neurons: Any,
    frame: Any,
    time_step: int | jax.Array,
    *,
    train: bool,
    counted: jax.Array | None = None,
    rngs: Any = None,
    extra: tuple[str, ...] = (),
) -> Forward:
    """Runs a model on one time step.

    Use it in a loop of your own; the neurons' state comes from :func:`start` and then from the previous step.

    Args:
      model: a Linen module (see init).
      variables: the collections "signs", "params" and "batch_stats".
      neurons: the collection "neurons".
      frame: a batch of one time step.
      time_step: its number, 0 .. T - 1.
      train: whether the model is called in training, where statistics follow the batch.
      counted: which examples count in statistics and rates, boolean of shape ``(batch,)``; None means all.
      rngs: a random key of the sequence, or a dict of keys by stream; each time step derives its own from them, except
        for the stream "sequence", which is the same at each.
      extra: collections to return in evaluation too: "spike_rates", "losses", "recordings".
    """
    changing = ["batch_stats", NEURONS, SPIKE_RATES, LOSSES] if train else [NEURONS, *extra]
    options = call_options(model, train=train, time_step=time_step)
    padded = contextlib.nullcontext() if counted is None else nn.intercept_methods(_leave_out_padding)
    with counting(counted), padded:
        logits, changed = model.apply(
            {**variables, NEURONS: neurons}, frame, mutable=changing, rngs=keys_at(rngs, time_step), **options
        )
    batch_stats = changed.get("batch_stats", variables.get("batch_stats", {}))
    after = changed.get(NEURONS, neurons)
    after = after if train else _without_traces(after, like=neurons)
    sown, recordings = changed.get(LOSSES, {}), changed.get(RECORDINGS, {})
    return Forward(logits, batch_stats, after, _by_layer(changed), sown, recordings)


def _leave_out_padding(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
    """Passes to flax's own norm which examples count."""
    examples = counted_examples()
    if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__" and examples is not None:
        kwargs = {"mask": along(examples, args[0]), **kwargs}
    return call(*args, **kwargs)


def _without_traces(neurons: Any, like: Any = None) -> Any:
    """Returns the state without the traces of any Spikes that models keep in it, as evaluation carries it.

    Args:
      neurons: the state.
      like: a state; traces that its Spikes have are kept.
    """

    def is_spikes(node: Any) -> bool:
        return isinstance(node, Spikes)

    def bare(node: Any, like: Any) -> Any:
        keeps = is_spikes(like) and like.trace is not None
        return node.replace(trace=None) if is_spikes(node) and not keeps else node

    nodes, structure = jax.tree.flatten(neurons, is_leaf=is_spikes)
    olds = [None] * len(nodes) if like is None else jax.tree.leaves(like, is_leaf=is_spikes)
    return jax.tree.unflatten(structure, [bare(node, old) for node, old in zip(nodes, olds, strict=True)])


def neuron_batch_axes(model: nn.Module, frame: Any, num_steps: int, *, train: bool, form: StateForm) -> Any:
    """Returns for each leaf of the neurons' state which of its axes is the batch axis, -1 for none."""

    def shapes(extra: int) -> Any:
        like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((len(leaf) + extra, *leaf.shape[1:]), leaf.dtype), frame)
        return jax.eval_shape(lambda frame: started(model, frame, num_steps, train=train, form=form).neurons, like)

    def axis(one: Any, other: Any) -> int:
        return next((axis for axis, (a, b) in enumerate(zip(one.shape, other.shape, strict=True)) if a != b), -1)

    return jax.tree.map(axis, shapes(0), shapes(1))


def _by_layer(variables: Any) -> dict[str, jax.Array]:
    rates = jax.tree_util.tree_leaves_with_path(variables.get(SPIKE_RATES, {}))
    return {leaf_name(path[:-1]): rate for path, rate in rates}
