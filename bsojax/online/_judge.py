"""The losses and metrics of a batch: which examples and time steps count, with what weights, summed over time."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsojax import _validate
from bsojax._validate import leaf_name
from bsojax.losses import Around, AtLast, Ignoring, Loss, Metric, accuracy, per_example, takes
from bsojax.nn import Spikes
from bsojax.online._batch import Batch, along
from bsojax.online._model import LOSSES, Forward, Start

Metrics = dict[str, Any]


class Seen:
    """What tracing a step has revealed.

    Attributes:
      traced: whether the step has been traced with class labels.
      num_classes: the number of classes where targets are class labels; None means that only the loss knows.
    """

    traced: bool = False
    num_classes: int | None = None


class Weights(NamedTuple):
    """The examples and time steps that a loss uses, if it does not use all of them equally.

    Attributes:
      steps: float32 of shape ``(T, batch)``: the share of each example and time step in the loss; the shares sum to one
        or, with several devices, to one on average.
      examples: float32 of shape ``(batch,)``: the sums of these over time.
      means: float32 of shape ``(T, batch)``: the share of each time step in its example.
      any: whether the loss uses anything, on all devices together.
    """

    steps: jax.Array
    examples: jax.Array
    means: jax.Array
    any: jax.Array


class Tally(NamedTuple):
    """The sums over the time steps.

    Attributes:
      loss: a scalar.
      outputs: float32 tree like the model's outputs: their mean over the time steps that the loss uses (without
        weights, their sum).
      total: the sum over all time steps that count, for losses that take it; otherwise empty.
      metrics: by name, where targets are per time step; otherwise empty.
    """

    loss: jax.Array
    outputs: Any
    total: Any
    metrics: Metrics


@dataclasses.dataclass(frozen=True)
class Judge:
    """The losses and metrics of a batch.

    Attributes:
      loss: the user's loss.
      metrics: the user's metrics by name; None means the accuracy, where targets are class labels.
      batch: the batch.
      weights: the examples and time steps that the loss uses; None means all.
      learns: whether the loss is differentiated.
    """

    loss: Loss
    metrics: Mapping[str, Metric] | None
    batch: Batch
    weights: Weights | None
    learns: bool = False

    def chosen(self, outputs: Any) -> Mapping[str, Metric]:
        """Returns the metrics for a model's outputs, by name."""
        if self.metrics is not None:
            return self.metrics
        return {"accuracy": accuracy} if self.batch.has_labels and _is_array(outputs) else {}

    def check(self, begun: Start, seen: Seen) -> None:
        """Refuses a model whose outputs do not fit the batch, and losses that the model sows but nothing uses."""
        if self.batch.has_labels and (_is_array(begun.logits) or isinstance(begun.logits, Spikes)):
            _validate.class_logits(begun.logits, self.batch.size)
        if self.batch.has_labels:
            seen.traced, seen.num_classes = True, _num_classes(begun.logits)
        _validate.outputs(begun.logits, self.batch.size)
        sown = jax.tree_util.tree_leaves_with_path(begun.variables.get(LOSSES, {}))
        _validate.sown_losses([leaf_name(path) for path, _ in sown], "sown" in takes(self.loss))

    def looks(self) -> jax.Array | None:
        """Returns which time steps the loss uses, boolean of shape ``(T,)``; None means all."""
        return None if self.weights is None else jnp.any(self.weights.steps > 0, 1)

    def start(self, outputs: Any) -> Tally:
        """Returns the tally before the first time step, with arrays like the model's outputs."""
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), outputs)
        metrics: Metrics = {}
        if self.batch.per_step and self.chosen(zeros):
            shapes = jax.eval_shape(lambda: self._averages(zeros, self.batch.target(0), self._step_weights(0)))
            metrics = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return Tally(jnp.zeros(()), zeros, zeros if "total" in takes(self.loss) else (), metrics)

    def loss_at(self, out: Forward, y: Any, total: Any, t: jax.Array) -> jax.Array:
        """Returns the share of a time step in the loss: a scalar with a gradient."""
        seen = {"time_step": t, "spike_rates": out.spike_rates, "sown": out.sown}
        if "total" in takes(self.loss):
            seen["total"] = jax.tree.map(lambda sum_, leaf: sum_ + leaf, total, self._counted(out.logits, t))
        seen = {name: seen[name] for name in takes(self.loss)}
        steps, labels = self.batch.num_steps, self.batch.has_labels
        if self.weights is None:
            value = self.loss(out.logits, y, **seen)
            _validate.loss_value(value, self.batch.size, self.learns)
            value = value if jnp.ndim(value) == 0 else jnp.mean(value)
            return (_within_classes(value, out.logits, y) if labels else value) / steps
        value = per_example(self.loss)(out.logits, y, **seen)
        _validate.loss_value(value, self.batch.size, self.learns)
        weights = self.weights.steps[t]
        value = _weighted(value, weights, "loss")
        return _within_classes(value, out.logits, y, weights > 0) if labels else value

    def add(self, tally: Tally, out: Forward, loss: jax.Array, t: jax.Array) -> Tally:
        """Returns the tally after a time step."""
        logits = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), out.logits)
        total = tally.total
        if "total" in takes(self.loss):
            total = optax.tree.add(total, self._counted(logits, t))
        share, weights = logits, self._step_weights(t)
        if self.weights is not None:
            means = self.weights.means[t]
            share = jax.tree.map(lambda leaf: along(means, leaf) * leaf, logits)
        metrics = tally.metrics
        if self.batch.per_step and self.chosen(logits):
            metrics = optax.tree.add(metrics, self._averages(logits, self.batch.target(t), weights))
        return Tally(tally.loss + loss, optax.tree.add(tally.outputs, share), total, metrics)

    def results(self, tally: Tally) -> Metrics:
        """Returns the loss and the metrics of the batch; NaN, rather than a plausible zero, where nothing counts."""
        results = {"loss": tally.loss, **self._metrics(tally)}
        if self.weights is None:
            return results
        some = self.weights.any
        counted: Metrics = jax.tree.map(lambda leaf: jnp.where(some, leaf, jnp.nan), results)
        return counted

    def _metrics(self, tally: Tally) -> Metrics:
        if self.batch.per_step:
            steps = 1 if self.weights is not None else self.batch.num_steps
            means: Metrics = jax.tree.map(lambda leaf: leaf / steps, tally.metrics)
            return means
        outputs, weights = tally.outputs, None if self.weights is None else self.weights.examples
        if weights is None:
            outputs = jax.tree.map(lambda leaf: leaf / self.batch.num_steps, outputs)
        # Any time step will do: targets are the same at each, and are not blanked where examples count.
        return self._averages(outputs, self._targets(), weights)

    def _targets(self) -> Any:
        return jax.tree.map(lambda leaf: leaf.astype(jnp.int32) if self.batch.has_labels else leaf, self.batch.y)

    def _averages(self, outputs: Any, y: Any, weights: jax.Array | None) -> Metrics:
        found = {name: metric(outputs, y) for name, metric in self.chosen(outputs).items()}
        return {name: _average(name, value, weights, self.batch.size) for name, value in found.items()}

    def _step_weights(self, t: int | jax.Array) -> jax.Array | None:
        return None if self.weights is None else self.weights.steps[t]

    def _counted(self, outputs: Any, t: int | jax.Array) -> Any:
        counted = self.batch.counted(t)
        if counted is None:
            return outputs
        return jax.tree.map(lambda leaf: jnp.where(along(counted, leaf), leaf, 0), outputs)


def weights_of(loss: Loss, batch: Batch, mean: Callable[[Any], Any] = lambda tree: tree) -> Weights | None:
    """Returns what a loss uses of a batch: what the mask counts, less ignored labels, at all steps or only the last.

    An example's loss is the mean over its own time steps; a batch's loss is the mean over the examples that have any.

    Args:
      loss: the user's loss.
      batch: the batch.
      mean: the mean over the devices that share the batch.
    """
    layers = list(_layers(loss))
    last = any(isinstance(layer, AtLast) for layer in layers)
    if batch.mask is None and not last and not any(isinstance(layer, Ignoring) for layer in layers):
        return None
    looks = jnp.ones((batch.num_steps, batch.size), bool) if batch.mask is None else batch.mask
    if last:
        looks = looks & (jnp.cumsum(looks[::-1], 0)[::-1] == 1)
    counted = counted_labels(loss, batch)
    looks = looks if counted is None else looks & jnp.broadcast_to(counted, looks.shape)
    lengths = jnp.sum(looks, 0)
    examples = mean(jnp.sum(lengths > 0).astype(jnp.float32))
    means = looks / jnp.maximum(lengths, 1).astype(jnp.float32)[None]
    share = (lengths > 0) / jnp.where(examples > 0, examples, 1)
    return Weights(means * share[None], share, means, examples > 0)


def counted_labels(loss: Loss, batch: Batch) -> jax.Array | None:
    """Returns which labels a loss does not ignore, of the labels' shape; None if it ignores none."""
    counted = None
    for layer in _layers(loss):
        if isinstance(layer, Ignoring):
            counted = layer.counted(batch.y) if counted is None else counted & layer.counted(batch.y)
    return counted


def _layers(loss: Any) -> Any:
    while isinstance(loss, Around):
        yield loss
        loss = loss.loss


def _weighted(value: jax.Array, weights: jax.Array, name: str) -> jax.Array:
    """Returns the weighted sum over examples of each example's mean."""
    _validate.weighted_loss(name, value)
    each = jnp.mean(value.reshape(len(value), -1), -1)
    # For an example without weight the value may be anything: it must not reach the sum, nor its gradient.
    return jnp.sum(jnp.where(weights > 0, each, 0) * weights)


def _average(name: str, value: Any, weights: jax.Array | None, size: int) -> jax.Array:
    """Returns the mean over examples of a metric, which may have further axes."""
    value = jnp.asarray(value)
    _validate.metric_value(name, value, size)
    if weights is None:
        return value if value.ndim == 0 else jnp.mean(value, 0, dtype=jnp.float32)
    _validate.weighted_loss(f"metrics: '{name}'", value)
    weights = along(weights, value)
    return jnp.sum(jnp.where(weights > 0, value, 0) * weights, 0)


def _within_classes(loss: jax.Array, logits: Any, y: jax.Array, counted: jax.Array | None = None) -> jax.Array:
    """Returns a loss that is NaN where a label is outside the classes: it has no defined value, and NaN is skipped."""
    classes = _num_classes(logits)
    if classes is None:
        return loss
    good = (y >= 0) & (y < classes)
    return jnp.where(jnp.all(good if counted is None else good | ~counted), loss, jnp.nan)


def _num_classes(outputs: Any) -> int | None:
    """Returns the number of classes of the labels; None where heads differ and only the loss knows."""
    shapes = {jnp.shape(leaf) for leaf in jax.tree.leaves(outputs)}
    return shapes.pop()[-1] if len(shapes) == 1 and len(next(iter(shapes))) == 2 else None


def _is_array(outputs: Any) -> bool:
    return jax.tree_util.treedef_is_leaf(jax.tree.structure(outputs))
