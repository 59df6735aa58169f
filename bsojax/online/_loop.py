"""Online training: a scan over the time steps of a sequence, with an update after each."""

import dataclasses
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from bsojax.losses import Loss, Metric
from bsojax.online._batch import Batch, batch_of, folded
from bsojax.online._exchange import Exchange
from bsojax.online._judge import Judge, Metrics, Seen, Tally, weights_of
from bsojax.online._model import Forward, neuron_batch_axes, start
from bsojax.online._schedule import BackwardAtAll, Found, Learner, UpdateAtEach
from bsojax.online._state import TrainState, check_state
from bsojax.online._time_step import time_step
from bsojax.online._walk import LEARNING, handed_on, waiting
from bsojax.optim import all_finite, check_time_steps, guarded_update
from bsojax.signs import apply_updates, count_flips, differentiable


class Carry(NamedTuple):
    """What passes from one time step to the next.

    Attributes:
      t: int32, the time step.
      learner: what updates change.
      pending: gradients that wait for the end of the sequence.
      batch_stats: running statistics.
      neurons: the state of the neurons.
      tally: the tally of losses and metrics.
      spikes: sums of spike rates, by neuron layer.
    """

    t: jax.Array
    learner: Learner
    pending: Any
    batch_stats: Any
    neurons: Any
    tally: Tally
    spikes: dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class OnlineLoop:
    """The training of a sequence; attributes are the arguments of make_train_step, with modes given as objects."""

    model: nn.Module
    tx: optax.GradientTransformation
    num_steps: int
    loss: Loss
    metrics: Mapping[str, Metric] | None
    when: UpdateAtEach
    backward: BackwardAtAll
    exchange: Exchange
    dtype: Any
    seen: Seen

    def train(
        self, state: TrainState, x: Any, y: Any, *, mask: Any = None, rngs: Any = None, neurons: Any = None
    ) -> tuple[TrainState, Metrics]:
        """One training step."""
        batch = batch_of(x, y, mask, state.input_shape, self.num_steps)
        batch = dataclasses.replace(batch, x=jax.tree.map(lambda leaf: leaf.astype(self.dtype), batch.x))
        jax.tree.map(self.exchange.check, batch.x)
        check_time_steps(state.opt_state, self.when.count(batch.num_steps))
        judge = Judge(self.loss, self.metrics, batch, weights_of(self.loss, batch, self.exchange.mean), learns=True)
        rngs = None if rngs is None else self.exchange.keys(folded(rngs, state.step))
        looks = judge.looks()
        used = None if looks is None else self.exchange.mean(looks.astype(jnp.float32)) > 0  # by any device
        backward = self.backward.choose(state.step, batch.num_steps, used)
        first = self.first_carry(state, judge, neurons)
        axes = None
        if batch.mask is not None:
            axes = neuron_batch_axes(self.model, batch.frame(0), batch.num_steps, train=True, form=LEARNING)
        sequence = Sequence(self, judge, axes, rngs, backward, shares_of(batch, self.exchange))
        carry, _ = jax.lax.scan(lambda carry, _: (sequence.advance(carry), None), first, None, length=batch.num_steps)
        learner = self.when.at_end(self.learn, carry.learner, carry.pending)
        results = judge.results(carry.tally)
        metrics = {
            "loss": results.pop("loss"),
            **self.exchange.mean(results),
            "flips": learner.flips,
            "spikes": jax.tree.map(sequence.mean_rate, self.exchange.mean(carry.spikes)),
            "skipped": learner.skipped,
        }
        if neurons is not None:
            metrics["neurons"] = carry.neurons
        state = dataclasses.replace(
            state,
            **learner.trainable,
            batch_stats=carry.batch_stats,
            opt_state=learner.opt_state,
            step=state.step + 1,
            skipped=state.skipped + learner.skipped,
        )
        return state, metrics

    def first_carry(self, state: TrainState, judge: Judge, neurons: Any) -> Carry:
        """The carry of the first time step; refuses a state or a model that does not fit."""
        begun = start(self.model, judge.batch.frame(0), judge.batch.num_steps, train=True)
        judge.check(begun, self.seen)
        check_state(state, begun.variables, self.tx)
        zero = jnp.zeros((), jnp.int32)
        flips = jax.tree.map(jnp.zeros_like, count_flips(state.signs, state.signs))
        spikes = {name: jnp.zeros(rate.shape, rate.dtype) for name, rate in begun.spike_rates.items()}
        neurons = begun.neurons if neurons is None else handed_on(neurons, begun.neurons)
        tally = judge.start(begun.logits)
        sums, spikes, neurons = self.exchange.varying((tally[1:], spikes, neurons))
        return Carry(
            t=zero,
            learner=Learner(state.trainable, state.opt_state, flips, zero),
            pending=self.when.nothing_pending(differentiable(state.trainable, self.dtype)[0]),
            batch_stats=state.batch_stats,
            neurons=neurons,
            tally=Tally(tally.loss, *sums),
            spikes=spikes,
        )

    def learn(self, learner: Learner, found: Found) -> Learner:
        """One update."""
        trainable, skipped, backward = learner.trainable, ~found.finite, found.backward
        known = {"time_step": found.t, "value": found.loss, "grad": found.grads}
        updates, opt_state = guarded_update(self.tx, found.grads, learner.opt_state, trainable, found.finite, **known)
        opt_state = self.exchange.deployed(learner.opt_state, opt_state)
        if backward is not None:
            updates = jax.tree.map(lambda update: jnp.where(backward, update, jnp.zeros_like(update)), updates)
            opt_state, skipped = optax.tree.where(backward, opt_state, learner.opt_state), skipped & backward
        updates = {**updates, "signs": self.exchange.updates(trainable["signs"], updates["signs"])}
        flips = optax.tree.add(learner.flips, count_flips(trainable["signs"], updates["signs"]))
        trainable = self.exchange.place(apply_updates(trainable, updates))
        return Learner(trainable, opt_state, flips, learner.skipped + skipped)


@dataclasses.dataclass(frozen=True)
class Sequence:
    """What stays the same from one time step of a sequence to the next.

    Attributes:
      loop: the training.
      judge: the losses and metrics of the batch.
      axes: the batch axes of the neurons' state; None means that all examples count.
      rngs: random keys of the sequence.
      backward: at which time steps to backpropagate and update, boolean of shape ``(T,)``; None means all.
      shares: each time step's share of the examples that count, float32 of shape ``(T,)``; None means that all count.
    """

    loop: OnlineLoop
    judge: Judge
    axes: Any
    rngs: Any
    backward: jax.Array | None
    shares: jax.Array | None

    def advance(self, carry: Carry) -> Carry:
        """One time step."""
        loop, exchange, batch, t = self.loop, self.loop.exchange, self.judge.batch, carry.t
        learner = carry.learner._replace(trainable=exchange.place(carry.learner.trainable))
        backward, out = None if self.backward is None else self.backward[t], None

        def loss_of(outputs: Any, y: Any, *, spike_rates: Any, sown: Any, time_step: Any) -> jax.Array:
            seen = Forward(outputs, None, None, spike_rates, sown)
            return self.judge.loss_at(seen, y, carry.tally.total, time_step)

        loss, grads, out = time_step(
            loop.model,
            loss_of,
            exchange.replicas(learner.trainable),
            carry.batch_stats,
            carry.neurons,
            batch.frame(t),
            batch.target(t),
            t,
            dtype=loop.dtype,
            backward=backward,
            counted=batch.counted(t),
            rngs=self.rngs,
        )
        loss, batch_stats = exchange.mean((loss, out.batch_stats))
        grads = exchange.gradients(grads)
        finite = exchange.agreed(all_finite(grads) & jnp.isfinite(loss))
        learner, pending = loop.when.at_step(
            loop.learn, learner, carry.pending, Found(grads, loss, finite, backward, t)
        )
        follows = finite if self.shares is None else finite & (exchange.mean(self.shares[t]) > 0)
        rates = out.spike_rates
        if self.shares is not None:
            share = self.shares[t]
            rates = jax.tree.map(lambda rate: rate * share, rates)
        return Carry(
            t + 1,
            learner,
            pending,
            optax.tree.where(follows, batch_stats, carry.batch_stats),
            waiting(batch, t, out.neurons, carry.neurons, self.axes),
            self.judge.add(carry.tally, out, loss, t),
            optax.tree.add(carry.spikes, rates),
        )

    def mean_rate(self, total: jax.Array) -> jax.Array:
        """Returns the mean over time of a sum of spike rates."""
        return total / self.judge.batch.num_steps if self.shares is None else total


def shares_of(batch: Batch, exchange: Exchange) -> jax.Array | None:
    """Returns each time step's share of the examples that count; with several devices, this device's part of it."""
    if batch.mask is None:
        return None
    counts = jnp.sum(batch.mask, 1).astype(jnp.float32)
    total = exchange.mean(jnp.sum(counts))
    return counts / jnp.where(total > 0, total, 1)
