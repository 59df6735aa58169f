"""A saturating counter per weight, whose sign is the weight: training with three to eight bits per weight in total."""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import ScalarOrSchedule
from bsojax.optim import _deployed, _flips
from bsojax.optim._dither import dither, uniform
from bsojax.signs import deltas, is_sign, unpack_signs
from bsojax.xla_cpu import not_before


class CounterState(NamedTuple):
    """The state of counter.

    Attributes:
      count: int32, the number of calls of update.
      levels: tree like the signs with uint8 leaves of shape ``(bits - 1, ceil(size / 8))``: how many levels each weight
        is from the one next to zero, ``0 .. 2**(bits - 1) - 1``, as one row of packed bits per binary digit, lowest
        first; bit k of byte j belongs to the raveled weight ``k * ceil(size / 8) + j``.
      skipped: int32, how many calls changed nothing because a gradient was not finite.
      deployed: tree like the signs, the signs to evaluate, save and export, as PackedSigns; None without deploy_level,
        when the trained signs serve.
    """

    count: jax.Array  # type: ignore[assignment]  # shadows tuple.count, as optax states do
    levels: optax.Updates
    skipped: jax.Array
    deployed: optax.Params | None = None


def counter(
    step: ScalarOrSchedule,
    bits: int = 6,
    *,
    deploy_level: ScalarOrSchedule | None = None,
    seed: int | jax.Array = 0,
) -> optax.GradientTransformationExtraArgs:
    """Flips a sign when its counter of gradients passes zero: no momentum, and few bits per weight.

    Use it instead of t_bso where memory is short; ``calibrated_counter`` is such an optimizer, ready to use. A weight
    is at one of ``2**bits`` levels, ``-W + 1/2, ..., -1/2, 1/2, ..., W - 1/2`` with ``W = 2**(bits - 1)``. Its sign is
    one bit of the level, kept where signs are kept; this state holds the other bits, packed. Each gradient moves the
    weight by ``-step * gradient`` levels, rounded stochastically without bias, and a weight that would leave the scale
    stays at its end. By saturating it forgets, as a momentum does: its window is ``W**2 / (2 * step)`` updates under
    noise of size 1.

    Give it gradients of size 1, by :func:`scale_by_channel_rms`, and make it the last transform of a chain. A call
    whose gradients are not all finite changes nothing and is counted in ``state.skipped``.

    Example:
      >>> import jax.numpy as jnp, bsojax
      >>> signs = {"kernel": jnp.array([True, False])}
      >>> tx = bsojax.counter(step=1.0, bits=4)
      >>> updates, state = tx.update({"kernel": jnp.array([2.0, 2.0])}, tx.init(signs), signs)
      >>> bsojax.apply_updates(signs, updates)["kernel"].tolist()
      [False, False]

    Args:
      step: levels by which a gradient of 1 moves a weight: a number >= 0, or a schedule over the number of updates.
      bits: bits per weight, including its sign, in 3 .. 8.
      deploy_level: makes the state keep a second set of signs, at one bit per weight, that follow the trained ones only
        where a weight is more than this many levels from zero: steadier signs to evaluate and to ship (see
        deployed_signs). A number or a schedule.
      seed: the seed of the rounding, in 0 .. 2^32 - 1. The same seed, state and gradients give the same bits.

    Returns:
      A transformation with state :class:`CounterState`; its updates are int8 deltas (see bso).

    Raises:
      TypeError: a number is given as a boolean, or bits is not an int.
      ValueError: a number is out of range; at init, a leaf does not hold signs; at update, gradients or state do not
        fit the signs.
    """
    step_at = _validate.schedule("step", step, 0.0, math.inf)
    sure_at = None if deploy_level is None else _validate.schedule("deploy_level", deploy_level, 0.0, math.inf)
    digits = _validate.counter_bits(bits) - 1

    def zero() -> jax.Array:
        return jnp.zeros((), jnp.int32)

    def fresh(signs: optax.Params) -> CounterState:
        level = lambda leaf: jnp.zeros((digits, -(-jnp.size(leaf) // 8)), jnp.uint8)  # noqa: E731
        deployed = None if sure_at is None else _deployed.begun(signs)
        return CounterState(zero(), jax.tree.map(level, signs), zero(), deployed)

    def init_fn(params: optax.Params) -> CounterState:
        signs = unpack_signs(params)
        _validate.sign_values(signs)
        return fresh(signs)

    def update_fn(
        grads: optax.Updates, state: CounterState, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[optax.Updates, CounterState]:
        del extra_args
        _validate.needs_params(params)
        signs = unpack_signs(params)
        _validate.same_shapes("grads", grads, signs)
        _validate.same("state", state, jax.eval_shape(fresh, signs), "was it made for other signs, or other bits?")
        flips, state = _advance(
            grads, state, signs, step_at(state.count), None if sure_at is None else sure_at(state.count), seed
        )
        return deltas(params, flips), state

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _advance(
    grads: optax.Updates,
    state: CounterState,
    signs: optax.Params,
    step: float | jax.Array,
    least: float | jax.Array | None,
    seed: int | jax.Array,
) -> tuple[optax.Updates, CounterState]:
    """Returns which signs flip, and the state after a gradient; with least, deployed signs follow beyond that level."""
    keep = _flips.all_finite(grads)
    structure: Any = jax.tree.structure(signs)
    leaves = zip(jax.tree.leaves(signs), jax.tree.leaves(grads), structure.flatten_up_to(state.levels), strict=True)
    flips, levels, sure = [], [], []
    for number, (sign, gradient, old) in enumerate(leaves):
        moved = functools.partial(_moved, step, number, seed)
        # One layer at a time, once all gradients are there, like the momentum (see _momentum.advance).
        flip, new, distance = not_before(keep, moved, sign, gradient, jnp.asarray(old), state.count)
        flips.append(keep & flip)
        levels.append(jnp.where(keep, new, old))
        sure.append(keep & (distance > (jnp.inf if least is None else least)))
    flipped, deployed = jax.tree.unflatten(structure, flips), state.deployed
    if least is not None:
        deployed = _deployed.followed(state, signs, flipped, jax.tree.unflatten(structure, sure))
    count = optax.safe_increment(state.count)
    return flipped, CounterState(count, jax.tree.unflatten(structure, levels), state.skipped + ~keep, deployed)


def _moved(
    step: float | jax.Array,
    number: int,
    seed: int | jax.Array,
    sign: jax.Array,
    gradient: jax.Array,
    levels: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns which signs of a leaf flip, and its levels after a gradient, packed and as distances from zero."""
    positive = sign if is_sign(sign) else sign > 0
    top = 2.0 ** len(levels) - 0.5
    distance = _unpacked(levels, positive.shape).astype(jnp.float32) + 0.5
    moves = jnp.floor(step * gradient.astype(jnp.float32) + uniform(dither(positive.shape, number, count, seed)))
    level = jnp.clip(jnp.where(positive, distance, -distance) - moves, -top, top)
    distance = jnp.abs(level)
    return (level > 0) != positive, _packed((distance - 0.5).astype(jnp.uint8), len(levels)), distance


def _unpacked(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Returns the numbers of a leaf from its rows of bits."""
    eighths = [sum(((row >> bit) & 1) << place for place, row in enumerate(rows)) for bit in range(8)]
    return jnp.concatenate([jnp.asarray(part) for part in eighths])[: math.prod(shape)].reshape(shape)


def _packed(numbers: jax.Array, digits: int) -> jax.Array:
    """Returns numbers as rows of bits, one row per binary digit.

    Each byte holds numbers that are an eighth of the leaf apart, so that everything is elementwise: packing neighbours
    would need sums over an axis of eight, which cost ten times as much on a CPU.
    """
    size = -(-numbers.size // 8)
    eighths = jnp.pad(numbers.ravel(), (0, 8 * size - numbers.size)).reshape(8, size)
    rows = [sum(((part >> place) & 1) << bit for bit, part in enumerate(eighths)) for place in range(digits)]
    return jnp.stack([jnp.asarray(row) for row in rows])
