"""The TPU's own compiler on the digits step, where libtpu is at hand (`make tpu`), and the page on what it said."""

import dataclasses
from pathlib import Path

import pytest

from benchmarks import render
from benchmarks.tpu import __main__ as main
from benchmarks.tpu.jobs import JIT, Job, jobs

ROOT = Path(__file__).resolve().parents[1]
PYTHON = ROOT / ".venv-tpu" / "bin" / "python"
needs_libtpu = pytest.mark.skipif(not PYTHON.exists(), reason="there is no .venv-tpu: `make tpu` makes it")


def test_the_page_is_what_the_file_says():
    assert (ROOT / "docs" / "ACCELERATORS.md").read_text() == render.accelerators(render.load(ROOT))


def test_without_the_file_the_page_says_how_to_measure():
    results = {name: result for name, result in render.load(ROOT).items() if name != "tpu"}
    assert "Not measured yet: `make tpu`" in render.accelerators(results)


def test_what_is_in_the_file_is_not_compiled_again():
    every = list(jobs())
    assert len(set(every)) == len(every)
    rows = [{"job": dataclasses.asdict(job)} for job in every[1:]]
    assert list(main.missing(rows)) == every[:1]
    assert list(main.missing([], ("VGG-11",))) == [job for job in every if job.network == "VGG-11"]


def test_the_error_of_a_process_is_told_without_its_traceback():
    log = (
        'Traceback\n  File "a.py"\nValueError: first\n\nTraceback\n  File "b.py"\njax.errors.JaxRuntimeError: no:\nmore'
    )
    assert main.raised(log) == "jax.errors.JaxRuntimeError: no: more"
    assert main.raised("stopped") == "stopped"
    assert len(main.raised("ValueError: " + "x" * 999)) == main.LONGEST


def compiled(job, monkeypatch):
    monkeypatch.setattr(main.sys, "executable", str(PYTHON))
    for name in ("XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"):  # the tests' own; they would be the program's too
        monkeypatch.delenv(name, raising=False)
    for name, value in main.WITHOUT_TPU.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(ROOT)
    row = main.compiled(job, main.Options())
    assert "error" not in row, row
    return row


@pytest.mark.slow
@needs_libtpu
def test_a_step_takes_the_same_bytes_of_a_chip_at_every_number_of_time_steps(monkeypatch):
    few, many = (compiled(Job(num_steps=num_steps), monkeypatch) for num_steps in (2, 32))
    assert (few["arguments"], few["temporaries"]) == (many["arguments"], many["temporaries"])
    assert not {"f64", "c128"} & set(few["dtypes"])


@pytest.mark.slow
@needs_libtpu
def test_four_chips_exchange_the_gradients_once_a_time_step_and_little_else(monkeypatch):
    row = compiled(Job(way=JIT, chips=4), monkeypatch)
    kinds = {one["kind"] for one in row["collectives"] if one["in loop"]}
    assert kinds == {"all-reduce"}
    # A ring of four sends 2 * 3/4 of what it reduces: all kernels' gradients in float32.
    kernels = 9 * (16 + 16 * 32 + 32 * 64 + 64 * 64) + 64 * 10
    assert row["sent a time step"]["gradients"] == 4 * kernels * 3 // 2
