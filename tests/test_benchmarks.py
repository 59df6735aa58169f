"""The benchmarks: their page is what their files say, and each can be run."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bsojax
from benchmarks import bits, forward, memory, profile, render
from benchmarks.accelerator import page as accelerator_page
from benchmarks.accelerator.jobs import FLIPS, KINDS, LATENT, LIMITS, Options, jobs
from benchmarks.accelerator.measure import one

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_files_say():
    results = render.load(ROOT)
    assert {"memory", "bits"} <= set(results)
    assert (ROOT / "docs" / "BENCHMARKS.md").read_text() == render.benchmarks(results)


@pytest.mark.parametrize(
    "missing",
    ["memory", "bits", "speed", "compile_time", "profile", "epoch", "forward", "popcount", "peers", "accelerator"],
)
def test_a_part_that_was_not_measured_says_how_to(missing):
    results = {name: result for name, result in render.load(ROOT).items() if name != missing}
    assert "Not measured yet: `" in render.benchmarks(results)


@pytest.mark.slow
def test_the_pages_figures_of_memory_are_those_that_the_compiler_gives():
    rows = {(row["step"], row["T"]): row for row in render.load(ROOT)["memory"]["result"]["rows"]}
    for name in ("float32", "bfloat16 activations, packed signs, int8 momentum"):
        make, steps = memory.kinds()[name]
        row = rows[name, steps[0]]
        written = row["arguments"] + row["temporaries"]
        assert sum(make(steps[0])) == pytest.approx(written, rel=0.01)


@pytest.mark.slow
def test_bits_are_counted_of_what_is_held():
    rows = bits.measure()["rows"]
    assert rows["packed signs, int8 momentum"]["signs"] == 1
    assert 8 <= rows["packed signs, int8 momentum"]["momentum"] < 8.02
    assert sum(rows["latent float32 weights, Adam"].values()) == pytest.approx(96, abs=0.01)


@pytest.mark.slow
@settings(max_examples=5)  # each one compiles
@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 3), st.integers(1, 5)),
    rate=st.sampled_from([0.0, 0.3, 1.0]),
    seed=st.integers(0, 2**16),
)
def test_products_of_bits_are_the_products(shape, rate, seed):
    rows, words, outputs = shape
    random = np.random.default_rng(seed)
    spikes = jnp.asarray(random.random((rows, 32 * words)) < rate, jnp.float32)
    signs = jnp.asarray(random.random((32 * words, outputs)) < 0.5)
    wanted = spikes @ bsojax.to_weights(signs)
    np.testing.assert_array_equal(forward.popcount_product(spikes, forward.words(signs.T)), wanted)
    np.testing.assert_array_equal(forward.int8_product(spikes, signs), wanted)


@pytest.mark.slow
def test_the_accelerators_benchmark_runs_anywhere():
    options = Options(batches=(2,), num_steps=2, image=8, channels=(4, "M", 8), repeats=5, matrix=32, weights=2**12)
    found = {job: one(options, job) for job in jobs(options)}
    limits, flips = found[LIMITS], found[FLIPS]
    rows = [row for job, row in found.items() if job not in (LIMITS, FLIPS)]
    assert len(rows) == len(KINDS)
    assert all(row["longest operations"] for row in rows)
    numbers = [*limits.values(), *(row["images a second"] for row in rows)]
    assert all(math.isfinite(number) and number > 0 for number in numbers)
    assert set(flips) == {"float32", "int16", "int8"}
    told = "\n".join(accelerator_page.tell({"jobs": found, "SpikingJelly": "not importable here"}))
    assert all(kind in told for kind in KINDS)


def test_the_accelerators_page_tells_shares_and_failures():
    job = f"{LATENT}; batch 128"
    row = {
        "images a second": 1000.0,
        "peak bytes in use": None,
        "compiled bytes": 3 * 2**20,
        "longest operations": [{"operation": "convolution", "share": 0.5}],
        "FLOP/s of the convolutions": 2e13,
    }
    limits = dict.fromkeys(KINDS, 1e14) | {"float32, tf32 products": 8e13, "memory, bytes/s": 1e12}
    failed = {"float32, highest precision; batch 512": {"error": "out of memory"}}
    result = {"jobs": {LIMITS: limits, job: row} | failed, "SpikingJelly": "not importable here"}
    told = "\n".join(accelerator_page.tell(result))
    assert f"| {LATENT} | 128 | 1,000 | 3 | 25% | convolution 50% |" in told
    assert "batch 512 failed: out of memory" in told


def test_a_compiled_programs_instructions_are_told_apart():
    text = jax.jit(lambda x: jnp.tanh(x @ x)).lower(jnp.ones((4, 4))).compile().as_text()
    found = profile.instructions(text)
    assert any(instruction["dense"] for instruction in found.values())
    assert any(not instruction["dense"] for instruction in found.values())
