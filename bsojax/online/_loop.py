"""Online training: a scan over the time steps of a sequence, with an update after each."""

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from bsojax import _validate
from bsojax.online._exchange import Exchange, exchange_of
from bsojax.online._losses import PAPER_LOSS, Loss, accuracy, within_classes
from bsojax.online._model import start
from bsojax.online._schedule import BackwardAtAll, Learner, UpdateAtEach, UpdateAtEnd, backward_of
from bsojax.online._state import TrainState, check_state
from bsojax.online._step import Seen, Step
from bsojax.online._time_step import time_step
from bsojax.optim import all_finite, check_time_steps, guarded_update
from bsojax.signs import apply_updates, count_flips, differentiable

Metrics: TypeAlias = dict[str, Any]


def make_train_step(
    model: nn.Module,
    tx: optax.GradientTransformation,
    num_steps: int,
    *,
    loss: Loss = PAPER_LOSS,
    accumulate: bool = False,
    backward_steps: int | None = None,
    axis_name: str | None = None,
    vote: bool = False,
    mesh: Mesh | None = None,
    exchange: Exchange | None = None,
    dtype: chex.ArrayDType = jnp.float32,
) -> Step:
    """Returns ``step(state, x, y) -> (state, metrics)``: online training on one batch, one time step after another.

    Use it as the body of a training loop. Each time step runs the network on one frame, takes the gradient of this
    step's loss through the layers alone, and updates signs and real parameters, so that memory does not grow with
    num_steps. The state is donated: keep only the one returned. A loop of your own is written with
    ``bsojax.online.time_step``.

    The step takes x as a static frame of shape ``(batch, ...)``, shown at every time step, or as a sequence of shape
    ``(num_steps, batch, ...)``; y are integer labels of shape ``(batch,)``. Its metrics, of the whole sequence, are:
    "loss" (mean over time), "accuracy" (of the logits' sum over time), "flips" (number of flips, by sign leaf),
    "spikes" (spikes a neuron and time step, by neuron layer) and "skipped" (number of updates skipped because the loss
    or a gradient was not finite, or a label outside the classes). A skipped update changes nothing but counts: of
    batches, of skipped updates, and the flip optimizer's own of its calls.

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
      exchange: what the devices exchange, as an object; axis_name, vote and mesh are short forms of those there are.
      dtype: dtype of the activations, and so of membranes and traces.

    Returns:
      A jitted function: it has ``lower``, and may be called inside jit, pmap, shard_map and scan.

    Raises:
      TypeError: num_steps is no int; at a call, x is not floating or y not integer.
      ValueError: num_steps < 1, backward_steps outside 1 .. num_steps, vote without axis_name, axis_name together with
        mesh, or one of these with exchange; and at a call, x, y, the state, the model and the optimizer do not fit each
        other. Labels outside the classes and inputs that are not finite are refused where x and y are NumPy arrays, and
        skipped elsewhere.
    """
    exchange = exchange_of(axis_name, vote, mesh, exchange)
    num_steps = _validate.steps(num_steps)
    when = UpdateAtEnd() if accumulate else UpdateAtEach()
    loop = OnlineLoop(
        model, tx, num_steps, loss, when, backward_of(backward_steps, num_steps), exchange, jnp.dtype(dtype), Seen()
    )
    return Step(loop.train, loop.seen, num_steps, donate_argnums=0)


class Sums(NamedTuple):
    """What is summed over the time steps.

    Attributes:
      loss: a scalar.
      logits: float32 of shape ``(batch, classes)``.
      spikes: spike rates by neuron layer.
    """

    loss: jax.Array
    logits: jax.Array
    spikes: dict[str, jax.Array]


class Carry(NamedTuple):
    """What goes from one time step to the next.

    Attributes:
      t: int32, the time step.
      learner: what updates change.
      pending: gradients that wait for the end of the sequence.
      batch_stats: running statistics.
      neurons: the state of the neurons.
      sums: of metrics.
    """

    t: jax.Array
    learner: Learner
    pending: Any
    batch_stats: Any
    neurons: Any
    sums: Sums


@dataclasses.dataclass(frozen=True)
class OnlineLoop:
    """The training of one sequence; attributes as the arguments of make_train_step, those of modes as objects."""

    model: nn.Module
    tx: optax.GradientTransformation
    num_steps: int
    loss: Loss
    when: UpdateAtEach
    backward: BackwardAtAll
    exchange: Exchange
    dtype: Any
    seen: Seen

    def train(self, state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, Metrics]:
        """One training step."""
        sequence = _validate.batch(x, y, state.input_shape, self.num_steps)
        x, y = x.astype(self.dtype), y.astype(jnp.int32)
        self.exchange.check(x)
        check_time_steps(state.opt_state, self.when.count(self.num_steps))
        choice = self.backward.choose(state.step, self.num_steps)
        first = self.first_carry(state, x[0] if sequence else x, y)

        def body(carry: Carry, _: None) -> tuple[Carry, None]:
            frame = x[carry.t] if sequence else x
            return self.advance(carry, frame, y, self.backward.at(choice, carry.t)), None

        carry, _ = jax.lax.scan(body, first, None, length=self.num_steps)
        learner = self.when.at_end(self.learn, carry.learner, carry.pending)
        metrics = {
            "loss": carry.sums.loss,
            "accuracy": self.exchange.mean(accuracy(carry.sums.logits, y)),
            "flips": learner.flips,
            "spikes": jax.tree.map(lambda rate: rate / self.num_steps, self.exchange.mean(carry.sums.spikes)),
            "skipped": learner.skipped,
        }
        state = dataclasses.replace(
            state,
            **learner.trainable,
            batch_stats=carry.batch_stats,
            opt_state=learner.opt_state,
            step=state.step + 1,
            skipped=state.skipped + learner.skipped,
        )
        return state, metrics

    def first_carry(self, state: TrainState, frame: jax.Array, y: jax.Array) -> Carry:
        """What goes into the first time step; refuses a state or a model that does not fit."""
        begun = start(self.model, frame, self.num_steps, train=True)
        _validate.logits(begun.logits, y)
        check_state(state, begun.variables, self.tx)
        self.seen.num_classes = begun.logits.shape[-1]
        zero = jnp.zeros((), jnp.int32)
        flips = jax.tree.map(jnp.zeros_like, count_flips(state.signs, state.signs))
        logits = jnp.zeros(begun.logits.shape)
        spikes = {name: jnp.zeros(rate.shape, rate.dtype) for name, rate in begun.spike_rates.items()}
        logits, spikes, neurons = self.exchange.varying((logits, spikes, begun.neurons))
        return Carry(
            t=zero,
            learner=Learner(state.trainable, state.opt_state, flips, zero),
            pending=self.when.nothing_pending(differentiable(state.trainable, self.dtype)[0]),
            batch_stats=state.batch_stats,
            neurons=neurons,
            sums=Sums(jnp.zeros(()), logits, spikes),
        )

    def advance(self, carry: Carry, frame: jax.Array, y: jax.Array, backward: jax.Array | None) -> Carry:
        """One time step."""
        learner = carry.learner._replace(trainable=self.exchange.place(carry.learner.trainable))
        loss, grads, out = time_step(
            self.model,
            self.step_loss,
            self.exchange.replicas(learner.trainable),
            carry.batch_stats,
            carry.neurons,
            frame,
            y,
            carry.t,
            dtype=self.dtype,
            backward=backward,
        )
        loss, batch_stats = self.exchange.mean((loss, out.batch_stats))
        grads = self.exchange.gradients(grads)
        finite = self.exchange.agreed(all_finite(grads) & jnp.isfinite(loss))
        learner, pending = self.when.at_step(self.learn, learner, carry.pending, grads, finite, backward, carry.t)
        sums = Sums(
            carry.sums.loss + loss,
            carry.sums.logits + out.logits.astype(jnp.float32),
            optax.tree.add(carry.sums.spikes, out.spike_rates),
        )
        batch_stats = optax.tree.where(finite, batch_stats, carry.batch_stats)
        return Carry(carry.t + 1, learner, pending, batch_stats, out.neurons, sums)

    def step_loss(self, logits: jax.Array, y: jax.Array) -> jax.Array:
        """The loss of one time step, its share of the sequence's."""
        loss = self.loss(logits, y)
        _validate.loss(loss)
        return within_classes(loss, logits, y) / self.num_steps

    def learn(
        self, learner: Learner, grads: Any, finite: jax.Array, backward: jax.Array | None, t: jax.Array
    ) -> Learner:
        """One update."""
        trainable, skipped = learner.trainable, ~finite
        updates, opt_state = guarded_update(self.tx, grads, learner.opt_state, trainable, finite, time_step=t)
        if backward is not None:
            updates = jax.tree.map(lambda update: jnp.where(backward, update, jnp.zeros_like(update)), updates)
            opt_state, skipped = optax.tree.where(backward, opt_state, learner.opt_state), skipped & backward
        updates = {**updates, "signs": self.exchange.updates(trainable["signs"], updates["signs"])}
        flips = optax.tree.add(learner.flips, count_flips(trainable["signs"], updates["signs"]))
        trainable = self.exchange.place(apply_updates(trainable, updates))
        return Learner(trainable, opt_state, flips, learner.skipped + skipped)
