"""Networks drawn by hypothesis that can be deployed: a model, a state that lets it spike, whole inputs, settings.

Their numbers are like those of trained networks: norms have about the statistics of what they see. Their sizes are such
that a network takes a second.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

import bsojax
from bsojax.deploy import IntegerNetwork, integer_network

INPUTS = (
    (0, 255, 255.0),
    (0, 1, 1.0),
    (0, 15, 16.0),
    (-128, 127, 64.0),
    (0, 3, 0.7),
    (0, 65535, 65535.0),
    (-32768, 32767, 8192.0),
)
"""input_min, input_max and input_scale: those of bytes, events, and other dtypes."""


@dataclasses.dataclass(frozen=True)
class Network:
    """A drawn network.

    Attributes:
      model: a Linen module.
      state: a training state, without an optimizer's.
      x: whole inputs, static frames ``(batch, ...)`` or a sequence ``(num_steps, batch, ...)``.
      num_steps: the number of time steps.
      settings: what integer_network takes by name.
    """

    model: nn.Module
    state: bsojax.TrainState = dataclasses.field(repr=False)
    x: np.ndarray = dataclasses.field(repr=False)
    num_steps: int
    settings: dict[str, Any]
    shape: tuple[int, ...]

    @property
    def frames(self) -> np.ndarray:
        """The inputs of the model."""
        return (self.x / self.settings["input_scale"]).astype(np.float32)

    @functools.cached_property
    def whole(self) -> IntegerNetwork:
        """The network in whole numbers."""
        return integer_network(self.model, self.state, self.frames, self.num_steps, **self.settings)


@dataclasses.dataclass(frozen=True)
class Stage:
    """A part of a drawn model, and how failures show it."""

    text: str
    apply: Callable[[Any, bool, Any], Any] = dataclasses.field(repr=False)


class Stages(nn.Module):
    """A model of stages one after the other."""

    stages: tuple[Stage, ...]

    @nn.compact
    def __call__(self, x: Any, train: bool = False, time_step: Any = None) -> jax.Array:
        for stage in self.stages:
            x = stage.apply(x, train, time_step)
        return bsojax.nn.as_spikes(x).value


def state_of(model: nn.Module, shape: tuple[int, ...], seed: int, *, packed: bool = False) -> bsojax.TrainState:
    """Returns a state of random signs, parameters and statistics with which neurons are neither silent nor steady."""
    rng = np.random.default_rng(seed)
    frame = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    made = jax.eval_shape(
        lambda frame: model.init(
            jax.random.key(0), frame, **bsojax.online.call_options(model, train=True, time_step=0)
        ),
        frame,
    )
    kernels: dict[tuple[str, ...], np.ndarray] = {}

    def fill(path: Any, leaf: Any) -> np.ndarray:
        _, *owner, name = (key.key for key in path)
        if name == "kernel":
            fan_in = int(np.prod(leaf.shape[:-1]))
            made = rng.random(leaf.shape) < 0.5 if leaf.dtype == bool else rng.normal(size=leaf.shape) * fan_in**-0.5
            kernels[tuple(owner)] = made
            return made.astype(leaf.dtype)
        if name in ("mean", "var"):
            return _statistics(name, tuple(owner), leaf, kernels, rng)
        spread = {"scale": (1.0, 0.2), "bias": (0.2, 0.4), "w": (0.0, 0.7)}[name]
        return rng.normal(*spread, size=leaf.shape).astype(np.float32)

    order = ("signs", "params", "batch_stats")  # norms follow kernels
    filled = {name: jax.tree_util.tree_map_with_path(fill, {name: made.get(name, {})})[name] for name in order}
    if packed:
        filled["signs"] = bsojax.pack_signs(jax.tree.map(jnp.asarray, filled["signs"]))
    zero = np.zeros((), np.int32)
    return bsojax.TrainState(opt_state=(), step=zero, skipped=zero, input_shape=tuple(shape), **filled)


def _statistics(name: str, owner: tuple[str, ...], leaf: Any, kernels: Any, rng: np.random.Generator) -> np.ndarray:
    """About the mean or variance of sums of which 3 of 10 inputs are 1."""
    *parents, last = owner
    names = [last.replace("norm", other) for other in ("conv", "dense", "synapse")]
    kernel = next((kernels[(*parents, each)] for each in names if (*parents, each) in kernels), None)
    if kernel is None:
        middle = 0.0 if name == "mean" else 20.0
    else:
        weights = np.where(kernel, 1.0, -1.0) if kernel.dtype == bool else kernel
        weights = weights.reshape(-1, weights.shape[-1])
        middle = 0.3 * weights.sum(0) if name == "mean" else 0.21 * np.square(weights).sum(0) + 1e-3
    jitter = rng.normal(0, 0.3, leaf.shape)
    return (middle + jitter if name == "mean" else middle * np.exp(jitter)).astype(np.float32)


@st.composite
def networks(draw: st.DrawFn, *, tiny: bool = False, **settings: Any) -> Network:
    """Draws a network; all that can be deployed occurs.

    Args:
      draw: of hypothesis.
      tiny: whether it is so small that Python's integers compute it.
      settings: what integer_network takes by name; whatever is not given is drawn.
    """
    num_steps = draw(st.sampled_from((1, 2, 3) if tiny else (1, 2, 3, 4, 9)))
    sides = st.sampled_from((1, 2, 3, 4) if tiny else (5, 4, 3, 7, 6, 2, 1))
    space = draw(st.lists(sides, max_size=2).map(tuple))
    shape = (*space, draw(st.sampled_from((1, 2, 3) if tiny else (1, 2, 3, 5))))
    low, high, scale = draw(st.sampled_from(INPUTS))
    chosen = {
        "input_min": low,
        "input_max": high,
        "input_scale": scale,
        "membrane_bits": draw(st.sampled_from((32, 32, 32, 24, 16))),
        "weight_bits": draw(st.sampled_from((None, None, None, 16, 8))),
        **settings,
    }
    known = draw(st.integers(0, 3)) if len(space) == 2 and min(space) > 1 else draw(st.sampled_from((0, 1, 0)))
    build = (_stages, _mlp, _vgg, _resnet)[known]
    model = draw(build(shape, num_steps, tiny))
    state = state_of(model, shape, draw(st.integers(0, 2**16)), packed=draw(st.booleans()))
    lead = (num_steps,) * draw(st.booleans()) + (draw(st.integers(1, 3 if tiny else 5)),)
    x = _inputs(draw, (*lead, *shape), chosen["input_min"], chosen["input_max"])
    return Network(model, state, x, num_steps, chosen, shape)


def _inputs(draw: st.DrawFn, shape: tuple[int, ...], low: int, high: int) -> np.ndarray:
    """Noise, noise of the ends alone, or blank frames but for a few events."""
    rng, kind = np.random.default_rng(draw(st.integers(0, 2**16))), draw(st.integers(0, 2))
    if kind == 0:
        return rng.integers(low, high + 1, shape)
    return np.where(rng.random(shape) < (0.5 if kind == 1 else 0.9), 0 if kind == 2 else low, high)


def neurons() -> st.SearchStrategy[Callable[..., nn.Module]]:
    """Draws how a layer of neurons is made."""
    reset = st.sampled_from((None, 0.0, -0.25, 0.2))
    threshold = st.sampled_from((1.0, 0.7, 1.3))
    tau = st.sampled_from((1.0, 1.5, 2.0, 3.7, 20.0))

    def make(kind: Any, **given: Any) -> Any:
        return st.builds(functools.partial, st.just(kind), v_threshold=threshold, v_reset=reset, **given)

    return st.one_of(
        make(bsojax.LIF, tau=tau, decay_input=st.booleans()),
        make(bsojax.IF),
        make(bsojax.PLIF, decay_input=st.booleans()),
    )


def _norms(num_steps: int) -> st.SearchStrategy[Callable[..., nn.Module]]:
    kinds = bsojax.BatchNorm, functools.partial(bsojax.BatchNorm, num_steps=num_steps), bsojax.BatchRenorm
    return st.sampled_from(kinds)


def _widths(tiny: bool) -> st.SearchStrategy[int]:
    return st.sampled_from((1, 2, 3) if tiny else (1, 3, 6, 8, 31, 32, 33, 65))


def _mlp(shape: tuple[int, ...], num_steps: int, tiny: bool) -> st.SearchStrategy[nn.Module]:
    return st.builds(
        bsojax.models.SpikingMLP,
        features=st.lists(_widths(tiny), min_size=1, max_size=2).map(tuple),
        num_classes=st.integers(2, 4),
        binary_ends=st.booleans(),
        neuron=neurons(),
        norm=_norms(num_steps),
    )


def _vgg(shape: tuple[int, ...], num_steps: int, tiny: bool) -> st.SearchStrategy[nn.Module]:
    def channels(widths: list[int], pools: list[bool]) -> tuple[Any, ...]:
        fits, parts = min(shape[:2]).bit_length() - 1, []
        for width, pool in zip(widths, pools, strict=True):
            parts += [width] + ["M"] * (pool and fits > 0)
            fits -= pool
        return tuple(parts)

    count = st.just(2)
    return st.builds(
        bsojax.models.SpikingVGG,
        channels=count.flatmap(
            lambda n: st.builds(
                channels,
                st.lists(_widths(tiny), min_size=n, max_size=n),
                st.lists(st.booleans(), min_size=n, max_size=n),
            )
        ),
        num_classes=st.integers(2, 4),
        binary_ends=st.booleans(),
        neuron=neurons(),
        norm=_norms(num_steps),
    )


def _resnet(shape: tuple[int, ...], num_steps: int, tiny: bool) -> st.SearchStrategy[nn.Module]:
    return st.builds(
        bsojax.models.SpikingResNet,
        num_classes=st.integers(2, 4),
        stages=st.sampled_from(((1,), (1, 1))),
        width=st.integers(1, 2) if tiny else st.sampled_from((1, 3, 8)),
        stem=st.sampled_from((bsojax.models.cifar_stem, bsojax.models.imagenet_stem)),
        neuron=neurons(),
        norm=_norms(num_steps),
    )


@st.composite
def _stages(draw: st.DrawFn, shape: tuple[int, ...], num_steps: int, tiny: bool) -> nn.Module:
    """A model of blocks: synapse, pooling, norm and sum, neurons, and what may be done to spikes; then a readout."""
    stages, (*space, channels) = [], shape
    if draw(st.booleans()):
        stages.append(_between(draw, channels, "input"))
    for index in range(draw(st.integers(1, 2 if tiny else 3))):
        out = draw(_widths(tiny).filter(lambda width: width <= 33 or index == 0))
        if draw(st.integers(0, 5)) == 0:  # neurons that read frames or spikes themselves
            stage, out = _between(draw, channels, "itself"), channels
        else:
            stage, space = _current(draw, index, space, channels, out, num_steps)
        more, space = _after(draw, space, out)
        stages += [stage, _firing(draw, index, out), *more]
        channels = out
    return Stages((*stages, *_readout(draw, space)))


def _between(draw: st.DrawFn, channels: int, name: str) -> Stage:
    """A product with constants, and a sum."""
    shape = (channels,) if draw(st.booleans()) else ()
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    gain, shift = rng.uniform(0.5, 1.5, shape), rng.normal(0, 0.2, shape)
    gain, shift = (np.round(given, 2).astype(np.float32).tolist() for given in (gain, shift))
    kind = draw(st.sampled_from(("times", "over", "minus")))

    def apply(x: Any, train: bool, time_step: Any) -> Any:
        value = bsojax.nn.as_spikes(x).value
        a, b = (jnp.asarray(given, value.dtype) for given in (gain, shift))
        a, b = (
            given.reshape((1,) * (value.ndim - given.ndim) + given.shape) if given.ndim else given for given in (a, b)
        )
        return {"times": lambda: value * a + b, "over": lambda: (value + b) / a, "minus": lambda: b - value * a}[kind]()

    return Stage(f"{name}: {kind} {gain}, {shift}", apply)


def _window(draw: st.DrawFn, space: list[int]) -> tuple[dict[str, Any], list[int]]:
    """The arguments of a convolution that fits, and the space that it leaves."""
    size, strides, dilation, sides, left = [], [], [], [], []
    padding = draw(st.sampled_from(("SAME", "SAME", "VALID", "sides") + ("CAUSAL",) * (len(space) == 1)))
    padded = padding in ("SAME", "CAUSAL")
    for side in space:
        crops = st.integers(-1 if side > 2 else 0, 3)
        pad = draw(st.tuples(crops, crops)) if padding == "sides" else (0, 0)
        room = 99 if padded else side + sum(pad)
        spacing = draw(st.integers(1, 2))
        kernel = draw(st.integers(1, max(1, min(3, (room - 1) // spacing + 1))))
        step = draw(st.sampled_from((1, 1, 2, 3)))
        far = (kernel - 1) * spacing
        left.append(-(-side // step) if padded else (room - far - 1) // step + 1)
        for parts, part in zip((size, strides, dilation, sides), (kernel, step, spacing, pad), strict=True):
            parts.append(part)
    given = {"strides": tuple(strides), "kernel_dilation": tuple(dilation)}
    return {
        "kernel_size": tuple(size),
        "padding": tuple(sides) if padding == "sides" else padding,
        **given,
    }, left


def _synapse(draw: st.DrawFn, kind: str, window: dict[str, Any], groups: int, out: int) -> functools.partial[Any]:
    """How a layer of weights is made."""
    scale, use_bias = draw(st.sampled_from((bsojax.unit_scale, bsojax.rsqrt_fan_in))), draw(st.booleans())
    makes: dict[str, functools.partial[Any]] = {
        "BinaryConv": functools.partial(bsojax.BinaryConv, out, feature_group_count=groups, scale=scale, **window),
        "Conv": functools.partial(bsojax.Conv, out, feature_group_count=groups, use_bias=use_bias, **window),
        "BinarySeparableConv": functools.partial(bsojax.BinarySeparableConv, out, scale=scale, **window),
        "BinaryDense": functools.partial(bsojax.BinaryDense, out, scale=scale),
        "Dense": functools.partial(bsojax.Dense, out, use_bias=use_bias),
    }
    return makes[kind]


def _current(
    draw: st.DrawFn, index: int, space: list[int], channels: int, out: int, num_steps: int
) -> tuple[Stage, list[int]]:
    """One or two synapses on the same map, each with a norm or none, and their sum."""
    convs, denses = ("BinaryConv", "Conv", "BinarySeparableConv"), ("BinaryDense", "Dense")
    kinds = denses if not space or draw(st.integers(0, 3)) == 0 else convs
    window, left = _window(draw, space) if kinds is convs else ({}, space)
    groups = np.gcd(channels, out).item() if draw(st.integers(0, 3)) == 0 else 1
    makes, texts = [], []
    for branch in range(draw(st.sampled_from((1, 1, 2)))):
        kind = draw(st.sampled_from(kinds))
        layer = _synapse(draw, kind, window, groups, out)
        norm, text = draw(st.sampled_from(_norm_stages(num_steps)))
        makes.append((layer, norm, f"{index}{'ab'[branch]}"))
        texts.append(f"{kind}{layer.args}{layer.keywords} {text}")
    # Mixed again, without neurons between: sums over sums, or over currents.
    again = draw(st.sampled_from(("", "", "", "Dense", "BinaryDense")))
    mixed = _synapse(draw, again, {}, 1, out) if again else None
    pools = bool(left) and min(left) > 1 and draw(st.integers(0, 3)) == 0
    factor = draw(st.sampled_from((1.0, -0.5)))

    def apply(x: Any, train: bool, time_step: Any) -> Any:
        currents = []
        for layer, norm, name in makes:
            current = layer(name=f"synapse_{name}")(x)
            current = bsojax.avg_pool(current, 2) if pools else current
            current = norm(current, f"norm_{name}", train, time_step)
            currents.append(mixed(name=f"mixed_{name}")(current) if mixed else current)
        return currents[0] if len(currents) == 1 else currents[0] + factor * currents[1]

    return Stage(" plus ".join(texts) + " pooled" * pools + again, apply), [
        side // 2 for side in left
    ] if pools else left


def _norm_stages(num_steps: int) -> tuple[tuple[Any, str], ...]:
    """Functions of a current, a name, and what a model is told."""
    return (
        (lambda x, name, train, t: bsojax.BatchNorm(name=name)(x, train), "BatchNorm"),
        (lambda x, name, train, t: bsojax.BatchNorm(num_steps, name=name)(x, train, t), "BatchNorm a time step"),
        (lambda x, name, train, t: bsojax.BatchRenorm(name=name)(x, train), "BatchRenorm"),
        (lambda x, name, train, t: nn.BatchNorm(not train, name=name)(x), "flax's BatchNorm"),
        (lambda x, name, train, t: bsojax.Affine(name=name)(x), "Affine"),
        (lambda x, name, train, t: x, "no norm"),
    )


def _firing(draw: st.DrawFn, index: int, channels: int) -> Stage:
    make = draw(neurons())
    if draw(st.integers(0, 3)) == 0:
        levels = np.random.default_rng(index).uniform(0.5, 1.5, channels).round(2).tolist()
        make = functools.partial(make, v_threshold=tuple(levels))
    return Stage(f"{make.func.__name__}{make.keywords}", lambda x, train, t: make(name=f"neurons_{index}")(x))


def _after(draw: st.DrawFn, space: list[int], channels: int) -> tuple[list[Stage], list[int]]:
    """Pooling and arithmetic of spikes."""
    stages = []
    pool = draw(st.sampled_from(("", "halve", "avg", "max"))) if space else ""
    if pool == "halve":
        stages.append(Stage("halve", lambda x, train, t: bsojax.nn.halve(x)))
        space = [-(-side // 2) for side in space]
    elif pool:
        sides = tuple(draw(st.integers(1, min(3, side))) for side in space)
        function = bsojax.avg_pool if pool == "avg" else bsojax.max_pool
        stages.append(Stage(f"{pool} pool {sides}", lambda x, train, t: function(x, sides)))
        space = [side // part for side, part in zip(space, sides, strict=True)]
    change = draw(st.sampled_from(("", "", "scaled", "centred", "doubled", "shifted", "constants", "dropout")))
    changes = {
        "scaled": lambda x, train, t: x * 0.5,
        "centred": lambda x, train, t: 2 * x - 1,
        "shifted": lambda x, train, t: 0.5 * x + 0.25,
        "doubled": lambda x, train, t: x + x,
        "dropout": lambda x, train, t: bsojax.SpikingDropout(0.5)(x, not train),
        "constants": _between(draw, channels, "spikes").apply,
    }
    return stages + ([Stage(change, changes[change])] if change else []), space


def _readout(draw: st.DrawFn, space: list[int]) -> list[Stage]:
    ends = ["flatten", "reshape"] + (["mean"] if space else [])
    end, kind = draw(st.sampled_from(ends)), draw(st.sampled_from(("Dense", "BinaryDense", "BinaryDense + c", "none")))
    flat = {
        "flatten": lambda x, train, t: bsojax.flatten(x),
        "reshape": lambda x, train, t: x.reshape(x.shape[0], -1),
        "mean": lambda x, train, t: bsojax.global_avg_pool(x),
    }[end]
    constant = np.array([[0.3, -0.4, 0.1]], np.float32)
    read = {
        "Dense": lambda x, train, t: bsojax.Dense(3, name="readout")(x),
        "BinaryDense": lambda x, train, t: bsojax.BinaryDense(3, name="readout", scale=bsojax.rsqrt_fan_in)(x),
        "BinaryDense + c": lambda x, train, t: bsojax.BinaryDense(3, name="readout")(x) + constant,
        "none": lambda x, train, t: x,
    }[kind]
    return [Stage(end, flat), Stage(kind, read)]
