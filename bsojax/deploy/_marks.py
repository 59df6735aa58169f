"""The program of a model's time step, with the layers of this library marked in it."""

import contextlib
import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Primitive
from jax.interpreters import batching

from bsojax import _validate
from bsojax.nn import NEURONS, Spikes, as_spikes, observing
from bsojax.online import call_options, start


@dataclasses.dataclass(frozen=True)
class Call:
    """A call of a layer or of a function of the library.

    Attributes:
      kind: the module's class, or the function.
      name: the layer's name.
      attributes: those of the module, or the function's arguments.
      shape: the shape of an example of its input.
      leaves: the names of its variables, such as "params/kernel".
      is_timed: whether it receives the time step.
      variables: what is known of each variable, once the program is read.
    """

    kind: Any
    name: str
    attributes: dict[str, Any]
    shape: tuple[int, ...]
    leaves: tuple[str, ...] = ()
    is_timed: bool = False
    variables: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Marked:
    """A model's time step as a program.

    Attributes:
      program: a function of the frame, the number of the time step and the state of the neurons; variables are its
        constants.
      calls: the calls that are marked in it, by number.
    """

    program: ClosedJaxpr
    calls: tuple[Call, ...]


def _identity(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(lambda x, *others, call, name: x)
    primitive.def_abstract_eval(lambda x, *others, call, name: x)
    batching.primitive_batchers[primitive] = _under_vmap
    return primitive


def _under_vmap(*_: Any, call: int, name: str) -> NoReturn:
    _validate.not_deployable(f"'{name}'", "it is called under vmap; give each call a layer of its own")


enters = _identity("enters_layer")
leaves = _identity("leaves_layer")


def marked(
    model: nn.Module,
    variables: Any,
    frame: jax.ShapeDtypeStruct,
    num_steps: int,
    knows: Callable[[nn.Module], bool],
) -> Marked:
    """Returns a model's time step in evaluation as a program in which its layers are marked.

    What happens between the "enters_layer" and "leaves_layer" of a call is the layer's work, of which nothing need be
    known. The former takes the layer's input, the time step where the layer receives it, and the layer's variables.

    Args:
      model: a Linen module.
      variables: its signs, parameters and statistics.
      frame: the shape and dtype of a batch of one time step.
      num_steps: the number of time steps.
      knows: whether the calls of a module are to be marked.
    """
    calls: list[Call] = []

    def within(call: Call, function: Callable[[Any], Any], x: Any, *others: Any) -> Any:
        number = len(calls)
        calls.append(call)
        return _bound(leaves, number, call.name, function(_bound(enters, number, call.name, x, others)))

    def module(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        layer: nn.Module = context.module
        if context.method_name != "__call__" or not knows(layer):
            return call(*args, **kwargs)
        bound = inspect.signature(type(layer).__call__).bind(layer, *args, **kwargs)
        given, (_, first, *_) = bound.arguments, tuple(bound.arguments)

        def called(x: Any) -> Any:
            given[first] = x
            return call(*bound.args[1:], **bound.kwargs)

        fields = [field.name for field in dataclasses.fields(layer) if field.name not in ("parent", "name")]
        variables = _variables(layer)
        attributes = {name: getattr(layer, name) for name in fields}
        is_timed = attributes.get("num_steps") is not None
        name, shape = "/".join(layer.path), _example(given[first])
        seen = Call(type(layer), name, attributes, shape, tuple(variables), is_timed)
        times = (jnp.asarray(given["time_step"]),) if is_timed else ()
        return within(seen, called, given[first], *times, *variables.values())

    def function(called: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        bound = inspect.signature(called).bind(*args, **kwargs).arguments
        x = bound.pop("x")
        return within(Call(called, called.__name__, bound, _example(x)), lambda x: called(x, **bound), x)

    def step(frame: jax.Array, time_step: jax.Array, neurons: Any) -> Any:
        options = call_options(model, train=False, time_step=time_step)
        return model.apply({**variables, NEURONS: neurons}, frame, mutable=[NEURONS], **options)[0]

    # The state and the time step are inputs, so that direct uses of them by the model are visible.
    begun = jax.eval_shape(lambda frame: start(model, frame, num_steps, train=False), frame)
    made = nn.meta.unbox({name: begun.variables.get(name, {}) for name in variables})
    _validate.holds("state", variables, made, "was it made with another model?")
    with contextlib.ExitStack() as stack:
        stack.enter_context(nn.intercept_methods(module))
        stack.enter_context(observing(function))
        # A program that jit cached belongs to another layer of the same kind, or to another model.
        stack.enter_context(jax.disable_jit())
        stack.enter_context(_drawing_refused())
        program = jax.make_jaxpr(step)(frame, jax.ShapeDtypeStruct((), jnp.int32), begun.neurons)
    return Marked(program, tuple(calls))


@contextlib.contextmanager
def _drawing_refused() -> Iterator[None]:
    try:
        yield
    except flax.errors.InvalidRngError as error:
        _validate.draws_nothing(str(error).split(" (")[0])


def _bound(primitive: Primitive, number: int, name: str, x: Any, others: Sequence[Any] = ()) -> Any:
    value = primitive.bind(jnp.asarray(as_spikes(x).value), *others, call=number, name=name)
    return Spikes(value, x.trace) if isinstance(x, Spikes) else value


def _variables(layer: nn.Module) -> dict[str, Any]:
    """The variables of a layer, as the layer sees them, by the names of their collections and their own."""
    held: Any = nn.meta.unbox(layer.variables)
    return {
        f"{collection}/{name}": value
        for collection in ("signs", "params", "batch_stats")
        for name, value in sorted(held.get(collection, {}).items())
    }


def _example(x: Any) -> tuple[int, ...]:
    return tuple(as_spikes(x).value.shape[1:])
