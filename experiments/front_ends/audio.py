"""Front ends of sound: log-mel spectrograms, standardised and masked."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.front_ends._front_end import FrontEnd
from experiments.front_ends._per_example import per_example

SMALLEST_POWER = 1e-10
DYNAMIC_RANGE = 80.0
"""Floors of the decibels: a mel power of 1e-10 (-100 dB), and 80 dB below the loudest value of the same clip."""

SMALLEST_DEVIATION = 1e-3
"""Least decibels of a standard deviation: silence has none, and its rounding errors must stay small."""


def log_mel(waves: jax.Array, sample_rate: int, num_mels: int = 32, num_frames: int = 32) -> jax.Array:
    """Returns the log-mel spectrograms of clips of one second, in decibels.

    Frames are centred on samples 0, hop, 2 hop, ... with ``hop = samples // (num_frames - 1)``, 258 at 8 kHz and 516
    at 16 kHz for 32 frames: from the clip's beginning to its end. A frame is a periodic Hann window of 2 hop, about
    64 ms, zeros beyond the ends; its power spectrum is summed by triangles on the mel scale of Slaney's Auditory
    Toolbox (1998; linear below 1 kHz, logarithmic above) from 0 to half the sample rate, each of unit area.

    The numbers are those of ``librosa.feature.melspectrogram(y=wave, sr=sample_rate, n_fft=2 * hop, hop_length=hop,
    n_mels=num_mels)``, then ``librosa.power_to_db`` with its defaults (librosa 0.11), transposed.

    Args:
      waves: shape ``(batch, sample_rate)``, floating, in [-1, 1]; shorter clips padded with zeros.
      sample_rate: in Hz.
      num_mels: bands.
      num_frames: moments.

    Returns:
      float32 of shape ``(batch, num_frames, num_mels, 1)``: time is the height, from early to late, and the mel band
      the width, from low to high.

    Raises:
      TypeError: waves are not floating.
      ValueError: waves do not hold one second, or a band is too narrow for the spectrum or a hop too short.
    """
    if not jnp.issubdtype(waves.dtype, jnp.floating):
        raise TypeError(f"waves: need floating samples in [-1, 1], not {waves.dtype}; divide int16 samples by 32768.")
    if waves.ndim != 2 or waves.shape[1] != sample_rate:
        raise ValueError(
            f"waves: clips of one second at {sample_rate} Hz have the shape (batch, {sample_rate}), not {waves.shape}; "
            "pad or cut them, and check sample_rate."
        )
    hop = _hop(sample_rate, num_frames)
    # Frame k is samples (k - 1) hop to (k + 1) hop, two neighbouring blocks of the padded clip: no gather.
    padded = jnp.pad(waves.astype(jnp.float32), ((0, 0), (hop, num_frames * hop - sample_rate)))
    blocks = padded.reshape(len(waves), num_frames + 1, hop)
    framed = jnp.concatenate([blocks[:, :-1], blocks[:, 1:]], axis=-1)
    window = 0.5 - 0.5 * np.cos(np.pi * np.arange(2 * hop) / hop)
    spectrum = jnp.fft.rfft(framed * jnp.asarray(window, jnp.float32)[None, None])
    power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
    bank = jnp.asarray(mel_filters(sample_rate, 2 * hop, num_mels), jnp.float32)
    # In full float32 everywhere: some accelerators multiply matrices with ten bits otherwise.
    mel = jnp.einsum("btf,mf->btm", power, bank, precision=jax.lax.Precision.HIGHEST)
    decibels = 10 * jnp.log10(jnp.maximum(mel, SMALLEST_POWER))
    loudest = jnp.max(decibels, axis=(1, 2), keepdims=True)
    return jnp.maximum(decibels, loudest - DYNAMIC_RANGE)[..., None]


def mel_filters(sample_rate: int, num_fft: int, num_mels: int) -> np.ndarray:
    """Returns the triangles that sum a power spectrum into mel bands, shape ``(num_mels, num_fft // 2 + 1)``, float64.

    The corners are ``num_mels + 2`` frequencies, evenly spaced in mel from 0 to half the sample rate; a mel is 200/3 Hz
    below 1 kHz, and a 27th of a factor of 6.4 above (Slaney 1998). A triangle has unit area over its base in Hz.

    Raises:
      ValueError: a band lies between two bins of the spectrum.
    """
    edge, steps = 15.0, 27 / np.log(6.4)  # 1 kHz is 15 mel
    top = sample_rate / 2
    highest = top * 3 / 200 if top < 1000 else edge + steps * np.log(top / 1000)
    mels = np.linspace(0, highest, num_mels + 2)
    corners = np.where(mels < edge, mels * 200 / 3, 1000 * np.exp((mels - edge) / steps))
    low, centre, high = (corners[start : start + num_mels, None] for start in range(3))
    bins = np.fft.rfftfreq(num_fft, 1 / sample_rate)[None]
    rising, falling = (bins - low) / (centre - low), (high - bins) / (high - centre)
    bank = np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)
    empty = np.flatnonzero(bank.max(axis=1) == 0)
    if len(empty):
        raise ValueError(
            f"num_mels: band {empty[0]} of {num_mels} lies between two bins of the spectrum, {sample_rate / num_fft:g} "
            "Hz apart; ask for fewer bands, or for fewer frames of more samples."
        )
    return bank


def standardised(max_shift: int = 0, time_mask: int = 0, mel_mask: int = 0) -> FrontEnd:
    """Stored log-mel spectrograms, each scaled to zero mean and unit variance, so that loudness does not matter.

    Training may then shift and mask them (SpecAugment, Park et al. 2019, without its warping): roll the time by up to
    ``max_shift`` frames either way, and set one stretch of time and one band to zero, the mean. Silence becomes zeros.

    Args:
      max_shift: frames; what leaves at one end enters at the other.
      time_mask: the largest width of the masked stretch in frames; the width is uniform from 0 to it.
      mel_mask: likewise of the masked band, in mel bands.

    Returns:
      A front end of batches of shape ``(batch, num_frames, num_mels, 1)``, floating to float32.

    Raises:
      ValueError: an argument is negative or, when a batch is given, a mask is wider than its spectrograms.
    """
    for name, value in {"max_shift": max_shift, "time_mask": time_mask, "mel_mask": mel_mask}.items():
        if value < 0:
            raise ValueError(f"{name}: must not be negative, got {value}.")

    def evaluate(spectrograms: jax.Array) -> jax.Array:
        _check_stored(spectrograms, time_mask, mel_mask)
        x = spectrograms.astype(jnp.float32)
        x = x - _mean(x)
        deviation = jnp.sqrt(_mean(jnp.square(x)))
        return x / jnp.maximum(deviation, SMALLEST_DEVIATION)

    def augment(key: jax.Array, x: jax.Array) -> jax.Array:
        draws = jax.random.uniform(key, (5,))
        shift = (draws[0] * (2 * max_shift + 1)).astype(jnp.int32) - max_shift
        time = _stretch(draws[1:3], x.shape[0], time_mask)
        band = _stretch(draws[3:5], x.shape[1], mel_mask)
        masked = time[:, None] | band[None, :]
        x = jnp.roll(x, shift, axis=0)
        return jnp.where(masked[..., None], 0, x)

    def train(key: jax.Array, spectrograms: jax.Array) -> jax.Array:
        x = evaluate(spectrograms)
        return per_example(augment, key, x) if max_shift or time_mask or mel_mask else x

    return FrontEnd(train, evaluate)


def _hop(samples: int, num_frames: int) -> int:
    hop = samples // (num_frames - 1) if num_frames > 1 else 0
    if hop < 1 or 1 + samples // hop != num_frames:
        raise ValueError(f"num_frames: {samples} samples cannot be cut into {num_frames} evenly spaced frames.")
    return hop


def _mean(x: jax.Array) -> jax.Array:
    """Returns the mean of each example, shape ``(batch, 1, 1, 1)``, bit-identical in a batch of any size.

    ``jnp.mean`` adds in an order that the compiler chooses by the shape of a device's share of the batch. Here halves
    are added to each other, which is also closer: the mean of 1,024 equal numbers is that number.
    """
    sums = x.reshape(len(x), -1)
    size = sums.shape[1]
    sums = jnp.pad(sums, ((0, 0), (0, (1 << (size - 1).bit_length()) - size)))
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums.reshape(-1, 1, 1, 1) / size


def _stretch(draws: jax.Array, size: int, widest: int) -> jax.Array:
    """Returns which of ``size`` places lie in a stretch of random width, up to ``widest``, at a random start."""
    width = (draws[0] * (widest + 1)).astype(jnp.int32)
    start = (draws[1] * (size - width + 1)).astype(jnp.int32)
    place = jnp.arange(size)
    return (place >= start) & (place < start + width)


def _check_stored(spectrograms: jax.Array, time_mask: int, mel_mask: int) -> None:
    if not jnp.issubdtype(spectrograms.dtype, jnp.floating):
        raise TypeError(f"spectrograms: need floating decibels, not {spectrograms.dtype}; see log_mel.")
    if spectrograms.ndim != 4:
        raise ValueError(f"spectrograms: a batch is (batch, num_frames, num_mels, 1), not {spectrograms.shape}.")
    if time_mask > spectrograms.shape[1] or mel_mask > spectrograms.shape[2]:
        raise ValueError(
            f"time_mask, mel_mask: {time_mask} and {mel_mask} are wider than spectrograms of {spectrograms.shape[1]} "
            f"frames and {spectrograms.shape[2]} bands."
        )
