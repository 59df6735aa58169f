"""Reads a marked program as a graph: the layers, and the sums and products with constants between them."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var, jaxpr_as_fun

from bsojax import _validate
from bsojax.deploy._marks import Call, Marked, enters, leaves
from bsojax.deploy._values import Builder, Value


class Constant(NamedTuple):
    """A value that depends on no input; computed on demand."""

    read: Callable[[], Any]


class Unknown(NamedTuple):
    """A value that no layer produced.

    Attributes:
      maker: the operation that produced it.
      last: the name of the last layer before it.
      reader: the layer that first read it; nothing is refused before something reads that layer's result.
    """

    maker: str
    last: str
    reader: str = ""


class TimeStep(NamedTuple):
    """The number of the time step, as the model receives it."""


Held: TypeAlias = Value | Constant | Unknown | TimeStep

SAME = (
    "convert_element_type",
    "stop_gradient",
    "copy",
    "reduce_precision",
    "sharding_constraint",
)
"""Operations that leave floating numbers unchanged; rounding to a narrower dtype is ignored."""

INNER = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "remat",
    "checkpoint",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
)
"""Operations that contain a program of their own."""


def read(marked: Marked, builder: Builder) -> Value:
    """Returns the logits of a marked program as a value of the builder's graph.

    Raises:
      ValueError: an operation between the layers cannot be expressed in whole numbers; the error names the layer.
    """
    program = marked.program
    rest = [Unknown("the state of neurons", "x")] * (len(program.jaxpr.invars) - 2)
    _validate.one_output(len(program.jaxpr.outvars))
    logits = _walk(program, [builder.input(), TimeStep(), *rest], builder, marked, {})[0]
    if isinstance(logits, Value):
        return logits
    unknown = logits if isinstance(logits, Unknown) else Unknown("a constant", "x")
    _validate.not_read(unknown.reader or "what the model returns", unknown.maker, unknown.last)


def _walk(
    program: ClosedJaxpr, inputs: Sequence[Held], builder: Builder, marked: Marked, entered: dict[int, Sequence[Held]]
) -> list[Held]:
    """Returns a program's results for its inputs."""
    jaxpr = program.jaxpr
    held: dict[Any, Held] = {}
    for variable, value in zip(jaxpr.constvars, program.consts, strict=True):
        held[variable] = Constant(functools.partial(_itself, value))
    held.update(zip(jaxpr.invars, inputs, strict=True))

    def get(atom: Any) -> Held:
        return Constant(functools.partial(_itself, atom.val)) if isinstance(atom, Literal) else held[atom]

    for equation in jaxpr.eqns:
        operands = [get(atom) for atom in equation.invars]
        inner = _inner(equation) if equation.primitive.name in INNER else None
        if equation.primitive is enters:
            entered[equation.params["call"]] = operands
            results: list[Held] = [Unknown("the inside of a layer", marked.calls[equation.params["call"]].name)]
        elif equation.primitive is leaves:
            call = equation.params["call"]
            results = [_layer(marked.calls[call], entered[call], builder)]
        elif equation.primitive.name == "optimization_barrier":
            results = operands
        elif all(isinstance(operand, Constant) for operand in operands):
            results = _constants(jaxpr, equation, operands)
        elif not equation.outvars:  # a callback, such as that of jax.debug.print
            results = []
        elif inner is not None:
            results = _walk(inner, operands, builder, marked, entered)
        else:
            results = [_between(equation, operands, builder)] * len(equation.outvars)
        held.update(zip(equation.outvars, results, strict=True))
    return [get(atom) for atom in jaxpr.outvars]


def _layer(call: Call, operands: Sequence[Held], builder: Builder) -> Held:
    """The result of a layer for its input; see marked for the operands."""
    read = operands[0]
    if not isinstance(read, Value):
        kind = "a constant" if isinstance(read, Constant) else "the time step"
        unknown = read if isinstance(read, Unknown) else Unknown(kind, "x")
        return unknown if unknown.reader else unknown._replace(reader=f"'{call.name}'")
    if call.is_timed and not isinstance(operands[1], TimeStep):
        why = "it gets another time step than the model; pass it the model's time_step as it is"
        _validate.not_deployable(f"'{call.name}'", why)
    return builder.layer(call, read, operands[1 + call.is_timed :])


def _itself(value: Any) -> Any:
    return value


def _inner(equation: Any) -> ClosedJaxpr:
    found = next(equation.params[name] for name in ("jaxpr", "call_jaxpr") if name in equation.params)
    return found if isinstance(found, ClosedJaxpr) else ClosedJaxpr(found, ())


def _constants(program: Jaxpr, equation: Any, operands: Sequence[Any]) -> list[Held]:
    """The results of an operation on constants, computed on demand."""

    variables = {
        atom: operand for atom, operand in zip(equation.invars, operands, strict=True) if isinstance(atom, Var)
    }
    alone = program.replace(constvars=[], invars=list(variables), outvars=equation.outvars, eqns=[equation])

    @functools.cache
    def run() -> Any:
        return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*(operand.read() for operand in variables.values()))

    return [Constant(lambda index=index: run()[index]) for index in range(len(equation.outvars))]  # type: ignore[misc]


def _between(equation: Any, operands: Sequence[Held], builder: Builder) -> Held:
    """The result of an operation between layers: a sum or a product with a constant, or something unknown."""
    name, out = equation.primitive.name, equation.outvars[0].aval
    shape, values = out.shape, [operand for operand in operands if isinstance(operand, Value)]
    if name in SAME and len(operands) == 1 and (not values or jnp.issubdtype(out.dtype, jnp.floating)):
        return operands[0]
    strange = [operand for operand in operands if isinstance(operand, Unknown | TimeStep)]
    if strange:
        return strange[0] if isinstance(strange[0], Unknown) else Unknown("the time step", "x")
    unknown = Unknown(f"'{name}'", builder.name(values[0]) if values else "x")
    if not values:
        return unknown
    if name in ("reshape", "squeeze", "broadcast_in_dim") and shape == equation.invars[0].aval.shape:
        return values[0]
    if name in ("reshape", "squeeze") and len(shape) == 2 and shape[0] == equation.invars[0].aval.shape[0]:
        return builder.flatten(values[0], "flatten")
    if name == "neg":
        return builder.affine(values[0], -1.0, 0.0)
    if name in ("add", "add_any", "sub") and len(values) == 2:
        other = builder.affine(values[1], -1.0, 0.0) if name == "sub" else values[1]
        return builder.add(values[0], other)
    if len(operands) == 2 and len(values) == 1 and name in ("add", "add_any", "sub", "mul", "div"):
        first = isinstance(operands[0], Value)
        constant: Any = operands[1] if first else operands[0]
        by_channel = _by_channel(constant.read())
        if by_channel is not None and not (name == "div" and not first):
            return _with_constant(name, first, values[0], by_channel, builder)
    return unknown


def _with_constant(name: str, first: bool, value: Value, constant: np.ndarray, builder: Builder) -> Value:
    if name == "mul":
        return builder.affine(value, constant, 0.0)
    if name == "div":
        with np.errstate(divide="ignore"):
            return builder.affine(value, 1 / constant, 0.0)
    if name == "sub":
        return builder.affine(value, 1.0, -constant) if first else builder.affine(value, -1.0, constant)
    return builder.affine(value, 1.0, constant)


def _by_channel(constant: Any) -> np.ndarray | None:
    """A constant as one number per channel, or one for all; None where it differs in space."""
    array = np.asarray(constant, np.float64)
    if array.ndim == 0:
        return array
    rows = array.reshape(-1, array.shape[-1])
    return rows[0] if np.all(rows == rows[0]) else None
