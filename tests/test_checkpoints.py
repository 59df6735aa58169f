"""Checkpoints: what is restored is what was saved, bit for bit, or it is refused with the reason."""

import dataclasses
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from faults import SMALL, assert_same_bits, changed, report, without_times
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax
from experiments.build import prepare
from experiments.data import load
from experiments.data.splits import WHOLE
from experiments.loop import beginning, train
from experiments.running.checkpoints import Checkpoints
from experiments.running.keeper import CheckpointKeeper
from experiments.running.stop import Stop
from experiments.running.stored import stored_leaves

# Orbax leaves coroutines behind that were not awaited when it cannot read a file.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore:coroutine")


def nothing(*_):
    pass


class Stream:
    """A split as one that is read batch by batch; counts the batches that were read."""

    def __init__(self, split):
        self.split, self.read = split, 0

    def __len__(self):
        return len(self.split)

    @property
    def example(self):
        return self.split.example

    def batches(self, batch_size, key=None, first=0, part=WHOLE):
        for batch in self.split.batches(batch_size, key, first, part):
            self.read += 1
            yield batch

    def take(self, indices):
        return Stream(self.split.take(indices))


def trained(run, folder, start=None):
    """Trains a run to its end, saved in a folder."""
    keeper = CheckpointKeeper(
        Checkpoints(folder, run.config, run.batches), run.config.session.checkpoint_minutes, Stop()
    )
    return train(run, nothing, nothing, start, keeper)


def fresh(run):
    """A run that may be trained: training donates its state."""
    return dataclasses.replace(run, state=jax.tree.map(jnp.copy, run.state))


@pytest.fixture(scope="module")
def data(digits_dir):
    return load("digits", digits_dir)


@pytest.fixture(scope="module")
def run(data):
    return prepare(SMALL, data)


@pytest.fixture(scope="module")
def finished(run, tmp_path_factory):
    """The folder of the checkpoints of a run that was not disturbed, its final state and records."""
    folder = tmp_path_factory.mktemp("finished") / "checkpoints"
    state, records = trained(fresh(run), folder)
    return folder, jax.device_get(state), records


@pytest.fixture
def folder(finished, tmp_path):
    """A copy of them, to be damaged."""
    shutil.copytree(finished[0], tmp_path / "checkpoints")
    return tmp_path / "checkpoints"


def opened(folder, run):
    return Checkpoints(folder, run.config, run.batches)


def keep_the_last(folder, store, count):
    """Removes all checkpoints but the last ones: each that cannot be restored takes half a second."""
    for name in store.names()[:-count]:
        shutil.rmtree(folder / name)


def test_a_run_goes_on_from_any_of_its_checkpoints_bit_for_bit(run, finished, folder, tmp_path):
    _, state, records = finished
    names = opened(folder, run).names()
    assert len(names) == 20 + 4 + 1  # before each batch, before each evaluation, and at the end
    # At first, within a part, on both sides of an evaluation within an epoch and at its end, and the last two.
    places = ["000000001-00000", "000000003-00000", "000000005-00000", "000000005-00001", "000000010-00001",
              "000000010-00002", *names[-2:]]  # fmt: skip
    assert set(places) <= set(names)
    for name in places:
        alone = tmp_path / name / "checkpoints"
        shutil.copytree(folder / name, alone / name)
        start, skipped = opened(alone, run).restore(run.state)
        assert not skipped
        again, lines = train(run, nothing, nothing, start)
        assert_same_bits(jax.device_get(again), state)
        assert without_times(lines) == without_times(records)


@pytest.mark.slow
def test_a_stream_goes_on_at_its_place_and_reads_nothing_twice(data, run, tmp_path):
    streamed = prepare(SMALL, dataclasses.replace(data, train=Stream(data.train)))
    state, records = trained(streamed, tmp_path / "checkpoints")
    state = jax.device_get(state)
    for name in ("000000003-00000", "000000015-00003"):
        shutil.copytree(tmp_path / "checkpoints" / name, tmp_path / name / name)
        start, _ = opened(tmp_path / name, run).restore(run.state)
        read = streamed.data.train.read
        again, lines = train(streamed, nothing, nothing, start)
        assert_same_bits(jax.device_get(again), state)
        assert without_times(lines) == without_times(records)
        left = 20 - int(name.partition("-")[0])
        evaluations = 4 - int(name.partition("-")[2])
        statistics = evaluations * 10  # batches of the whole split, at most twenty
        assert streamed.data.train.read - read == left + statistics


def noise(leaf):
    """An array like a leaf, of any bits, those of NaN among them."""
    raw = np.random.default_rng(leaf.size).integers(0, 256, (*leaf.shape, leaf.dtype.itemsize), np.uint8)
    return jnp.asarray(raw[..., 0] > 127 if leaf.dtype == bool else raw.view(leaf.dtype)[..., 0])


kinds = {
    "t-bso": {},
    "int8 momentum, packed": {"momentum_dtype": "int8", "packed": True},
    "bfloat16 momentum": {"momentum_dtype": "bfloat16"},
    "bso with reset": {"optimizer": "bso-reset"},
    "latent weights": {"optimizer": "bptt-adam"},
    "every layer binary, no norm": {"binary_ends": True, "norm": "none"},
}


@pytest.mark.parametrize("options", kinds.values(), ids=kinds.keys())
def test_every_leaf_comes_back_with_its_bits_and_signs_take_one_bit(options, data, tmp_path):
    run = prepare(changed(SMALL, **options), data)
    state = jax.tree.map(noise, run.state)
    at = dataclasses.replace(beginning(run), state=state, epoch=2, batch=3, pending={"loss": np.array([np.nan, 0.1])})
    opened(tmp_path, run).save(at)
    back, _ = opened(tmp_path, run).restore(run.state)
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(back.state), strict=True):
        assert (old.dtype, old.shape) == (new.dtype, new.shape), path
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes(), path
    assert (back.epoch, back.batch) == (2, 3)
    np.testing.assert_array_equal(back.pending["loss"], [np.nan, 0.1])
    stored = stored_leaves(state)
    signs = sum(leaf.size for name, leaf in stored.items() if name.startswith("signs/"))
    assert signs == sum(-(-leaf.size // 8) for leaf in jax.tree.leaves(bsojax.unpack_signs(run.state.signs)))


def test_the_newest_ones_and_the_best_on_validation_are_kept(data, tmp_path):
    for validation in (False, True):
        run = prepare(changed(SMALL, keep=2, validation=validation, checkpoint_minutes=1e6), data)
        folder, at = tmp_path / str(validation), beginning(run)
        for count, accuracy in enumerate([0.5, 0.9, 0.3, 0.8, 0.2], 1):
            calls = run.config.updates_per_batch
            record = {"updates": 5 * count * calls, "eval_accuracy": accuracy}
            at = dataclasses.replace(at, epoch=1, batch=5 * count, records=(*at.records, record))
            opened(folder, run).save(at)
        newest = ["000000020-00004", "000000025-00005"]
        assert opened(folder, run).names() == (["000000010-00002"] if validation else []) + newest


def truncate(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


def largest(checkpoint):
    return max((path for path in checkpoint.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def rewrite(checkpoint, change):
    """Replaces a checkpoint by one with other leaves, written by Orbax too, beside the old description."""
    handler = ocp.CompositeCheckpointHandler(state=ocp.StandardCheckpointHandler(), about=ocp.JsonCheckpointHandler())
    with ocp.Checkpointer(handler) as checkpointer:
        items = ocp.args.Composite(state=ocp.args.StandardRestore(), about=ocp.args.JsonRestore())
        found = checkpointer.restore(checkpoint, items)
        leaves = change(dict(found["state"]))
        shutil.rmtree(checkpoint)
        items = ocp.args.Composite(state=ocp.args.StandardSave(leaves), about=ocp.args.JsonSave(found["about"]))
        checkpointer.save(checkpoint, items)


def a_sign_leaf(leaves):
    return next(name for name in leaves if name.startswith("signs/"))


def without_a_leaf(leaves):
    return {name: leaf for name, leaf in leaves.items() if name != a_sign_leaf(leaves)}


def with_another_dtype(leaves):
    return leaves | {a_sign_leaf(leaves): leaves[a_sign_leaf(leaves)].astype(jnp.float32)}


def with_another_shape(leaves):
    return leaves | {a_sign_leaf(leaves): leaves[a_sign_leaf(leaves)][:-1]}


def with_a_bit_flipped(leaves):
    name = a_sign_leaf(leaves)
    bits = np.array(leaves[name])
    bits[3] ^= 4
    return leaves | {name: bits}


def with_another_place(checkpoint):
    path = checkpoint / "about" / "metadata"
    about = json.loads(path.read_text())
    about["content"] = about["content"].replace('"batch": ', '"batch": 1')
    path.write_text(json.dumps(about))


damages = {
    "newest checkpoint truncated": (lambda path: truncate(largest(path)), ""),
    "newest checkpoint: a byte flipped": (lambda path: flip_a_byte(largest(path)), ""),
    "newest checkpoint: a bit flipped in the signs, file intact": (
        lambda path: rewrite(path, with_a_bit_flipped), r"leaf 'signs/\S+' does not hold what was saved: its checksum",
    ),
    "newest checkpoint: a leaf missing": (lambda path: rewrite(path, without_a_leaf), r"leaf 'signs/\S+' is missing"),
    "newest checkpoint: a dtype changed": (
        lambda path: rewrite(path, with_another_dtype), r"leaf 'signs/\S+' is float32\[\d+\], not uint8\[\d+\]",
    ),
    "newest checkpoint: a shape changed": (
        lambda path: rewrite(path, with_another_shape), r"leaf 'signs/\S+' is uint8\[\d+\], not uint8\[\d+\]",
    ),
    "newest checkpoint: its place in the data changed": (with_another_place, "its description does not hold what was"),
    "newest checkpoint: a file missing": (lambda path: largest(path).unlink(), ""),
    "newest checkpoint: emptied": (lambda path: (shutil.rmtree(path), path.mkdir()), ""),
}  # fmt: skip


seldom = ("a dtype changed", "a shape changed", "its place in the data changed")


@pytest.mark.parametrize(
    "fault", [pytest.param(fault, marks=pytest.mark.slow if fault.endswith(seldom) else ()) for fault in damages]
)
def test_a_damaged_checkpoint_is_skipped_with_its_reason_and_the_one_before_leads_to_the_same_end(
    fault, run, finished, folder
):
    damage, reason = damages[fault]
    _, state, records = finished
    store = opened(folder, run)
    newest, before = store.names()[-1], store.names()[-2]
    damage(folder / newest)
    start, skipped = store.restore(run.state)
    assert list(skipped) == [newest]
    assert skipped[newest]
    assert re.search(reason, skipped[newest])
    assert store.names()[-1] == before
    assert (folder / f"damaged-{newest}").is_dir()  # kept for whoever wants to know
    again, lines = trained(run, folder, start)
    assert_same_bits(jax.device_get(again), state)
    assert without_times(lines) == without_times(records)
    assert store.names()[-1] == newest  # written anew
    lost = int(newest.partition("-")[0]) - int(before.partition("-")[0])
    report(fault, "falls back to the one before, says what was skipped and why", 1, 1, lost)


@pytest.mark.slow
@given(data=st.data())
@settings(max_examples=40)
def test_no_damage_to_any_byte_of_a_checkpoint_goes_unseen(run, finished, tmp_path_factory, data):
    source, name = finished[0], "000000020-00004"
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copytree(source / name, folder / name)
    files = sorted(path for path in (folder / name).rglob("*") if path.is_file() and path.stat().st_size)
    path = data.draw(st.sampled_from(files))
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bytes(content))
    try:
        start, _ = opened(folder, run).restore(run.state)
    except ValueError as error:
        seen = f"can be restored ({name}: " in str(error)
    else:  # a byte that nothing depends on
        seen = True
        whole, _ = opened(source, run).restore(run.state)
        assert_same_bits(start.state, whole.state)
        assert (start.epoch, start.batch, start.records) == (whole.epoch, whole.batch, whole.records)
    assert seen
    shutil.rmtree(folder)


def test_where_no_checkpoint_is_good_the_run_does_not_silently_begin_again(run, folder):
    store = opened(folder, run)
    keep_the_last(folder, store, 3)
    for name in store.names():
        truncate(largest(folder / name))
    with pytest.raises(ValueError, match=r"--resume: no checkpoint in \S+ can be restored \(000000020-00004: "):
        store.restore(run.state)


def test_what_a_killed_process_has_left_is_never_restored_and_cleared_away(run, folder):
    newest = opened(folder, run).names()[-1]
    (folder / newest).rename(folder / f"{newest}.orbax-checkpoint-tmp-7")
    (folder / "deleted-000000001-00000").mkdir()
    store = opened(folder, run)
    assert newest not in store.names()
    assert not list(folder.glob("*tmp*"))
    assert not list(folder.glob("deleted*"))
    assert store.restore(run.state)[0] is not None


def test_a_checkpoint_of_another_network_is_refused(data, folder):
    other = prepare(changed(SMALL, channels=(24, 16)), data)
    keep_the_last(folder, opened(folder, other), 2)
    with pytest.raises(ValueError, match=r"leaf 'signs/\S+' is uint8\[72\], not uint8\[48\]"):
        opened(folder, other).restore(other.state)


@pytest.mark.parametrize(
    ("before", "after"), [(4, 1), *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1, 4), (8, 2), (2, 8)))]
)
def test_a_checkpoint_written_on_some_devices_resumes_on_others(before, after, data, tmp_path):
    wide = changed(SMALL, channels=(64, 64, 64), epochs=1, evaluations=1, split_optimizer=True)
    first = prepare(changed(wide, devices=before), data)
    state = jax.tree.map(lambda leaf: jax.device_put(noise(leaf), leaf.sharding), first.state)
    assert len({leaf.sharding for leaf in jax.tree.leaves(state)}) == (1 if before == 1 else 2)  # some are split
    opened(tmp_path, first).save(dataclasses.replace(beginning(first), state=state, batch=7))
    second = prepare(changed(wide, devices=after), data)
    start, skipped = opened(tmp_path, second).restore(second.state)
    assert not skipped
    for old, new, like in zip(*map(jax.tree.leaves, (state, start.state, second.state)), strict=True):
        assert np.asarray(old).tobytes() == np.asarray(new).tobytes()
        assert new.sharding.is_equivalent_to(like.sharding, new.ndim)


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_devices_than_it_was_started_with(data, tmp_path):
    config = changed(SMALL, epochs=1, evaluations=1)
    trained(prepare(changed(config, devices=4), data), tmp_path)
    run = prepare(config, data)
    for name in opened(tmp_path, run).names()[3:]:
        shutil.rmtree(tmp_path / name)
    start, _ = opened(tmp_path, run).restore(run.state)
    assert start.batch == 2
    state, records = trained(run, tmp_path, start)
    assert (int(state.step), len(records)) == (10, 1)
    report("a checkpoint of 4 devices, resumed on 1", "goes on where it was", 1, 1)
