"""The README: its example runs and learns, its figures are those of the committed results."""

import contextlib
import io
import json
import re
from pathlib import Path

import jax
import pytest

import bsojax
from experiments.evidence import render, results

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_learns_and_its_network_is_read_back(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
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


def test_the_table_is_what_the_results_file_says():
    shown = re.search(r"<!-- digits -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == render.readme_table(results.load(ROOT)["rivals"])


def test_a_stranger_reads_it_in_a_minute():
    assert len(README.splitlines()) <= 120
    assert README.count("![") == 1
    assert README.count("<!-- digits -->") == 1


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#]+)", README))))
def test_what_it_links_to_is_there(link):
    assert link.startswith("https://") or (ROOT / link).exists()


def test_the_sizes_on_a_device_are_those_of_the_benchmark():
    found = json.loads((ROOT / "benchmarks" / "results" / "edge.json").read_text())["result"]["rows"]["digits network"]
    constants, scratch, floats = (found[f"{name} bytes"] for name in ("constant", "scratch", "float32"))
    said = re.search(r"(\d+) kB of constants\s+instead\s+of\s+(\d+)\s+kB,\s+needs\s+(\d+)\s+kB", README)
    assert [round(size / 1000) for size in (constants, floats, scratch)] == list(map(int, said.groups()))


@pytest.mark.parametrize("target", ["train", "deploy", "test", "test-all", "docs-serve", "evidence"])
def test_make_knows_what_the_readme_names(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
