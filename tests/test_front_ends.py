"""Front ends: against slow obvious versions, librosa's numbers, and themselves on other numbers of devices."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from experiments.front_ends import audio, events, images

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, (16, 12, 10, 3), np.uint8)  # no pixel is 0: what is 0 later was padded or cut out
FRAMES = RNG.poisson(2.0, (16, 3, 9, 9, 2)).astype(np.uint8)
SPECTROGRAMS = RNG.normal(-30, 12, (16, 32, 32, 1)).astype(np.float32)
GOLDEN = dict(np.load(Path(__file__).parent / "golden" / "log_mel.npz"))
seeds = st.integers(0, 2**31 - 1).map(jax.random.key)

crop = jax.jit(images.random_crop, static_argnums=2)
flip = jax.jit(images.random_flip)
cut = jax.jit(images.cutout, static_argnums=2)
log_mel = jax.jit(audio.log_mel, static_argnums=(1, 2, 3))
binned = jax.jit(events.bin_events, static_argnums=(2, 3, 4), static_argnames="edges")
resized = jax.jit(events.resized, static_argnums=(1, 2))

all_front_ends = {
    "scaled": (images.scaled(255), IMAGES),
    "cifar": (images.cifar(images.CIFAR10_MEAN, images.CIFAR10_STD, cutout=4), IMAGES),
    "imagenet": (images.imagenet(size=7), IMAGES),
    "frames": (events.frames(max_shift=2, flip=True), FRAMES),
    "plain frames": (events.frames(), FRAMES),
    "standardised": (audio.standardised(max_shift=3, time_mask=8, mel_mask=6), SPECTROGRAMS),
    "plain standardised": (audio.standardised(), SPECTROGRAMS),
}
each_front_end = pytest.mark.parametrize(("front_end", "stored"), all_front_ends.values(), ids=all_front_ends.keys())


# Every front end


@each_front_end
def test_training_gives_the_same_bits_on_every_number_of_devices(front_end, stored):
    key = jax.random.key(3)
    results = []
    for count in (1, 2, 4, 8):
        mesh = jax.make_mesh((count,), ("batch",), (AxisType.Auto,), devices=jax.devices()[:count])
        batch = jax.device_put(stored, NamedSharding(mesh, P("batch")))
        assert len(batch.sharding.device_set) == count
        results.append(np.asarray(jax.jit(front_end.train)(key, batch)))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


@each_front_end
def test_both_forms_give_finite_float32_of_one_shape(front_end, stored):
    want = jax.eval_shape(front_end.evaluate, stored)
    got = jax.jit(front_end.train)(jax.random.key(0), stored)
    assert got.dtype == want.dtype == jnp.float32
    assert got.shape == want.shape
    assert np.isfinite(got).all()


@each_front_end
def test_a_scan_gives_what_single_calls_give(front_end, stored):
    keys = jax.random.split(jax.random.key(1), 2)
    train = jax.jit(front_end.train)
    pairs = jnp.asarray(stored).reshape(2, 8, *stored.shape[1:])
    _, scanned = jax.lax.scan(lambda carry, item: (carry, front_end.train(*item)), None, (keys, pairs))
    for index in range(2):
        np.testing.assert_allclose(scanned[index], train(keys[index], pairs[index]), atol=1e-5)


@pytest.mark.parametrize("name", ["cifar", "imagenet", "frames", "standardised"])
def test_augmentation_depends_on_the_key_and_on_the_place_in_the_batch(name):
    front_end, stored = all_front_ends[name]
    train, same = jax.jit(front_end.train), np.broadcast_to(stored[:1], stored.shape)
    axis = 1 if name == "frames" else 0  # of the batch in the result
    got = np.moveaxis(np.asarray(train(jax.random.key(0), same)), axis, 0)
    assert len(np.unique(got.reshape(len(got), -1), axis=0)) > 8
    np.testing.assert_array_equal(got, np.moveaxis(np.asarray(train(jax.random.key(0), same)), axis, 0))
    assert (got != np.moveaxis(np.asarray(train(jax.random.key(1), same)), axis, 0)).any()
    # An example's draw does not depend on how many come after it.
    half = np.moveaxis(np.asarray(train(jax.random.key(0), same[:8])), axis, 0)
    np.testing.assert_allclose(half, got[:8], atol=1e-5)


# Images


def shifted(image, down, right, padding):
    padded = np.pad(image, [(0, 0)] * (image.ndim - 3) + [(padding, padding)] * 2 + [(0, 0)])
    height, width = image.shape[-3:-1]
    return padded[..., down : down + height, right : right + width, :]


@given(seeds)
def test_a_crop_is_a_window_of_the_padded_image(key):
    for before, after in zip(IMAGES, np.asarray(crop(key, IMAGES, 2)), strict=True):
        windows = [shifted(before, down, right, 2) for down in range(5) for right in range(5)]
        assert sum(np.array_equal(after, window) for window in windows) == 1
    assert after.dtype == np.uint8


def test_all_crops_are_equally_likely():
    canvas = np.zeros((4000, 3, 3, 1), np.uint8)
    canvas[:, 1, 1] = 1
    places = np.asarray(crop(jax.random.key(0), canvas, 1)).mean(0)[..., 0]  # where the dot went
    np.testing.assert_allclose(places, 1 / 9, atol=0.025)  # 5 standard errors


def test_all_steps_of_a_recording_are_cropped_alike():
    got = np.asarray(crop(jax.random.key(4), np.repeat(FRAMES[:, :1], 3, axis=1), 2))
    np.testing.assert_array_equal(got, np.repeat(got[:, :1], 3, axis=1))


@given(seeds)
def test_a_flip_is_an_involution_and_swaps_left_and_right(key):
    once = np.asarray(flip(key, IMAGES))
    np.testing.assert_array_equal(flip(key, once), IMAGES)
    for before, after in zip(IMAGES, once, strict=True):
        assert np.array_equal(after, before) or np.array_equal(after, before[:, ::-1])


def test_half_of_the_images_are_flipped():
    canvas = np.zeros((4000, 1, 2, 1), np.uint8)
    canvas[:, :, 0] = 1
    assert abs(np.asarray(flip(jax.random.key(0), canvas))[:, 0, 1, 0].mean() - 0.5) < 0.04


@pytest.mark.parametrize("size", [1, 4, 5, 30])
def test_cutout_zeroes_one_clipped_square_and_nothing_else(size):
    sides = set()
    for before, after in zip(IMAGES, np.asarray(cut(jax.random.key(size), IMAGES, size)), strict=True):
        zero = (after == 0).any(-1)
        rows, columns = np.flatnonzero(zero.any(1)), np.flatnonzero(zero.any(0))
        assert 1 <= zero.sum() <= size**2
        assert zero.sum() == len(rows) * len(columns) == np.ptp(rows) * np.ptp(columns) + len(rows) + len(columns) - 1
        np.testing.assert_array_equal(after, np.where(zero[..., None], 0, before))
        sides.add((len(rows), len(columns)))
    assert (min(size, 12), min(size, 10)) in sides


def test_cutout_of_nothing_changes_nothing():
    np.testing.assert_array_equal(cut(jax.random.key(0), IMAGES, 0), IMAGES)


def test_scaling_divides_by_the_largest_value():
    got = jax.jit(images.scaled(16).evaluate)(np.array([0, 4, 16], np.uint8).reshape(1, 1, 3, 1))
    np.testing.assert_array_equal(np.ravel(got), [0, 0.25, 1])


def test_normalised_noise_has_zero_mean_and_unit_deviation():
    x = IMAGES.astype(np.float32)
    mean, std = x.mean((0, 1, 2)), x.std((0, 1, 2))
    got = np.asarray(images.normalise(jnp.asarray(x), mean.tolist(), std.tolist()))
    np.testing.assert_allclose(got.mean((0, 1, 2)), 0, atol=1e-4)
    np.testing.assert_allclose(got.std((0, 1, 2)), 1, atol=1e-4)


def test_the_cifar_recipe_pads_with_black_and_cuts_to_the_mean():
    mean, std = images.CIFAR100_MEAN, images.CIFAR100_STD
    evaluate, key = jax.jit(images.cifar(mean, std).evaluate), jax.random.key(2)
    np.testing.assert_allclose(evaluate(IMAGES), (IMAGES / 255 - mean) / std, atol=1e-5)
    uncut = np.asarray(jax.jit(images.cifar(mean, std, cutout=0).train)(key, IMAGES))
    restored = np.round((uncut * std + mean) * 255).astype(np.uint8)
    for before, after in zip(IMAGES, restored, strict=True):
        windows = [shifted(before, down, right, 4) for down in range(9) for right in range(9)]
        assert any(np.array_equal(after, window[:, ::side]) for window in windows for side in (1, -1))
    assert (restored == 0).any()  # black entered, before it was normalised
    both = np.asarray(jax.jit(images.cifar(mean, std, cutout=4).train)(key, IMAGES))
    different = (both != uncut).any(-1)
    assert 0 < different.sum() <= 16 * 16
    assert (both[different] == 0).all()


def test_imagenet_takes_the_centre_or_a_random_window():
    front_end, mean, std = images.imagenet(6), images.IMAGENET_MEAN, images.IMAGENET_STD
    np.testing.assert_allclose(jax.jit(front_end.evaluate)(IMAGES), (IMAGES[:, 3:9, 2:8] / 255 - mean) / std, atol=1e-5)
    trained = np.asarray(jax.jit(front_end.train)(jax.random.key(0), IMAGES))
    restored = np.round((trained * std + mean) * 255).astype(np.uint8)
    for before, after in zip(IMAGES, restored, strict=True):
        windows = [before[top : top + 6, left : left + 6] for top in range(7) for left in range(5)]
        assert sum(np.array_equal(after, window[:, ::side]) for window in windows for side in (1, -1)) == 1


# Events


def recording(rng, valid, rows, span=300_000, height=7, width=5):
    time = np.sort(rng.integers(0, span, valid)) + rng.integers(0, 10**6)
    columns = [time, rng.integers(0, width, valid), rng.integers(0, height, valid), rng.integers(0, 2, valid)]
    padding = rng.integers(-9, 9, (rows - valid, 4))  # may hold anything
    return np.concatenate([np.stack(columns, axis=1), padding]).astype(np.int32)


def counted(rows, bins, num_bins, height=7, width=5):
    """The obvious version, one recording without padding."""
    counts = np.zeros((num_bins, height, width, 2), np.int64)
    np.add.at(counts, (bins, rows[:, 2], rows[:, 1], rows[:, 3]), 1)
    return np.minimum(counts, 255)


def time_bins(rows, num_bins):
    elapsed = rows[:, 0].astype(np.int64) - rows[:, 0].min()
    return elapsed * num_bins // (elapsed.max() + 1)


def count_bins(rows, num_bins):
    return np.arange(len(rows)) * num_bins // len(rows)


@given(st.integers(0, 2**32 - 1), st.integers(1, 60), st.sampled_from([1, 4, 10]), st.sampled_from([5, 10**9]))
def test_binning_is_the_numpy_loop(seed, valid, num_bins, span):
    rows = recording(np.random.default_rng(seed), valid, 60, span)
    for edges, bins in ((events.equal_time, time_bins), (events.equal_count, count_bins)):
        got = binned(rows, valid, num_bins, 7, 5, edges=edges)
        np.testing.assert_array_equal(got, counted(rows[:valid], bins(rows[:valid], num_bins), num_bins))
        assert got.dtype == jnp.uint8
        assert got.sum() == valid


@given(st.integers(1, 60), st.sampled_from([1, 4, 10]))
def test_bins_of_equal_count_differ_by_one_event_at_most(valid, num_bins):
    rows = recording(np.random.default_rng(valid), valid, 60)
    sizes = np.asarray(binned(rows, valid, num_bins, 7, 5, edges=events.equal_count)).sum((1, 2, 3))
    assert np.ptp(sizes) <= 1
    assert sizes.sum() == valid


def test_a_batch_of_recordings_is_binned_under_vmap_and_scan():
    rng, valid = np.random.default_rng(5), np.array([60, 1, 33, 0], np.int32)
    batch = np.stack([recording(rng, count, 60) for count in valid])
    one = functools.partial(events.bin_events, num_bins=4, height=7, width=5)
    want = [counted(rows[:count], time_bins(rows[:count], 4), 4) for rows, count in zip(batch[:3], valid, strict=False)]
    want.append(np.zeros_like(want[0]))  # no event at all
    np.testing.assert_array_equal(jax.jit(jax.vmap(one))(batch, valid), want)
    _, scanned = jax.lax.scan(lambda carry, item: (carry, one(*item)), None, (batch, valid))
    np.testing.assert_array_equal(scanned, want)


def test_events_outside_the_sensor_are_dropped_and_touch_no_other_pixel():
    rows = recording(np.random.default_rng(6), 40, 40)
    inside = binned(rows, 40, 4, 7, 5)
    strays = np.array([[0, 5, 0, 0], [0, 0, 7, 0], [0, -1, 0, 0], [0, 0, -1, 1], [0, 0, 0, 2], [0, 0, 0, -1]])
    strays[:, 0] = rows[20, 0]
    with_strays = np.insert(rows, 20, strays, axis=0).astype(np.int32)
    np.testing.assert_array_equal(binned(with_strays, 46, 4, 7, 5), inside)


def test_counts_saturate_in_place_of_wrapping():
    rows = np.tile(np.array([[9, 1, 2, 1]], np.int32), (300, 1))
    got = binned(rows, 300, 1, 7, 5)
    assert got[0, 2, 1, 1] == 255
    assert got.sum() == 255


@pytest.mark.parametrize(("old", "new"), [((12, 8), (6, 4)), ((9, 9), (3, 3)), ((9, 7), (9, 7))])
def test_whole_blocks_of_pixels_are_added_up(old, new):
    counts = np.random.default_rng(7).integers(0, 9, (2, 3, *old, 2)).astype(np.uint8)
    blocks = counts.reshape(2, 3, new[0], old[0] // new[0], new[1], old[1] // new[1], 2).sum((3, 5))
    got = resized(counts, *new)
    np.testing.assert_allclose(got, blocks, rtol=1e-6)
    assert got.dtype == jnp.float32


def test_resizing_is_the_slow_sum_over_subpixels():
    counts = np.random.default_rng(8).integers(0, 20, (2, 8, 7, 2)).astype(np.float32)
    fine = np.repeat(np.repeat(counts, 3, axis=1), 3, axis=2) / 9  # 8 x 7 pixels of 3 x 3, 3 x 3 pixels of 8 x 7
    want = fine.reshape(2, 3, 8, 3, 7, 2).sum((2, 4))
    np.testing.assert_allclose(resized(counts, 3, 3), want, rtol=1e-5)
    np.testing.assert_array_equal(resized(counts.astype(np.uint8), 3, 3), resized(counts, 3, 3))


def test_resizing_keeps_the_sum_and_a_flat_field_flat():
    counts = np.random.default_rng(9).poisson(1.0, (10, 128, 128, 2)).astype(np.float32)
    np.testing.assert_allclose(resized(counts, 48, 48).sum((1, 2)), counts.sum((1, 2)), rtol=1e-5)
    np.testing.assert_allclose(resized(np.full((1, 128, 128, 2), 9, np.float32), 48, 48), 64, rtol=1e-6)


def test_frames_put_time_first_and_clip():
    stored = FRAMES.copy()
    stored[0, 0, 0, 0, 0] = 200
    got = jax.jit(events.frames(largest=4).evaluate)(stored)
    np.testing.assert_array_equal(got, np.minimum(stored, 4).swapaxes(0, 1) / np.float32(4))


def test_frames_are_moved_as_whole_recordings():
    got = np.asarray(jax.jit(events.frames(255, max_shift=2).train)(jax.random.key(1), FRAMES))
    moved = 0
    for before, after in zip(FRAMES, got.swapaxes(0, 1), strict=True):
        counts = np.round(after * 255).astype(np.uint8)
        places = {(down, right) for down in range(5) for right in range(5)}
        fits = [place for place in places if np.array_equal(counts, shifted(before, *place, 2))]
        assert len(fits) == 1
        moved += fits != [(2, 2)]
    assert moved > 8


# Sound


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_log_mel_gives_the_decibels_of_librosa(sample_rate):
    waves, want = GOLDEN[f"waves_{sample_rate}"], GOLDEN[f"log_mel_{sample_rate}"]
    got = log_mel(waves, sample_rate, 32, 32)
    assert got.shape == (len(waves), 32, 32, 1)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got[..., 0], want, rtol=0, atol=1e-3)
    assert np.ptp(want, axis=(1, 2)).max() > 79  # the floor is among them


@pytest.mark.parametrize("sample_rate", [8000, 16000])
def test_the_mel_filters_are_those_of_librosa(sample_rate):
    got = audio.mel_filters(sample_rate, int(GOLDEN[f"n_fft_{sample_rate}"]), 32)
    np.testing.assert_allclose(got, GOLDEN[f"bank_{sample_rate}"], rtol=1e-5, atol=1e-9)


def test_log_mel_is_the_sum_over_frames_written_out():
    wave = np.random.default_rng(10).normal(0, 0.1, 4000)
    hop = 4000 // 15
    padded, window = np.pad(wave, hop), np.hanning(2 * hop + 1)[:-1]
    got = np.asarray(log_mel(wave[None].astype(np.float32), 4000, 12, 16))
    bank = audio.mel_filters(4000, 2 * hop, 12)
    for frame in range(16):
        piece = padded[frame * hop : (frame + 2) * hop]
        power = np.abs(np.fft.rfft(np.pad(piece, (0, 2 * hop - len(piece))) * window)) ** 2
        np.testing.assert_allclose(got[0, frame, :, 0], 10 * np.log10(bank @ power), atol=1e-3)


def test_silence_is_at_the_floor_and_standardised_to_zeros():
    silence = log_mel(np.zeros((2, 8000), np.float32), 8000, 32, 32)
    np.testing.assert_allclose(silence, -100, atol=1e-4)
    for constant in (silence, np.full((2, 32, 32, 1), -37.123, np.float32)):
        np.testing.assert_array_equal(jax.jit(audio.standardised().evaluate)(constant), 0)
    odd = jax.jit(audio.standardised().evaluate)(np.full((2, 31, 27, 1), -37.123, np.float32))
    np.testing.assert_allclose(odd, 0, atol=0.05)  # of a mean that is rounded


def test_standardised_spectrograms_have_zero_mean_and_unit_deviation_each():
    got = np.asarray(jax.jit(audio.standardised().evaluate)(SPECTROGRAMS))
    np.testing.assert_allclose(got.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std((1, 2, 3)), 1, atol=1e-5)
    np.testing.assert_allclose(jax.jit(audio.standardised().evaluate)(SPECTROGRAMS * 2 + 5), got, atol=1e-4)


@given(seeds)
def test_a_shift_rolls_time_and_masks_are_two_stretches(key):
    plain, rolled, masked = (
        np.asarray(train(key, SPECTROGRAMS)) for train in (train_plain, train_rolled, train_masked)
    )
    for before, after, holes in zip(plain, rolled, masked == 0, strict=True):
        assert sum(np.allclose(after, np.roll(before, shift, axis=0), atol=1e-5) for shift in range(-3, 4)) == 1
        rows, columns = np.flatnonzero(holes.all((1, 2))), np.flatnonzero(holes.all((0, 2)))
        assert len(rows) <= 8
        assert len(columns) <= 6
        assert all(np.ptp(stretch) == len(stretch) - 1 for stretch in (rows, columns) if len(stretch))
        rest = holes.copy()
        rest[rows], rest[:, columns] = False, False
        assert not rest.any()
    np.testing.assert_allclose(np.where(masked == 0, 0, plain), masked, atol=1e-5)


def test_all_shifts_and_widths_of_masks_are_equally_likely():
    ramp = np.broadcast_to(np.arange(1, 9, dtype=np.float32)[:, None, None], (4000, 8, 8, 1))
    shifts = np.argmin(
        np.asarray(jax.jit(audio.standardised(max_shift=1).train)(jax.random.key(0), ramp))[:, :, 0, 0], 1
    )
    np.testing.assert_allclose(np.bincount(shifts, minlength=8) / 4000, np.eye(8)[[0, 1, 7]].sum(0) / 3, atol=0.04)
    holes = np.asarray(jax.jit(audio.standardised(time_mask=3).train)(jax.random.key(0), ramp))[:, :, 0, 0] == 0
    np.testing.assert_allclose(np.bincount(holes.sum(1), minlength=4) / 4000, 1 / 4, atol=0.04)
    assert holes.any(0).all()  # every frame, the first and the last too


train_plain = jax.jit(audio.standardised().train)
train_rolled = jax.jit(audio.standardised(max_shift=3).train)
train_masked = jax.jit(audio.standardised(time_mask=8, mel_mask=6).train)


# What is refused


KEY = jax.random.key(0)
WAVES = np.zeros((1, 8000), np.float32)
EVENTS = np.zeros((9, 4), np.int32)
refused = {
    "largest": (lambda: images.scaled(0), ValueError, "largest: must be a positive finite number"),
    "scaled twice": (lambda: images.scaled(255).evaluate(jnp.ones((1, 2, 2, 1))), TypeError, "images: .* not float32"),
    "no batch": (lambda: images.scaled(255).evaluate(jnp.asarray(IMAGES[0])), ValueError, "images: a stored batch"),
    "padding": (lambda: images.random_crop(KEY, IMAGES, -1), ValueError, "padding: must not be negative, got -1"),
    "cutout": (lambda: images.cifar((0.5,), (0.5,), -1), ValueError, "cutout: must not be negative"),
    "cutout size": (lambda: images.cutout(KEY, IMAGES, -1), ValueError, "size: must not be negative"),
    "std": (lambda: images.cifar((0.5,), (0.0,)), ValueError, "mean, std: need one number per channel"),
    "channels": (
        lambda: images.normalise(jnp.ones((2, 3)), (0.5,), (0.5,)),
        ValueError,
        "mean, std: 1 numbers for",
    ),
    "no crop": (lambda: images.imagenet(0), ValueError, "size: must be at least 1"),
    "crop too large": (lambda: images.imagenet(11).evaluate(jnp.asarray(IMAGES)), ValueError, "size: a crop of 11"),
    "events' dtype": (
        lambda: events.bin_events(EVENTS.astype(np.int64), 9, 2, 3, 3),
        TypeError,
        "need int32, not int64",
    ),
    "events' shape": (lambda: events.bin_events(EVENTS[None], 9, 2, 3, 3), ValueError, "events: one recording is"),
    "no bin": (lambda: events.bin_events(EVENTS, 9, 0, 3, 3), ValueError, "num_bins, height, width: at least 1"),
    "enlarged": (
        lambda: events.resized(jnp.asarray(FRAMES), 10, 9),
        ValueError,
        "height, width: frames of 9 x 9",
    ),
    "integer counts": (lambda: events.resized(jnp.zeros((9, 9, 2), int), 3, 3), TypeError, "frames: counts are uint8"),
    "clip": (lambda: events.frames(256), ValueError, "largest: must be in 1 .. 255"),
    "shift": (lambda: events.frames(max_shift=-1), ValueError, "max_shift: must not be negative"),
    "float frames": (lambda: events.frames().evaluate(jnp.ones(FRAMES.shape)), TypeError, "frames: stored counts are"),
    "one frame": (lambda: events.frames().evaluate(jnp.asarray(FRAMES[:, 0])), ValueError, "frames: a stored batch is"),
    "int waves": (lambda: audio.log_mel(WAVES.astype(np.int16), 8000), TypeError, "divide int16 samples by 32768"),
    "rate": (lambda: audio.log_mel(WAVES, 16000), ValueError, r"waves: clips of one second at 16000 Hz"),
    "many frames": (lambda: audio.log_mel(WAVES, 8000, 32, 5000), ValueError, "num_frames: 8000 samples cannot"),
    "one moment": (lambda: audio.log_mel(WAVES, 8000, 32, 1), ValueError, "num_frames: 8000 samples cannot"),
    "many mels": (lambda: audio.log_mel(WAVES, 8000, 1000), ValueError, "num_mels: band .* lies between two bins"),
    "mask": (lambda: audio.standardised(time_mask=-1), ValueError, "time_mask: must not be negative"),
    "wide": (
        lambda: audio.standardised(mel_mask=33).evaluate(jnp.asarray(SPECTROGRAMS)),
        ValueError,
        "are wider than spectrograms of 32 frames",
    ),
    "int decibels": (
        lambda: audio.standardised().evaluate(jnp.zeros((1, 2, 2, 1), int)),
        TypeError,
        "floating decibels",
    ),
    "waves": (lambda: audio.standardised().evaluate(jnp.asarray(WAVES)), ValueError, "spectrograms: a batch is"),
}


@pytest.mark.parametrize(("call", "error", "match"), refused.values(), ids=refused.keys())
def test_bad_input_is_refused_with_the_name_of_the_argument(call, error, match):
    with pytest.raises(error, match=match):
        call()
