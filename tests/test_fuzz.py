"""Every public callable with one argument replaced by something else: it works, or names the argument, and no more."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fuzzing import Row, anything, arguments_of, array, arrays, fresh, fuzz, refused, replaced, things, trees
from hypothesis import strategies as st

import bsojax
from bsojax._geometry import conv_geometry

T = 2
KEY = jax.random.key(0)
X = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 2, 2, 1)
Y = np.arange(4) % 3
SIGNS = {"kernel": jnp.arange(6).reshape(3, 2) % 2 == 0}
GRADS = {"kernel": jnp.linspace(-1, 1, 6).reshape(3, 2)}
BOTH = {"signs": SIGNS, "params": {"bias": jnp.zeros(2)}}
BOTH_GRADS = {"signs": GRADS, "params": {"bias": jnp.ones(2)}}
MODEL = bsojax.models.SpikingMLP(features=(3, 3), num_classes=3)
BSO = bsojax.bso(0.1)
T_BSO = bsojax.t_bso(0.1, T)
TX = bsojax.split_optimizer(T_BSO, optax.sgd(0.1, momentum=0.9))
STATE = bsojax.init(MODEL, TX, KEY, X)
STEP = bsojax.make_train_step(MODEL, TX, T)
EVALUATE = bsojax.make_eval_step(MODEL, T)
RMS = bsojax.scale_by_channel_rms()


def shapes_of(module: type, *call: str) -> Callable[..., Any]:
    """Makes a module of the arguments but those named, calls it with those; traced alone."""

    def run(**arguments: Any) -> None:
        inputs = [arguments.pop(name) for name in call]
        jax.eval_shape(lambda: module(**arguments).init(KEY, *inputs))

    return run


def module(kind: type, valid: dict[str, Any], examples: int = 25, call: tuple[str, ...] = ("x",), **bad: Any) -> Row:
    also = {
        name: ("x", "kernel_size", "fan_in", "current")
        for name in valid
        if name in ("x", "kernel_size", "padding", "scale")
    }
    strategies = dict.fromkeys(valid, anything) | {"x": array} | bad
    return Row(shapes_of(kind, *call), valid, {name: strategies[name] for name in valid}, examples, also)


def every(valid: dict[str, Any], **bad: Any) -> dict[str, st.SearchStrategy]:
    return {name: bad.get(name, anything) for name in valid}


def row(call: Callable[..., Any], examples: int = 25, also: Any = None, bad: Any = None, **valid: Any) -> Row:
    return Row(call, valid, every(valid, **(bad or {})), examples, also or {})


def returned(public: Any, argument: str, call: Callable[..., Any], valid: Any, examples: int = 25) -> Row:
    """What the function returns that a user gives for an argument."""
    use = lambda **values: call(lambda *_: values[argument])  # noqa: E731
    return Row(use, {argument: valid}, {argument: array}, examples, documented_in=public)


UPDATE = (GRADS, BSO.init(SIGNS), SIGNS)
T_UPDATE = (GRADS, T_BSO.init(SIGNS), SIGNS)
IMAGE, CURRENT = jnp.ones((2, 4, 4, 2)), jnp.ones((2, 3))
CONV = {
    "features": 2, "kernel_size": (3, 3), "strides": 1, "padding": "SAME", "kernel_dilation": 1,
    "feature_group_count": 1, "x": IMAGE,
}  # fmt: skip
sides = st.one_of(anything, st.tuples(anything, anything), st.just(((1, 1), (1, 2))), st.just(((1, "a"), (1, 2))))
CONV_BAD = {"kernel_size": sides, "strides": sides, "padding": sides, "kernel_dilation": sides}
NETWORK = {"num_classes": 3, "neuron": bsojax.LIF, "norm": bsojax.BatchNorm, "scale": bsojax.unit_scale, "x": IMAGE}
several = st.one_of(anything, st.lists(anything, max_size=3))
functions = st.one_of(things.filter(lambda value: not callable(value)), st.text(max_size=3))
NETWORK_BAD = {"neuron": functions, "norm": functions, "scale": functions}
signs, grads = trees("kernel"), trees("kernel")
both = trees("signs", "params")
real_grads = st.one_of(both, st.builds(lambda tree: {**BOTH_GRADS, "signs": tree}, grads))
FLIP = {
    "threshold": 0.1,
    "b1": 0.9,
    "reset_on_flip": False,
    "update_dtype": "int8",
    "momentum_dtype": "int8",
    "seed": 0,
}
# A schedule is any function of the count.
FLIP_BAD = {"threshold": functions, "b1": functions, "update_dtype": st.one_of(functions, st.just("int32"))}
labels = st.one_of(st.just(Y + 1), st.just(Y - 1), st.just(Y[:3]), st.just(np.eye(4, dtype=int)), array)
inputs = st.one_of(st.just(np.where(X > 0.5, np.nan, X)), st.just(X[:3]), st.just(X.astype(int)), array)
states = replaced(STATE, st.one_of(anything, arrays(), trees("dense_1", "dense_0")))
STATE_NAMES = {"state": ("x", "y"), "x": ("y",), "y": ("x",)}

ROWS: dict[str, Row] = {
    "bso": row(bsojax.bso, 40, bad=FLIP_BAD, **FLIP),
    "bso.init": row(BSO.init, 25, {"signs": ("packed",)}, {"signs": signs}, signs=SIGNS),
    "bso.update": row(
        BSO.update, 60, {"params": ("signs", "packed", "grads", "state")},
        {"grads": grads, "state": replaced(BSO.init(SIGNS), trees("kernel")), "params": signs},
        grads=GRADS, state=BSO.init(SIGNS), params=SIGNS,
    ),
    "t_bso": row(
        bsojax.t_bso, 50, bad=FLIP_BAD, num_steps=T, b2=0.9, eps=1e-20, debias=False, **FLIP
    ),
    "t_bso.init": row(T_BSO.init, 25, {"signs": ("packed",)}, {"signs": signs}, signs=SIGNS),
    "t_bso.update": row(
        T_BSO.update, 80, {"params": ("signs", "packed", "grads", "state")},
        {"grads": grads, "state": replaced(T_BSO.init(SIGNS), trees("kernel")), "params": signs},
        grads=GRADS, state=T_BSO.init(SIGNS), params=SIGNS, time_step=0,
    ),
    "noise_threshold": row(bsojax.noise_threshold, bad={"b1": functions}, b1=0.9, c=0.5),
    "split_optimizer": row(bsojax.split_optimizer, flip=BSO, real=optax.sgd(0.1)),
    "split_optimizer.init": row(
        TX.init, 40, {"params": ("signs", "packed")}, {"params": both}, params=BOTH
    ),
    "split_optimizer.update": row(
        TX.update, 60, {"params": ("signs", "packed", "grads", "updates", "state"), "updates": ("grads",)},
        {"updates": real_grads, "params": both},
        updates=BOTH_GRADS, state=TX.init(BOTH), params=BOTH, time_step=0,
    ),
    "checked": row(bsojax.checked, inner=BSO),
    "on_weights": row(bsojax.on_weights, inner=optax.ema(0.9)),
    "scale_by_channel_rms": row(
        RMS.update, 25, bad={"updates": grads}, updates=GRADS, state=optax.EmptyState()
    ),
    "init": row(bsojax.init, 40, bad={"x": array}, model=MODEL, tx=TX, key=KEY, x=X, packed=False),
    "make_train_step": row(
        bsojax.make_train_step, 60, {"mesh": ("axis_name",), "axis_name": ("vote",), "vote": ("axis_name",)},
        {"loss": functions}, model=MODEL, tx=TX, num_steps=T, loss=bsojax.cross_entropy_mse(), accumulate=False,
        backward_steps=None, axis_name=None, vote=False, mesh=None, dtype="float32",
    ),
    "train step": row(
        STEP, 90, STATE_NAMES, {"state": states, "x": inputs, "y": labels}, state=STATE, x=X, y=Y
    ),
    "make_eval_step": row(
        bsojax.make_eval_step, bad={"loss": functions}, model=MODEL, num_steps=T, loss=bsojax.cross_entropy_mse()
    ),
    "eval step": row(
        EVALUATE, 50, STATE_NAMES, {"state": states, "x": inputs, "y": labels}, state=STATE, x=X, y=Y
    ),
    "refresh_statistics": row(
        bsojax.refresh_statistics, 40, {"batches": ("x",), "state": ("x",)},
        {"state": states, "batches": st.one_of(anything, st.lists(inputs, min_size=1, max_size=2))},
        model=MODEL, state=STATE, batches=[X], num_steps=T,
    ),
    "apply_updates": row(
        bsojax.apply_updates, 40, {"params": ("updates",)},
        {"params": signs, "updates": grads}, params=SIGNS, updates={"kernel": jnp.zeros((3, 2), jnp.int8)},
    ),
    "pack_signs": row(bsojax.pack_signs, 10, bad={"signs": signs}, signs=SIGNS),
    "unpack_signs": row(bsojax.unpack_signs, 25, bad={"packed": signs}, packed=bsojax.pack_signs(SIGNS)),
    "to_signs": row(bsojax.to_signs, bad={"weights": grads}, weights=GRADS),
    "to_weights": row(bsojax.to_weights, 25, {"signs": ("packed",)}, {"signs": signs}, signs=SIGNS, dtype="float32"),
    "value_and_grad": row(
        lambda signs, **arguments: bsojax.value_and_grad(**arguments)(signs), 40,
        {"signs": ("argument 0", "packed"), "has_aux": ("fun",)},
        {"signs": signs.filter(lambda tree: bool(jax.tree.leaves(tree))), "fun": functions},
        fun=lambda tree: sum(jnp.sum(leaf).real for leaf in jax.tree.leaves(tree)),
        signs=SIGNS, argnums=0, has_aux=False, dtype="float32",
    ),
    "cross_entropy_mse": row(
        lambda logits, labels, **weight: bsojax.cross_entropy_mse(**weight)(logits, labels), 25,
        {"logits": ("labels",)}, {"logits": array, "labels": array}, mse_weight=0.5, logits=jnp.ones((4, 3)), labels=Y,
    ),
    "check_data": row(bsojax.check_data, 40, STATE_NAMES | {"num_classes": ("y",)}, {"x": inputs, "y": labels},
        x=X, y=Y, num_classes=3, name=""),
    "memory_report": row(
        bsojax.memory_report, 40, {"step": ("x",), "x": ("y",), "y": ("x",)}, {"state": states, "x": inputs},
        state=STATE, model=MODEL, x=X,
    ),
    "summarize": row(bsojax.summarize, bad={"x": array}, model=MODEL, x=X, spikes=None),
    "data_mesh": row(bsojax.data_mesh, 25, bad={"devices": several}, devices=jax.devices()[:1]),
    "state_shardings": row(
        bsojax.state_shardings, 40, bad={"state": states},
        state=STATE, mesh=bsojax.data_mesh(jax.devices()[:1]), split_optimizer=True,
    ),
    "majority": row(
        lambda flips, axis_name: jax.vmap(lambda _: bsojax.majority(flips, axis_name), axis_name="i")(jnp.zeros(2)),
        25, bad={"flips": signs}, flips=SIGNS, axis_name="i",
    ),
    "avg_pool": row(bsojax.avg_pool, 40, {"x": ("window",)}, {"x": array, "window": sides}, x=IMAGE, window=2),
    "global_avg_pool": row(bsojax.global_avg_pool, bad={"x": array}, x=IMAGE),
    "flatten": row(bsojax.flatten, bad={"x": array}, x=IMAGE),
    "unit_scale": row(bsojax.unit_scale, 10, fan_in=3),
    "rsqrt_fan_in": row(bsojax.rsqrt_fan_in, 15, fan_in=3),
    "dense": row(
        bsojax.dense, 25, {"kernel": ("x",)}, {"x": array, "kernel": array}, x=CURRENT, kernel=jnp.ones((3, 2))
    ),
    "conv": row(
        bsojax.conv, 25, {"kernel": ("x",)}, {"x": array, "kernel": array},
        x=IMAGE, kernel=jnp.ones((3, 3, 2, 2)), geometry=conv_geometry(IMAGE.shape, (3, 3)),
    ),
    "TraceRule": row(bsojax.TraceRule, bad={"factor": functions}, factor=lambda inputs: 0.5, keeps_spike=False),
    "Surrogate": row(bsojax.Surrogate, bad={"derivative": functions}, derivative=lambda x, alpha: x, alpha=1.0),
    "what a schedule returns": returned(bsojax.bso, "threshold", lambda at: bsojax.bso(at).update(*UPDATE), 0.1),
    "what a schedule of b1 returns": returned(
        bsojax.t_bso, "b1", lambda at: bsojax.t_bso(bsojax.noise_threshold(at), T, at).update(*T_UPDATE), 0.9
    ),
    "what a loss returns": returned(
        bsojax.make_train_step, "loss", lambda loss: bsojax.make_train_step(MODEL, TX, T, loss=loss).lower(STATE, X, Y),
        0.5, 15,
    ),
    "what a loss returns in evaluation": returned(
        bsojax.make_eval_step, "loss", lambda loss: bsojax.make_eval_step(MODEL, T, loss=loss).lower(STATE, X, Y),
        0.5, 15,
    ),
    "what a trace's factor returns": returned(
        bsojax.TraceRule, "trace",
        lambda factor: shapes_of(bsojax.LIF, "current")(trace=bsojax.TraceRule(factor), current=CURRENT), 0.5,
    ),
    "what a surrogate's derivative returns": returned(
        bsojax.Surrogate, "derivative", lambda derivative: bsojax.Surrogate(derivative, 1.0).gradient(CURRENT), 0.5,
    ),
    "what a function to differentiate returns": returned(
        bsojax.value_and_grad, "fun", lambda fun: bsojax.value_and_grad(fun)(SIGNS), 0.5
    ),
    "what a scale returns": returned(
        bsojax.BinaryDense, "scale",
        lambda scale: shapes_of(bsojax.BinaryDense, "x")(features=2, scale=scale, x=CURRENT), 0.5,
    ),
    "BinaryDense": module(
        bsojax.BinaryDense, {"features": 2, "scale": bsojax.unit_scale, "x": CURRENT}, 40, scale=functions
    ),
    "Dense": module(
        bsojax.Dense,
        {"features": 2, "use_bias": True, "kernel_init": jax.nn.initializers.ones, "x": CURRENT},
        40,
        kernel_init=functions,
    ),
    "BinaryConv": module(bsojax.BinaryConv, CONV, 50, **CONV_BAD),
    "Conv": module(bsojax.Conv, CONV, 50, **CONV_BAD),
    "LIF": module(
        bsojax.LIF,
        {
            "tau": 2.0, "v_threshold": 1.0, "v_reset": None, "trace": bsojax.ottt, "surrogate": bsojax.erf(),
            "decay_input": False, "current": CURRENT,
        },
        60,
        ("current",),
        current=array,
    ),
    "IF": module(
        bsojax.IF,
        {"v_threshold": 1.0, "v_reset": 0.0, "trace": bsojax.ndot, "surrogate": bsojax.atan(), "current": CURRENT},
        40, ("current",), current=array,
    ),
    "BatchNorm": module(
        bsojax.BatchNorm,
        {
            "num_steps": T, "momentum": 0.9, "epsilon": 1e-5, "axis_name": None, "x": CURRENT, "train": True,
            "time_step": 0,
        },
        60,
        ("x", "train", "time_step"),
    ),
    "BatchRenorm": module(
        bsojax.BatchRenorm, {"num_steps": T, "epsilon": 1e-5, "x": CURRENT, "train": True, "time_step": 0}, 40,
        ("x", "train", "time_step"),
    ),
    "Affine": module(bsojax.Affine, {"x": CURRENT}),
    "SpikingMLP": module(
        bsojax.models.SpikingMLP, {"features": (3,), "binary_ends": True, **NETWORK}, 40, features=several,
        **NETWORK_BAD,
    ),
    "SpikingVGG": module(
        bsojax.models.SpikingVGG, {"channels": (2, "M", 2), "binary_ends": False, **NETWORK}, 40, channels=several,
        **NETWORK_BAD,
    ),
    "SpikingResNet": module(
        bsojax.models.SpikingResNet,
        {"stages": (1,), "width": 2, "stem": bsojax.models.cifar_stem, **NETWORK},
        40,
        stages=several,
        stem=functions,
        **NETWORK_BAD,
    ),
}  # fmt: skip
for surrogate in (
    bsojax.atan,
    bsojax.piecewise_quadratic,
    bsojax.rectangle,
    bsojax.erf,
    bsojax.softsign,
    bsojax.sigmoid,
):
    ROWS[surrogate.__name__] = dataclasses.replace(
        row(lambda alpha, kind=surrogate: kind(alpha)(jnp.zeros(2)), 10, alpha=1.0), documented_in=bsojax.Surrogate
    )
for name, owner in {
    "train step": "make_train_step",
    "eval step": "make_eval_step",
    "IF": "LIF",
    "BatchRenorm": "BatchNorm",
}.items():
    ROWS[name] = dataclasses.replace(ROWS[name], documented_in=getattr(bsojax, owner))
# These let pass whatever is no sign, and the last any state, as it has none.
for name in ("pack_signs", "unpack_signs", "to_weights", "scale_by_channel_rms"):
    ROWS[name] = dataclasses.replace(ROWS[name], share=0.0)


def documentation_of(name: str) -> str:
    """The docstring of a row's callable."""
    owner = name.partition(".")[0]
    public = ROWS[name].documented_in or getattr(bsojax, owner, None) or getattr(bsojax.models, owner)
    return public.__doc__


@pytest.mark.parametrize("name", ROWS)
def test_a_bad_argument_is_named_or_works(name):
    row = ROWS[name]
    row.call(**fresh(row.valid))
    fuzz(arguments_of(row), row.examples, lambda *case: refused(row, documentation_of(name), *case), row.share)


def test_there_are_at_least_a_thousand_cases():
    assert sum(row.examples for row in ROWS.values()) >= 1_000
