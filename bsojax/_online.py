"""Online training: a scan over the time steps of a sequence, with an update after each."""

import dataclasses
from typing import Any, TypeAlias

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bsojax._arguments import check_backward_steps, check_num_steps
from bsojax._checks import check_logits, is_sequence
from bsojax._compose import checked
from bsojax._flips import all_finite
from bsojax._kinds import check_axis_name, check_bool, check_callable, check_model, check_optimizer
from bsojax._losses import Loss, cross_entropy_mse, mean_loss
from bsojax._model import call_options, infer, resting_neurons, training_neurons
from bsojax._neurons import NEURONS, SPIKE_RATES, without_traces
from bsojax._sharding import check_devices, check_exchange, replicated, varying
from bsojax._signs import check_differentiable, floating_dtype, leaf_name, to_differentiable, to_kernels
from bsojax._state import TrainState, check_optimizer_state, check_train_state, check_variables
from bsojax._step import Step
from bsojax._updates import apply_updates, count_flips
from bsojax._votes import elect

Metrics: TypeAlias = dict[str, Any]

_DEFAULT_LOSS = cross_entropy_mse()


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    loss: Loss = _DEFAULT_LOSS,
    accumulate: bool = False,
    backward_steps: int | None = None,
    axis_name: str | None = None,
    vote: bool = False,
    mesh: Mesh | None = None,
    dtype: chex.ArrayDType = jnp.float32,
) -> Step:
    """Returns ``step(state, x, y) -> (state, metrics)``: online training on one batch, one time step after another.

    Use it as the body of a training loop. Each time step runs the network on one frame, takes the gradient of this
    step's loss through the layers alone, and updates signs and real parameters, so that memory does not grow with
    num_steps. The state is donated: keep only the one returned.

    The step takes x as a static frame of shape ``(batch, ...)``, shown at every time step, or as a sequence of shape
    ``(num_steps, batch, ...)``; y are integer labels of shape ``(batch,)``. Its metrics, of the whole sequence, are:
    "loss" (mean over time), "accuracy" (of the logits' sum over time), "flips" (number of flips, by sign leaf),
    "spikes" (spikes a neuron and time step, by neuron layer) and "skipped" (number of updates skipped because the loss
    or a gradient was not finite, or a label outside the classes: then nothing but the step count changes).

    Args:
      model: a Linen module (see init).
      tx: an optimizer over ``{"signs": ..., "params": ...}``; it is given ``time_step``.
      num_steps: T, the number of time steps of a sequence, >= 1.
      loss: a function of logits and labels, the mean over the batch; it is divided by num_steps.
      accumulate: whether gradients are summed over the sequence for a single update (with time_step 0) at its end.
      backward_steps: K: backpropagate at K of the T time steps only, drawn anew for each batch, and go forward alone at
        the others, which changes no weight there. Use it to trade accuracy for time: a backward pass costs two forward
        passes. None is all of them. Source: Meng et al., SLTT, ICCV 2023 (SLTT-K).
      axis_name: the axis of pmap or shard_map over which the batch is split. Give the model's norms the same name for
        statistics of the global batch; otherwise each device normalises by its own share. None under jit.
      vote: whether the devices of axis_name exchange votes on flips, 2 bits a weight, in the place of the signs'
        gradients, 64 bits. Each device then keeps the momentum of its own share of the batch, and a sign flips where
        more than half of them would flip it (see majority). Real parameters' gradients, loss and statistics are
        averaged as before, and an update that one device must skip is skipped by all. Use it where links are slow, and
        see docs/SCALING.md for what it does to accuracy. The optimizer's state then differs between devices and needs a
        device axis. Under pmap, the simplest, every leaf has one; under shard_map take it off before the step and put
        it back after, and set check_vma=False. With reset_on_flip a device resets what it would flip itself.
      mesh: under jit, the mesh of data_mesh over which the optimizer's state is split (see state_shardings). It keeps
        signs and gradients in full on each device within the loop, so that devices exchange gradients and int8 flips
        and not float32 weights or activations; results stay the same. None where that state is not split.
      dtype: dtype of the activations, and so of membranes and traces.

    Returns:
      A jitted function: it has ``lower``, and may be called inside jit, pmap, shard_map and scan.

    Raises:
      TypeError, ValueError: num_steps < 1, backward_steps outside 1 .. num_steps, vote without axis_name, axis_name
        together with mesh, or a mesh that data_mesh does not make; and at a call, x, y, the model or
        the optimizer do not fit each other. Values (labels, NaN) are checked at each call where x and y lie in host
        memory, else at the first call.
    """
    check_model(model)
    check_optimizer("tx", tx)
    num_steps = check_num_steps(num_steps)
    check_callable("loss", loss)
    check_bool("accumulate", accumulate)
    check_axis_name(axis_name)
    dtype = floating_dtype(dtype)
    check_backward_steps(backward_steps, num_steps)
    check_devices(axis_name, vote, mesh)
    tx = checked(tx)

    def time_step_grads(
        trainable: dict[str, Any],
        batch_stats: Any,
        neurons: Any,
        frame: jax.Array,
        y: jax.Array,
        t: jax.Array,
        backward: jax.Array | None,
    ) -> tuple[jax.Array, tuple[jax.Array, Any, Any, Any], Any]:
        def objective(weights: dict[str, Any]) -> tuple[jax.Array, tuple[jax.Array, Any, Any, Any]]:
            logits, changed = model.apply(
                {**weights, "batch_stats": batch_stats, NEURONS: neurons},
                frame,
                mutable=["batch_stats", NEURONS, SPIKE_RATES],
                **call_options(model, train=True, time_step=t),
            )
            value = mean_loss(loss, logits, y, differentiable=True) / num_steps
            # A label outside the classes has no defined loss; as NaN it is skipped and counted.
            value = jnp.where(jnp.all((y >= 0) & (y < logits.shape[-1])), value, jnp.nan)
            rates = leaf_rates(changed.get(SPIKE_RATES, {}))
            return value, (logits, changed.get("batch_stats", batch_stats), changed.get(NEURONS, neurons), rates)

        if axis_name is not None and not vote:
            # Under shard_map the gradient of a replicated input is already a sum over devices; of a varying one it is
            # each device's own, and the mean below is a mean.
            trainable = varying(trainable, axis_name)
        check_differentiable(trainable, name="state")
        weights = to_differentiable(trainable, dtype)
        value, pull_back, aux = jax.vjp(
            lambda weights: objective(to_kernels(trainable, weights)), weights, has_aux=True
        )
        one = jnp.ones_like(value)
        if backward is None:
            return value, aux, pull_back(one)[0]
        # Gradients of zero where there is no backward pass: the same buffers, whichever way it goes.
        nothing = jax.tree.map(jnp.zeros_like, weights)
        return value, aux, jax.lax.cond(backward, lambda: pull_back(one)[0], lambda: nothing)

    def train_step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, Metrics]:
        check_train_state(state)
        sequence = is_sequence(x, y, state.input_shape, num_steps)
        check_variables(model, state, jax.ShapeDtypeStruct((len(y), *state.input_shape), x.dtype), train=True)
        check_optimizer_state(tx, state)
        x = x.astype(dtype)
        check_exchange(axis_name, vote, x)
        _check_time_steps(tx, state, 1 if accumulate else num_steps)
        mean = (lambda tree: jax.lax.pmean(tree, axis_name)) if axis_name is not None else (lambda tree: tree)

        chosen = None
        if backward_steps is not None and backward_steps < num_steps:
            chosen = chosen_steps(state.step, backward_steps, num_steps)

        def exchanged(grads: Any) -> Any:
            return {**grads, "params": mean(grads["params"])} if vote else mean(grads)

        def frame_at(t: jax.Array) -> jax.Array:
            return x[t] if sequence else x

        def update(carry: dict[str, Any], grads: Any, changes: jax.Array, t: jax.Array) -> None:
            trainable, opt_state = carry["trainable"], carry["opt_state"]
            updates, new_opt_state = tx.update(grads, opt_state, trainable, time_step=t)
            updates = jax.tree.map(lambda u: jnp.where(changes, u, jnp.zeros_like(u)), updates)
            if vote and axis_name is not None:
                updates["signs"] = elect(trainable["signs"], updates["signs"], axis_name)
            carry["trainable"] = replicated(apply_updates(trainable, updates), mesh)
            carry["opt_state"] = optax.tree.where(changes, new_opt_state, opt_state)
            carry["flips"] = optax.tree.add(carry["flips"], count_flips(trainable["signs"], updates["signs"]))

        def body(carry: dict[str, Any], _: None) -> tuple[dict[str, Any], None]:
            t = carry["t"]
            carry = dict(carry, trainable=replicated(carry["trainable"], mesh))
            backward = None if chosen is None else chosen[t]
            value, (logits, batch_stats, neurons, rates), grads = time_step_grads(
                carry["trainable"], carry["batch_stats"], carry["neurons"], frame_at(t), y, t, backward
            )
            value, batch_stats = mean(value), mean(batch_stats)
            grads = replicated(exchanged(grads), mesh)
            finite = all_finite(grads) & jnp.isfinite(value)
            if vote:  # a gradient that is not finite is known to one device, and all must skip
                finite = jax.lax.pmin(finite.astype(jnp.int32), axis_name) > 0
            carry = dict(
                carry,
                t=t + 1,
                batch_stats=optax.tree.where(finite, batch_stats, carry["batch_stats"]),
                neurons=neurons,
                logits=carry["logits"] + logits.astype(jnp.float32),
                loss=carry["loss"] + value,
                spikes=optax.tree.add(carry["spikes"], rates),
            )
            if accumulate:
                carry["grads"] = optax.tree.add(carry["grads"], grads)
                carry["finite"] &= finite
            else:
                update(carry, grads, finite if backward is None else finite & backward, t)
                carry["skipped"] += ~finite
            return carry, None

        carry: dict[str, Any] = {
            "t": jnp.zeros((), jnp.int32),
            "trainable": state.trainable,
            "opt_state": state.opt_state,
            "batch_stats": state.batch_stats,
            "neurons": training_neurons(model, frame_at(jnp.zeros((), jnp.int32))),
            "loss": jnp.zeros(()),
            "skipped": jnp.zeros((), jnp.int32),
            "flips": jax.tree.map(jnp.zeros_like, count_flips(state.signs, state.signs)),
        }
        at_start = (state.trainable, state.batch_stats, carry["neurons"], frame_at(carry["t"]), y, carry["t"], None)
        _, (logits, _, _, rates), grads = jax.eval_shape(time_step_grads, *at_start)
        check_logits(logits, y)
        carry |= {"logits": jnp.zeros(logits.shape), "spikes": _zeros(rates)}
        if axis_name is not None and not vote:
            carry |= varying({key: carry[key] for key in ("logits", "spikes")}, axis_name)
            # Made from the frame, the neurons' state may be marked already, and marking twice is an error; a sum with a
            # marked zero is marked in either case.
            zero = varying(jnp.zeros(()), axis_name)
            carry["neurons"] = jax.tree.map(lambda leaf: leaf + zero.astype(leaf.dtype), carry["neurons"])
        if accumulate:
            carry |= {"grads": _zeros(grads), "finite": jnp.array(True)}
        carry, _ = jax.lax.scan(body, carry, None, length=num_steps)
        if accumulate:
            update(carry, carry["grads"], carry["finite"], jnp.zeros((), jnp.int32))
            carry["skipped"] += ~carry["finite"]
        metrics = {
            "loss": carry["loss"],
            "accuracy": mean(_accuracy(carry["logits"], y)),
            "flips": carry["flips"],
            "spikes": jax.tree.map(lambda rate: rate / num_steps, mean(carry["spikes"])),
            "skipped": carry["skipped"],
        }
        state = dataclasses.replace(
            state,
            **carry["trainable"],
            batch_stats=carry["batch_stats"],
            opt_state=carry["opt_state"],
            step=state.step + 1,
            skipped=state.skipped + carry["skipped"],
        )
        return state, metrics

    return Step(train_step, model, num_steps, donate_argnums=0)


def make_eval_step(model: nn.Module, num_steps: int, *, loss: Loss = _DEFAULT_LOSS) -> Step:
    """Returns ``evaluate(state, x, y) -> {"loss", "accuracy"}`` of one batch; nothing changes.

    Use it with running statistics that are up to date (see refresh_statistics). x and y are as in the training step;
    no traces are kept. The accuracy is that of the logits' sum over time.

    Args:
      model: a Linen module (see init).
      num_steps: the number of time steps, >= 1; it may differ from training if the norms' statistics are shared.
      loss: a function of logits and labels.

    Raises:
      TypeError, ValueError: as make_train_step.
    """
    check_model(model)
    num_steps = check_num_steps(num_steps)
    check_callable("loss", loss)

    def eval_step(state: TrainState, x: jax.Array, y: jax.Array) -> Metrics:
        check_train_state(state)
        sequence = is_sequence(x, y, state.input_shape, num_steps)
        check_variables(model, state, jax.ShapeDtypeStruct((len(y), *state.input_shape), x.dtype), train=False)
        rest = without_traces(resting_neurons(model, x[0] if sequence else x))
        logits = jax.eval_shape(lambda: infer(model, state.variables, rest, x[0] if sequence else x, 0)[0])
        check_logits(logits, y)

        def body(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], None]:
            t, neurons, total, value = carry
            logits, neurons = infer(model, state.variables, neurons, x[t] if sequence else x, t)
            value = value + mean_loss(loss, logits, y, differentiable=False) / num_steps
            return (t + 1, neurons, total + logits, value), None

        start = (jnp.zeros((), jnp.int32), rest, jnp.zeros(logits.shape, logits.dtype), jnp.zeros(()))
        (_, _, total, value), _ = jax.lax.scan(body, start, None, length=num_steps)
        return {"loss": value, "accuracy": _accuracy(total, y)}

    return Step(eval_step, model, num_steps)


def _check_time_steps(tx: optax.GradientTransformationExtraArgs, state: TrainState, num_steps: int) -> None:
    """Lets the optimizer refuse the last time step as a plain int; in the scan it is traced and cannot be refused."""

    def last_update(trainable: Any, opt_state: Any) -> Any:
        grads = to_differentiable(trainable, jnp.float32)
        return tx.update(grads, opt_state, trainable, time_step=num_steps - 1)

    jax.eval_shape(last_update, state.trainable, state.opt_state)


def chosen_steps(step: jax.Array, backward_steps: int, num_steps: int) -> jax.Array:
    """Returns at which time steps the batch of this number backpropagates: boolean of shape ``(num_steps,)``."""
    return jax.random.permutation(jax.random.fold_in(jax.random.key(0), step), num_steps) < backward_steps


def _accuracy(logits: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.mean(jnp.argmax(logits, -1) == y, dtype=jnp.float32)


def leaf_rates(rates: Any) -> dict[str, jax.Array]:
    """Returns the sown spike rates by the name of the neuron layer."""
    return {leaf_name(path[:-1]): rate for path, rate in jax.tree_util.tree_leaves_with_path(rates)}


def _zeros(shapes: Any) -> Any:
    # Not zeros_like: the shapes carry shard_map's marks, and zeros_like copies them.
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
