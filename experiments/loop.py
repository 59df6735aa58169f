"""The training loop: epochs in chunks of batches, with a record at every evaluation."""

import dataclasses
import functools
import itertools
import time
from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

import bsojax
from bsojax._flips import all_finite
from bsojax._packing import sign_counts
from experiments import epochs, rules
from experiments.config import Config
from experiments.data import DataSet, Split
from experiments.epochs import Advance, Chunk, Epochs
from experiments.networks import make_model
from experiments.running.devices import Devices, find_devices
from experiments.running.events import check_installed
from experiments.running.progress import Progress, Streak, joined, record_of
from experiments.running.stop import Stopped
from experiments.saved_model import started_from

STATISTICS_BATCHES = 20
"""Training batches over which the norms' statistics are re-estimated before an evaluation."""

EVALUATION_BATCH = 500
"""Examples of an evaluation batch, at most."""

OnChunk = Callable[[Chunk], None]
OnRecord = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that is ready to start: everything that can be wrong has been checked.

    Attributes:
      config: its settings.
      data: its data; its test part is what evaluations look at.
      model: the network.
      state: the initial state; the first chunk donates it.
      step: a function of state, key and a stored batch: front end and training in one compiled step.
      epochs: that step over the training split.
      evaluate: a function of state and a stored batch.
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
        """Batches an epoch."""
        return len(self.data.train) // self.config.batch_size

    @property
    def num_signs(self) -> int:
        """The number of binary weights."""
        return sum(sign_counts(self.state.signs))

    @property
    def frame(self) -> jax.ShapeDtypeStruct:
        """The shape of what the network sees of a training batch at one time step."""
        return _frame(self.config, self.data)

    @property
    def facts(self) -> dict[str, Any]:
        """What a resumed run must find unchanged in the data, as JSON values."""
        example = self.data.train.example
        counts = {"training examples": len(self.data.train), "evaluation examples": len(self.data.test)}
        return {**counts, "example shape": list(example.shape), "example dtype": np.dtype(example.dtype).name}


def prepare(config: Config, data: DataSet) -> Run:
    """Builds a run.

    Raises:
      ValueError: a setting is out of range, the batch is larger than the data set, or cannot be split over the devices.
      ImportError: a package is missing that the settings need.
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
        raise ValueError(f"--evaluations: {config.evaluations} an epoch are more than its batches.")
    devices = find_devices(config.session, config.batch_size)
    model = make_model(config, data.num_classes, rules.make_neuron(config))
    tx = rules.make_optimizer(config, config.epochs * (len(data.train) // config.batch_size))
    state = bsojax.init(model, tx, jax.random.key(config.seed), _frame(config, data))
    if config.start is not None:
        state = started_from(config.start, state)
    if config.packed:
        state = dataclasses.replace(state, signs=bsojax.pack_signs(state.signs))
    shardings = devices.shardings(state, config.session.split_optimizer)
    state = devices.place(state, shardings)
    online = rules.make_step(config, model, tx, devices.mesh if config.session.split_optimizer else None)
    judge = bsojax.make_eval_step(model, config.num_steps)

    placed: dict[str, Any] = {} if shardings is None else {"out_shardings": (shardings, None)}

    @functools.partial(jax.jit, donate_argnums=0, **placed)
    def step(state: bsojax.TrainState, key: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        return online(state, data.front_end.train(key, devices.split(x)), devices.split(y))

    @jax.jit
    def evaluate(state: bsojax.TrainState, x: jax.Array, y: jax.Array) -> Any:
        return judge(state, data.front_end.evaluate(x), y)

    way = epochs.make_epochs(step, data.train, config.batch_size, devices, shardings)
    return Run(config, data, model, state, step, way, evaluate, devices)


class Keeper(Protocol):
    """What keeps a training safe while it goes on; all processes of a run ask theirs at the same places."""

    def due(self) -> bool:
        """Whether the training shall be saved here, between two chunks."""

    def save(self, progress: Progress) -> None:
        """Saves; raises where the training shall end after that."""

    def wait(self) -> None:
        """Called between the batches of an evaluation; raises where the training shall end without it."""


class NoKeeper:
    """Keeps nothing."""

    def due(self) -> bool:
        return False

    def save(self, progress: Progress) -> None:
        del progress

    def wait(self) -> None:
        pass


NO_KEEPER = NoKeeper()


def train(
    run: Run, on_chunk: OnChunk, on_record: OnRecord, start: Progress | None = None, keeper: Keeper = NO_KEEPER
) -> tuple[bsojax.TrainState, list[dict[str, Any]]]:
    """Trains to the end; returns the final state, its statistics re-estimated, and the records.

    Args:
      run: a fresh run.
      on_chunk: called after every chunk: about twenty an epoch where the split lies on the device, else every batch;
        the next chunk of the same epoch and evaluation is running by then.
      on_record: called after every evaluation with its record, of the batches since the last one.
      start: where to go on; None: at the beginning. What follows is the same, bit for bit, wherever it was stopped.
      keeper: what saves the training. It is not asked to save right after a batch with a skipped update.

    Raises:
      FloatingPointError: updates were skipped in too many batches in a row, or in all up to an evaluation.
    """
    at, advance = start or beginning(run), None
    streak = Streak(run.config.session.max_skipped)

    def heard(chunk: Chunk) -> None:
        streak.watch(chunk)
        on_chunk(chunk)

    def save(progress: Progress) -> None:
        if streak.length:
            keeper.wait()
        else:
            keeper.save(progress)

    for epoch, last in ends(run)[len(at.records) :]:
        if advance is None or at.batch == 0:
            advance = run.epochs.start(jax.random.fold_in(at.key, epoch), at.batch)
        at = _trained(run, advance, at, last, heard, keeper.due, save)
        if keeper.due():
            save(at)
        try:
            evaluated = _evaluated(run, at, keeper.wait)
        except Stopped:
            save(at)
            raise
        at = evaluated
        on_record(at.records[-1])
        if not np.isfinite(at.records[-1]["loss"]):
            raise FloatingPointError(
                f"epoch {epoch}: no batch had a finite loss ({at.records[-1]['skipped']} updates were skipped); lower "
                "--learning-rate, or look for broken inputs."
            )
        save(at)
    return at.state, list(at.records)


def ends(run: Run) -> list[tuple[int, int]]:
    """Returns where a run is evaluated: the epoch, counted from 1, and how many of its batches are done by then."""
    parts = list(epochs.cut(0, run.batches, run.config.evaluations))
    return [(epoch, last) for epoch in range(1, run.config.epochs + 1) for _, last in parts]


def _trained(
    run: Run,
    advance: Advance,
    at: Progress,
    last: int,
    on_chunk: OnChunk,
    due: Callable[[], bool],
    save: Callable[[Progress], None],
) -> Progress:
    """Trains up to a batch of the epoch."""
    started = time.perf_counter()

    def here(state: bsojax.TrainState, done: int, chunks: list[Chunk]) -> Progress:
        seconds = at.seconds + time.perf_counter() - started
        return dataclasses.replace(at, state=state, batch=done, pending=joined(at.pending, chunks), seconds=seconds)

    bounds = run.epochs.chunks(at.batch, last) if at.batch < last else ()
    state, chunks = epochs.run_chunks(
        advance, at.state, at.epoch, bounds, on_chunk, due, lambda *place: save(here(*place))
    )
    return here(state, last, chunks)


def _evaluated(run: Run, at: Progress, between: Callable[[], None]) -> Progress:
    """Evaluates after training, and adds the record of both."""
    config = run.config
    state = at.state
    if config.refresh:
        state = refreshed(run, state)
        state = dataclasses.replace(state, batch_stats=run.devices.everywhere(state.batch_stats))
    result = evaluate(run, state, run.data.test, between)
    record = record_of(config, run.num_signs, at.pending) | {
        "epoch": (len(at.records) + 1) / config.evaluations,
        "updates": ((at.epoch - 1) * run.batches + at.batch) * rules.updates_per_batch(config),
        "eval_loss": result["loss"],
        "eval_accuracy": result["accuracy"],
        "seconds": round(at.seconds, 3),
    }
    whole = at.batch == run.batches
    return Progress(state, at.key, at.epoch + whole, 0 if whole else at.batch, (*at.records, record))


def beginning(run: Run) -> Progress:
    """Returns where a fresh run stands."""
    return Progress(run.state, jax.random.key(run.config.seed))


def evaluate(
    run: Run, state: bsojax.TrainState, split: Split, between: Callable[[], None] = lambda: None
) -> dict[str, float]:
    """Loss and accuracy on a split, each example counted once; ``between`` is called before every batch."""
    chunks = -(-len(split) // EVALUATION_BATCH)
    size = -(-len(split) // chunks)  # all of equal size but the last: at most two shapes to compile
    size = -(-size // run.devices.count) * run.devices.count
    sums, count = np.zeros(2), 0
    for x, y in run.devices.feed(split, size):
        between()
        result = run.evaluate(state, x, y)
        sums += len(x) * np.array([result["loss"], result["accuracy"]])
        count += len(x)
    loss, accuracy = sums / count
    return {"loss": float(loss), "accuracy": float(accuracy)}


def refreshed(run: Run, state: bsojax.TrainState) -> bsojax.TrainState:
    """Returns the state with the norms' statistics re-estimated from training batches, where that can be done."""
    if run.config.norm == "across-time":
        return state  # training normalised by the running statistics: they are the right ones
    key = jax.random.fold_in(jax.random.key(run.config.seed), 0)
    batches = run.devices.feed(run.data.train, run.config.batch_size, key)
    frames = (run.data.front_end.evaluate(x) for x, _ in itertools.islice(batches, STATISTICS_BATCHES))
    good = (frame for frame in frames if all_finite(frame))  # training skipped the others too
    return bsojax.refresh_statistics(run.model, state, good, run.config.num_steps)


def _chosen(config: Config, data: DataSet) -> DataSet:
    """The data set with no more training examples than the config asks for."""
    if config.train_examples is None or config.train_examples >= len(data.train):
        return data
    order = np.random.default_rng(2026).permutation(len(data.train))
    return dataclasses.replace(data, train=data.train.take(np.sort(order[: config.train_examples])))


def _frame(config: Config, data: DataSet) -> jax.ShapeDtypeStruct:
    example = data.train.example
    stored = jax.ShapeDtypeStruct((config.batch_size, *example.shape), example.dtype)
    seen = jax.eval_shape(data.front_end.evaluate, stored)
    # A static frame has four axes, a sequence of frames five.
    return seen if len(seen.shape) < 5 else jax.ShapeDtypeStruct(seen.shape[1:], seen.dtype)
