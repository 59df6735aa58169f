"""What would be silently wrong is refused, naming the argument, leaf or layer, and no array is changed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from fuzzing import Case, fuzz, is_refused, must_be_refused, outside, user_arrays
from hypothesis import strategies as st

import bsojax

T = 2
KEY = jax.random.key(0)
IMAGE = jnp.ones((2, 6, 6, 3))
X = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 2, 2, 1)
Y = np.arange(4) % 3
SIGNS = {"kernel": jnp.arange(6).reshape(3, 2) % 2 == 0}
GRADS = {"kernel": jnp.linspace(-1, 1, 6).reshape(3, 2)}
MODEL = bsojax.models.SpikingMLP(features=(3, 3), num_classes=3)


def optimizer(flip):
    return bsojax.split_optimizer(flip, optax.sgd(0.1, momentum=0.9))


@functools.cache
def made(flip="t_bso", features=(3, 3)):
    """A state of this flip optimizer and network."""
    flips = {
        "t_bso": bsojax.t_bso(0.1, T),
        "bso": bsojax.bso(0.1),
        "more time steps": bsojax.t_bso(0.1, T + 1),
        "int8": bsojax.t_bso(0.1, T, momentum_dtype="int8"),
        "debias": bsojax.t_bso(0.1, T, debias=True),
    }
    model = dataclasses.replace(MODEL, features=features)
    return bsojax.init(model, optimizer(flips[flip]), KEY, X)


STATE = made()
STEP = bsojax.make_train_step(MODEL, optimizer(bsojax.t_bso(0.1, T)), T)
EVALUATE = bsojax.make_eval_step(MODEL, T)
each_step = st.sampled_from([STEP, EVALUATE])


def of_flips(tx):
    return Case(tx.update, (GRADS, tx.init(SIGNS), SIGNS), ("kernel",))


def wrong_update(dtype, packed):
    signs = bsojax.pack_signs(SIGNS) if packed else SIGNS
    dtype = jnp.int8 if packed and dtype == jnp.uint8 else dtype
    updates = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, dtype), signs)
    return Case(bsojax.apply_updates, (signs, updates), ("kernel",))


def of_model(name, value, make):
    """A module that is made with the value, and looked at as it is traced."""
    return Case(lambda value: jax.eval_shape(make(value).init, KEY, jnp.ones((2, 3))), (value,), (name,))


def of_image(name, value, make):
    """As of_model, for layers of images."""
    return Case(lambda value: jax.eval_shape(make(value).init, KEY, IMAGE), (value,), (name,))


def of_call(name, value, call):
    return Case(call, (value,), (name,))


def batch(step, x, y, *names):
    return Case(step, (STATE, x, y), names or ("x", "y"))


def replaced(array, place, value):
    array = array.copy()
    array.flat[place] = value
    return array


no_deltas = st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16, jnp.bool_, jnp.int16, jnp.int32, jnp.uint8])
no_time_step = st.integers(-(2**31), 2**31 - 1).filter(lambda t: not 0 <= t < T)
integers = st.sampled_from([int, np.int64, jnp.int32])
shapes = st.lists(st.integers(1, 5), max_size=5).map(tuple).filter(lambda s: s not in (X.shape, (T, *X.shape)))
sizes = st.lists(st.integers(0, 9), min_size=1, max_size=2).map(tuple)
norms = st.sampled_from([bsojax.BatchNorm, bsojax.BatchRenorm])
flips = st.sampled_from([bsojax.bso, functools.partial(bsojax.t_bso, num_steps=T)])
surrogates = st.sampled_from([bsojax.atan, bsojax.piecewise_quadratic, bsojax.rectangle, bsojax.erf, bsojax.softsign,
                              bsojax.sigmoid])  # fmt: skip
neurons = st.sampled_from([bsojax.LIF, bsojax.IF, bsojax.PLIF, bsojax.ALIF, bsojax.CubaLIF])
convolutions = st.sampled_from([bsojax.BinaryConv, bsojax.Conv, bsojax.BinaryConvTranspose, bsojax.BinarySeparableConv])
cross_entropy = bsojax.losses.cross_entropy
accumulators = st.sampled_from([optax.trace(0.9), optax.ema(0.9), optax.scale_by_adam(), optax.adam(0.1)])
after = st.sampled_from([optax.scale(0.5), optax.ema(0.9), optax.clip(1.0), optax.add_decayed_weights(0.1)])
not_finite = st.sampled_from([np.nan, np.inf, -np.inf])
sequences = st.sampled_from([X, np.stack([X] * T)])

SILENT = {
    "an update that is no int8 delta": st.builds(wrong_update, no_deltas, st.booleans()),
    "a transform after the flips": st.builds(
        lambda make, last: of_flips(bsojax.checked(optax.chain(make(0.1), last))), flips, after
    ),
    "accumulators made from booleans": st.builds(
        lambda make, first: of_flips(bsojax.checked(optax.chain(first, make(0.1)))), flips, accumulators
    ),
    "numbers that became booleans": st.builds(
        lambda threshold, b1: Case(
            optax.inject_hyperparams(bsojax.bso)(threshold, b1).init, (SIGNS,), ("threshold", "b1")
        ),
        st.floats(0, 1), st.floats(0, 0.9),
    ),
    "labels outside the classes": st.builds(
        lambda step, place, label: batch(step, X, replaced(Y, place, label), "y"),
        each_step, st.integers(0, 3), st.integers(-(2**31), 2**31 - 1).filter(lambda label: not 0 <= label < 3),
    ),
    "a state of another model or optimizer": st.builds(
        lambda state: Case(STEP, (state, X, Y), ("state",)),
        st.sampled_from([made(features=(3, 4)), made(features=(4, 3))]
                        + [made(flip) for flip in ("bso", "more time steps", "int8", "debias")]),
    ),
    "a time step outside the sequence": st.one_of(
        st.builds(lambda kind, t: of_call("time_step", kind(t), lambda t: bsojax.t_bso(0.1, T).update(
            GRADS, bsojax.t_bso(0.1, T).init(SIGNS), SIGNS, time_step=t)), integers, no_time_step),
        st.builds(lambda kind, t: of_call("time_step", t, lambda t: kind(T).init(
            KEY, jnp.ones((2, 3)), True, t)), norms, st.one_of(no_time_step, st.none())),
        st.just(of_call("time_step", X, lambda x: MODEL.clone(
            norm=functools.partial(bsojax.BatchNorm, num_steps=T)).init(KEY, x, True))),
    ),
    "a batch of another shape": st.builds(lambda step, s: batch(step, np.zeros(s, np.float32), Y), each_step, shapes),
    "a batch of another dtype": st.builds(
        lambda step, dtype: batch(step, X.astype(dtype), Y, "x"), each_step, st.sampled_from(["uint8", "int64", "bool"])
    ),
    "labels of another shape or dtype": st.builds(
        lambda step, y: batch(step, X, y), each_step,
        st.sampled_from([Y[:3], Y[:0], Y[None], np.eye(4, dtype=int), Y.astype(np.float32), Y > 1]),
    ),
    "a batch on the host that is not finite": st.builds(
        lambda step, x, place, value: batch(step, replaced(x, place, value), Y, "x"),
        each_step, sequences, st.integers(0, 15), not_finite,
    ),
    "bytes that do not fit their shape": st.builds(
        lambda size, dtype: Case(
            bsojax.unpack_signs, ({"kernel": bsojax.PackedSigns(jnp.zeros(size, dtype), (3, 5))},), ("packed", "kernel")
        ),
        sizes.filter(lambda size: size != (2,)), st.sampled_from([jnp.uint8, jnp.int32]),
    ),
    "threshold": st.builds(lambda make, v: of_call("threshold", v, make), flips, outside(0, np.inf)),
    "b1": st.builds(lambda make, v: of_call("b1", v, lambda b1: make(0.1, b1=b1)), flips,
                    outside(0, 1, open_above=True)),
    "b1 of a threshold": outside(0, 1, open_above=True).map(lambda v: of_call("b1", v, bsojax.noise_threshold)),
    "b2": outside(0, 1, open_above=True).map(
        lambda v: of_call("b2", v, lambda b2: bsojax.t_bso(0.1, T, b2=b2))
    ),
    "strides and dilation": st.builds(
        lambda kind, name, v: of_image(name, v, lambda v: kind(2, (3, 3), **{name: v})),
        convolutions, st.sampled_from(["strides", "kernel_dilation"]),
        st.one_of(st.integers(-9, 0), st.floats(0.1, 5), st.tuples(st.just(1), st.floats(0.1, 5))),
    ),
    "padding": st.builds(
        lambda kind, v: of_image("padding", v, lambda v: kind(2, (3, 3), padding=v)),
        convolutions, st.sampled_from([((0.5, 1), (1, 1)), (0.5, 1), (1, 1, 1), (1,)]),
    ),
    "a kernel that leaves nothing": st.builds(
        lambda kind, v: of_image("kernel_size", v, lambda v: kind(2, v, padding="VALID")),
        st.sampled_from([bsojax.BinaryConv, bsojax.BinarySeparableConv]),
        st.sampled_from([(0, 3), (3, 0), (9, 1), (1, 9), (9, 9)]),
    ),
    "an image of other dimensions than the kernel": st.builds(
        lambda kind, size: of_image("x", size, lambda size: kind(2, size)),
        convolutions, st.sampled_from([(3,), (3, 3, 3), ()]),
    ),
    "a window": st.builds(
        lambda pool, window: Case(pool, (IMAGE, window), ("window",)),
        st.sampled_from([bsojax.avg_pool, bsojax.max_pool]),
        st.one_of(st.integers(-9, 0), st.integers(7, 99), st.sampled_from([(2,), (2, 2, 2), (0, 2), (7, 1)])),
    ),
    "an image without space": st.builds(
        lambda pool: Case(pool, (jnp.ones((2, 3)),), ("x",)),
        st.sampled_from([bsojax.global_avg_pool, lambda x: bsojax.avg_pool(x, 2), lambda x: bsojax.max_pool(x, 2)]),
    ),
    "tau": outside(1, np.inf).map(lambda v: of_model("tau", v, lambda tau: bsojax.LIF(tau=tau))),
    "constants of neurons of more kinds": st.builds(
        lambda kind_name, v: of_model(kind_name[1], v, lambda v: kind_name[0](**{kind_name[1]: v})),
        st.sampled_from([(bsojax.PLIF, "tau"), (bsojax.ALIF, "tau"), (bsojax.ALIF, "tau_adaptation"),
                         (bsojax.CubaLIF, "tau"), (bsojax.CubaLIF, "tau_synapse"), (bsojax.LeakyReadout, "tau")]),
        outside(1, np.inf),
    ),
    "v_reset": st.builds(
        lambda kind, v: of_model("v_reset", v, lambda v: kind(v_reset=v)), neurons,
        st.sampled_from([np.nan, np.inf, -np.inf, (0.0, np.nan, 0.0)]),
    ),
    "refractory_steps": st.builds(
        lambda kind, v: of_model("refractory_steps", v, lambda v: kind(refractory_steps=v)),
        st.sampled_from([bsojax.LIF, bsojax.IF]), st.one_of(st.integers(-9, -1), st.integers(256, 999), st.floats()),
    ),
    "rate": st.one_of(outside(0, 1), st.just(1.0)).map(lambda v: of_model("rate", v, bsojax.SpikingDropout)),
    "unscaled values that are to be spikes": st.builds(
        lambda encode, value: Case(encode, (np.array([0.0, value], np.float32),), ("x",)),
        st.sampled_from([lambda x: bsojax.encoders.rate(KEY, x, T), lambda x: bsojax.encoders.rate_step(KEY, x),
                         lambda x: bsojax.encoders.latency(x, T)]),
        st.one_of(st.floats(max_value=0, exclude_max=True, width=32), st.floats(1, exclude_min=True, width=32)),
    ),
    "centres and widths": st.sampled_from(
        [((1.0, 1.0), None), ((np.nan, 1.0), None), ((1.0,), None), ((0.0, 1.0), 0.0), ((0.0, 1.0), np.nan)]
    ).map(lambda case: Case(bsojax.encoders.population, (np.ones((1, 2), np.float32), *case), ("centres", "width"))),
    "settings of losses and metrics": st.sampled_from(
        [("k", bsojax.losses.top_k, 0), ("k", bsojax.losses.top_k, 1.5), ("k", bsojax.losses.top_k, -1)]
        + [("label", lambda v: bsojax.losses.ignoring(cross_entropy, v), v) for v in (0.5, np.nan)]
        + [("weight", lambda v: bsojax.losses.with_spike_rate(cross_entropy, v), v) for v in (np.nan, -np.inf)]
        + [("target", lambda v: bsojax.losses.with_spike_rate(cross_entropy, 0.1, v), v) for v in (-1, 1.1, np.nan)]
        + [("weight", lambda v: bsojax.losses.with_sown(cross_entropy, v), v) for v in (np.nan, np.inf)]
    ).map(lambda case: of_call(case[0], case[2], case[1])),
    "targets that would be broadcast": st.builds(
        lambda loss, y: Case(loss, (jnp.ones((4, 3)), y), ("y",)),
        st.sampled_from([cross_entropy, bsojax.losses.mean_squared_error, bsojax.losses.binary_cross_entropy]),
        st.sampled_from([jnp.asarray(Y[:1]), jnp.asarray(Y[:, None]), jnp.ones((4, 1)), jnp.ones((1, 3))]),
    ),
    "sequences and states that are not the model's": st.builds(
        lambda call, names, arguments: Case(lambda *a: call(MODEL, *a), arguments, names),
        st.sampled_from([bsojax.predict, bsojax.record]),
        st.just(("state", "x", "num_steps")),
        st.sampled_from([(STATE, X[:, :1], T), (STATE, X[:0], T), (STATE, np.stack([X] * (T + 1)), T), (STATE, X, 0),
                         (STATE, X > 0, T), (made(features=(3, 4)), X, T)]),
    ),
    "targets of each time step": st.builds(
        lambda step, y: batch(step, X, bsojax.PerStep(y), "y"), each_step,
        st.sampled_from([Y, np.stack([Y] * T).T, np.stack([Y] * (T + 1)), np.stack([Y[:3]] * T)]),
    ),
    "v_threshold": st.builds(lambda kind, v: of_model("v_threshold", v, lambda v: kind(v_threshold=v)), neurons,
                             st.one_of(outside(0, np.inf), st.just(0.0), st.just(np.inf))),
    "num_steps": st.builds(
        lambda make, v: of_call("num_steps", v, make),
        st.sampled_from([
            lambda t: bsojax.t_bso(0.1, t), lambda t: bsojax.make_eval_step(MODEL, t),
            lambda t: bsojax.make_train_step(MODEL, optimizer(bsojax.bso(0.1)), t),
            lambda t: bsojax.refresh_statistics(MODEL, STATE, [X], t),
        ]),
        st.integers(max_value=0),
    ),
    "mse_weight": outside(0, 1).map(lambda v: of_call("mse_weight", v, bsojax.cross_entropy_mse)),
    "alpha": st.builds(lambda kind, v: of_call("alpha", v, kind), surrogates,
                       st.one_of(outside(0, np.inf), st.sampled_from([0.0, np.inf]))),
}  # fmt: skip


@pytest.mark.parametrize("wrong", SILENT)
def test_what_would_be_silently_wrong_is_refused_by_name(wrong):
    fuzz(SILENT[wrong], 20, must_be_refused)


def test_the_same_calls_work_where_nothing_is_wrong():
    for step in (STEP, EVALUATE):
        assert not is_refused(Case(lambda *batch, step=step: step(jax.tree.map(jnp.copy, STATE), *batch), (X, Y), ()))


def test_arrays_of_a_user_train_or_are_named():
    def check(case):
        step, x, y = case
        return is_refused(batch(step, x, y))

    copied = lambda state, x, y: STEP(jax.tree.map(jnp.copy, state), x, y)  # noqa: E731
    calls = st.sampled_from([copied, EVALUATE, lambda _, x, y: bsojax.check_data(x, y, 3)])
    either = st.one_of(st.tuples(user_arrays(), st.just(Y)), st.tuples(st.just(X), user_arrays()))
    outcomes = fuzz(st.builds(lambda call, xy: (call, *xy), calls, either), 80, check)
    assert 20 < sum(outcomes) < len(outcomes)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_batch_on_the_device_that_is_not_finite_is_skipped_and_counted(bad):
    # Traced, as arrays on an accelerator are.
    state, metrics = jax.jit(STEP)(STATE, replaced(X, 5, bad), Y)
    assert int(state.skipped) == int(metrics["skipped"]) > 0
    for name in ("signs", "params", "batch_stats"):
        jax.tree.map(np.testing.assert_array_equal, getattr(state, name), getattr(STATE, name))
