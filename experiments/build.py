"""From a config and its data to a run that is ready to start: network, optimizer, compiled step, devices."""

import dataclasses
import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

import bsojax
from bsojax.signs import count_signs, is_packed, leaf_name
from experiments import epochs
from experiments.config import Config
from experiments.data import DataSet
from experiments.epochs import Epochs
from experiments.front_ends.sequences import Padded
from experiments.networks import TRACES, make_model
from experiments.rivals import ThroughTimeLIF, make_bptt_step
from experiments.running.devices import Devices, find_devices
from experiments.running.events import check_installed


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to start: everything that could be wrong has been checked.

    Attributes:
      config: its settings.
      data: its data; evaluations use its test part.
      model: the network.
      state: the initial state; the first chunk donates it.
      step: a function of state, key and a stored batch: front end and training in one compiled step.
      epochs: that step over the training split.
      evaluate: a function of state and a stored batch: metrics, and over how many examples they are averaged.
      devices: where it runs; the state lies there.
    """

    config: Config
    data: DataSet
    model: Any
    state: bsojax.TrainState
    step: Any
    epochs: Epochs
    evaluate: Any
    devices: Devices

    @property
    def batches(self) -> int:
        """Batches per epoch."""
        return len(self.data.train) // self.config.batch_size

    @property
    def num_signs(self) -> int:
        """The number of binary weights."""
        return count_signs(self.state.signs)

    @property
    def leaf_sizes(self) -> dict[str, int]:
        """The number of binary weights of each leaf, by name."""
        leaves = jax.tree_util.tree_leaves_with_path(self.state.signs, is_leaf=is_packed)
        return {leaf_name(path): math.prod(leaf.shape) for path, leaf in leaves}

    @property
    def frame(self) -> jax.ShapeDtypeStruct:
        """The shape of what the network sees of a training batch at one time step."""
        return frame_of(self.config, self.data)

    @property
    def facts(self) -> dict[str, Any]:
        """What a resumed run must find unchanged in the data, as JSON values."""
        example = self.data.train.example
        counts = {"training examples": len(self.data.train), "evaluation examples": len(self.data.test)}
        return {**counts, "example shape": list(example.shape), "example dtype": np.dtype(example.dtype).name}


def prepare(config: Config, data: DataSet) -> Run:
    """Builds a run.

    Raises:
      FileNotFoundError: there is no network to start from.
      ValueError: a setting is out of range, the batch is larger than the data set, or cannot be split over the devices,
        or the network to start from is another one.
      ImportError: a package that the settings need is missing.
    """
    config.check()
    if config.session.tensorboard:
        check_installed()
    data = _chosen(config, data)
    if config.batch_size > len(data.train):
        raise ValueError(
            f"--batch-size: {config.batch_size} is larger than the {len(data.train)} training examples of "
            f"'{config.dataset}'."
        )
    if config.evaluations > len(data.train) // config.batch_size:
        raise ValueError(f"--evaluations: {config.evaluations} per epoch are more than its batches.")
    if config.rule().through_time and isinstance(_seen(data, config.batch_size), Padded):
        raise ValueError(f"--optimizer: '{config.optimizer}' does not accept padded sequences; choose an online rule.")
    devices = find_devices(config.session, config.batch_size)
    model = make_model(config, data.num_classes, make_neuron(config))
    tx = make_optimizer(config, count_updates(config, data))
    state = bsojax.init(model, tx, jax.random.key(config.seed), frame_of(config, data))
    if config.start is not None:
        state = _started_from(config.start, model, state)
    if config.packed:
        state = dataclasses.replace(state, signs=bsojax.pack_signs(state.signs))
    shardings = devices.shardings(state, config.session.split_optimizer)
    state = devices.place(state, shardings)
    online = make_step(config, model, tx, devices.mesh if config.session.split_optimizer else None)
    judge = bsojax.make_eval_step(model, config.num_steps)

    placed: dict[str, Any] = {} if shardings is None else {"out_shardings": (shardings, None)}

    @functools.partial(jax.jit, donate_argnums=0, **placed)
    def step(state: bsojax.TrainState, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return called(online, state, data.front_end.train(key, devices.split(x)), devices.split(y))

    @jax.jit
    def evaluate(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> Any:
        seen = data.front_end.evaluate(x)
        examples = jnp.sum(jnp.any(seen.mask, 0)) if isinstance(seen, Padded) else len(y)
        return called(judge, state, seen, y), examples

    way = epochs.make_epochs(step, data.train, config.batch_size, devices, shardings)
    return Run(config, data, model, state, step, way, evaluate, devices)


def count_updates(config: Config, data: DataSet) -> int:
    """Returns how often a run calls its optimizer; for padded sequences, the expected number.

    Nothing is updated after a batch's longest sequence ends: schedules that counted padding would not reach their end.
    """
    count, size = len(data.train), config.batch_size
    if not isinstance(_seen(data, size), Padded):
        return config.epochs * (count // size) * config.updates_per_batch
    there = jax.jit(lambda x: jnp.sum(data.front_end.evaluate(x).mask, 1))
    counts = sum(np.asarray(there(x), int) for x, _ in data.train.batches(size))  # of each time step
    # A batch is drawn without repetition: the chance that it holds none of the examples that are there at a time step.
    missed = [math.comb(count - int(left), size) / math.comb(count, size) for left in np.atleast_1d(counts)]
    return round(config.epochs * (count // size) * (len(missed) - sum(missed)))


def make_optimizer(config: Config, updates: int) -> optax.GradientTransformationExtraArgs:
    """Returns the optimizer of a config, whose schedules end after this many updates."""
    rule = config.rule()
    never = bsojax.bso(threshold=math.inf)
    flip = never if config.frozen else rule.flip_optimizer(updates, config.num_steps, config.seed)
    real = optax.sgd(optax.cosine_decay_schedule(config.learning_rate, updates))
    return bsojax.split_optimizer(flip=flip, real=real)


def make_neuron(config: Config) -> Callable[..., nn.Module]:
    """Returns what makes the neurons that the config's rule needs."""
    rule = config.rule()
    return (
        ThroughTimeLIF if rule.through_time else functools.partial(bsojax.LIF, trace=TRACES[config.trace or rule.trace])
    )


def make_step(
    config: Config, model: nn.Module, tx: optax.GradientTransformation, mesh: Mesh | None = None
) -> Callable[..., Any]:
    """Returns the training step of a config, on the devices of a mesh or on one."""
    if config.rule().through_time:
        return make_bptt_step(model, tx, config.num_steps)
    return bsojax.make_train_step(model, tx, config.num_steps, backward_steps=config.backward_steps, mesh=mesh)


def called(step: Callable[..., Any], state: bsojax.TrainState, seen: Any, y: jax.Array) -> Any:
    """Calls a step with what a front end gives: frames, or padded sequences and their mask."""
    return step(state, seen.x, y, mask=seen.mask) if isinstance(seen, Padded) else step(state, seen, y)


def _started_from(path: Path, model: nn.Module, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the signs, real parameters and statistics of a saved network."""
    if not path.is_file():
        raise FileNotFoundError(f"--start: there is no model at {path}.")
    try:
        saved = bsojax.load_model(path, model, input_shape=state.input_shape)
    except ValueError as error:
        raise ValueError(f"--start: {error}") from error
    return dataclasses.replace(state, **saved.variables)


def _chosen(config: Config, data: DataSet) -> DataSet:
    """The data set with at most as many training examples as the config gives."""
    if config.train_examples is None or config.train_examples >= len(data.train):
        return data
    order = np.random.default_rng(2026).permutation(len(data.train))
    return dataclasses.replace(data, train=data.train.take(np.sort(order[: config.train_examples])))


def frame_of(config: Config, data: DataSet) -> jax.ShapeDtypeStruct:
    """Returns the shape of what the network of a config sees of a training batch at one time step."""
    sizes = (config.batch_size, config.batch_size + 1)
    one, other = (seen.x if isinstance(seen, Padded) else seen for seen in (_seen(data, size) for size in sizes))
    # Of one more example a static frame has a longer first axis; where time comes first, that axis stays.
    return jax.ShapeDtypeStruct(one.shape[one.shape[0] == other.shape[0] :], one.dtype)


def _seen(data: DataSet, size: int) -> Any:
    """The shapes of a front end's output for a batch of this many examples."""
    example = data.train.example
    stored = jax.ShapeDtypeStruct((size, *example.shape), example.dtype)
    return jax.eval_shape(data.front_end.evaluate, stored)
