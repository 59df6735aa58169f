"""The README: its example runs and learns, its figures are those of the committed results."""

import contextlib
import io
import json
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

import bsojax
from experiments.configs import CONFIGS
from experiments.evidence import render, results
from experiments.evidence.compared import OURS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_learns_and_its_network_is_read_back(tmp_path):
    code, _ = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    printed, names = io.StringIO(), {}
    # The example is written as users write: with jax's default of promoting ranks.
    with jax.numpy_rank_promotion("allow"), contextlib.redirect_stdout(printed), contextlib.chdir(tmp_path):
        exec(code, names)
    accuracy = re.search(r"'accuracy': Array\(([\d.]+)", printed.getvalue())
    assert accuracy is not None
    assert float(accuracy.group(1)) > 0.8
    assert int(names["metrics"]["skipped"]) == 0
    saved = bsojax.load_model(tmp_path / "digits.bsojax", names["Net"]())
    metrics = bsojax.make_eval_step(saved.model, num_steps=4)(saved.state, names["x"][1440:], names["y"][1440:])
    assert float(metrics["accuracy"]) == pytest.approx(float(accuracy.group(1)), abs=1e-3)


def test_the_options_that_save_memory_are_as_it_says():
    _, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    model, x, y = bsojax.models.SpikingMLP(features=(16, 16)), jnp.ones((4, 5)), jnp.arange(4)
    tx = bsojax.split_optimizer(flip=bsojax.t_bso(5e-7, num_steps=4, momentum_dtype="int8"), real=optax.sgd(0.1))
    names = {"bsojax": bsojax, "model": model, "tx": tx, "key": jax.random.key(0), "x": x, "y": y}
    exec(code, names)
    report = eval(code.splitlines()[-1].split("#")[0], names)
    assert report["signs"] == report["signs_packed"] == 16 * 16 // 8
    assert report["momentum"] == 16 * 16 + 4 * 16
    _, metrics = names["step"](names["state"], x, y)
    assert int(metrics["skipped"]) == 0


def test_the_table_is_what_the_results_file_says():
    shown = re.search(r"<!-- digits -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == render.readme_table(results.load(ROOT)["rivals"])


def test_the_settings_named_are_those_of_the_results():
    path = ROOT / "docs" / "results" / "rivals-digits.json"
    result = json.loads(path.read_text())["rows"][OURS]["settings"]
    config = CONFIGS["digits"][1]
    for name in ("channels", "num_steps", "batch_size", "epochs", "preset", "learning_rate"):
        value = getattr(config, name)
        assert result[name] == (list(value) if isinstance(value, tuple) else value), name
    text = README.replace("\n", " ")
    assert f"channels {'-'.join(map(str, config.channels))}, T = {config.num_steps}, batch" in text
    assert f"{config.batch_size}, {config.epochs} epochs" in text


def test_the_sizes_on_a_device_are_those_of_the_benchmark():
    found = json.loads((ROOT / "benchmarks" / "results" / "edge.json").read_text())["result"]["rows"]["digits network"]
    constants, scratch, floats = (found[f"{name} bytes"] for name in ("constant", "scratch", "float32"))
    said = re.search(r"(\d+) kB of constants in the\s+place of (\d+) kB and (\d+) kB of memory", README)
    assert [round(size / 1000) for size in (constants, floats, scratch)] == list(map(int, said.groups()))


@pytest.mark.parametrize("target", ["setup", "train", "test", "lint", "evidence"])
def test_make_knows_what_the_readme_names(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
