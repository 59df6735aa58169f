"""What compiling costs: processes that import a checkout's library, and the calls of a model that are counted."""

import json
import subprocess

import jax
import jax.numpy as jnp
import pytest

import bsojax
from benchmarks import compile_once, compile_time

SMALL = {"small": {"channels": [4, "M", 4], "image": [4, 4, 1], "batch": 2, "num_steps": 2}}


def test_calls_of_the_model_are_counted_but_not_those_of_its_layers():
    model, x = bsojax.models.SpikingMLP(features=(3,)), jnp.ones((1, 2))
    assert compile_once.calls(model, lambda: [model.init(jax.random.key(0), x) for _ in range(3)]) == 3
    assert compile_once.calls(model, lambda: bsojax.Dense(2).init(jax.random.key(0), x)) == 0


@pytest.mark.slow
def test_a_step_is_compiled_in_a_process_of_its_own_and_told_of():
    result = compile_time.measure({compile_time.HERE: compile_time.ROOT}, rounds=1, jobs=SMALL)
    (row,) = result["rows"]
    assert row["calls in a first call"] >= row["calls in a trace"] > 0
    assert all(row[part]["median"] > 0 for part in compile_time.PARTS)
    sentence, table, _ = compile_time.tell(json.loads(json.dumps(result)))
    assert "SpikingVGG(4, 'M', 4) on [4, 4, 1], batch 2, T = 2" in sentence
    assert table.splitlines()[2].startswith("| small | this checkout (")


def test_two_checkouts_take_turns_and_are_compared_within_a_round(monkeypatch):
    order = []

    def compiled(checkout, arguments):
        order.append(checkout)
        seconds = {"new": 1.0, "old": 4.0}[checkout] * len(order)  # the machine gets slower
        return dict.fromkeys(compile_time.PARTS, seconds) | dict.fromkeys(compile_time.COUNTS, 2)

    monkeypatch.setattr(compile_time, "compiled", compiled)
    monkeypatch.setattr(compile_time, "revision", {"new": f"{10**39}+", "old": None}.get)
    result = compile_time.measure({compile_time.HERE: "new", compile_time.THERE: "old"}, rounds=2, jobs={"small": {}})
    assert order == ["new", "old", "old", "new"]
    assert [row["ratio"]["median"] for row in result["rows"]] == [pytest.approx((1 / 8 + 4 / 12) / 2, rel=1e-3), 1.0]
    lines = [*compile_time.tell({**result, "jobs": {}})][1].splitlines()[2:]
    assert [line.split(" | ")[1] for line in lines] == ["this checkout (1000000+)", "the other checkout (no revision)"]


def test_the_library_is_that_of_the_checkout(tmp_path, capfd):
    (tmp_path / "bsojax").mkdir()
    (tmp_path / "bsojax" / "__init__.py").write_text("raise ImportError('the other library')")
    with pytest.raises(subprocess.CalledProcessError):
        compile_time.compiled(tmp_path, SMALL["small"])
    assert "the other library" in capfd.readouterr().err


def test_a_folder_without_the_library_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="is not a checkout of this repository"):
        compile_time.main(against=tmp_path)
