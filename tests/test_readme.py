"""The README: its example runs and learns, its figures are those of the committed results."""

import contextlib
import io
import json
import re
from pathlib import Path

import jax
import pytest

from experiments.configs import CONFIGS
from experiments.evidence import render
from experiments.evidence.readings import OURS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()


def test_the_example_runs_and_learns():
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 24
    printed, names = io.StringIO(), {}
    # The example is written as users write: with jax's default of promoting ranks.
    with jax.numpy_rank_promotion("allow"), contextlib.redirect_stdout(printed):
        exec(code, names)
    accuracy = re.search(r"'accuracy': Array\(([\d.]+)", printed.getvalue())
    assert accuracy is not None
    assert float(accuracy.group(1)) > 0.8
    assert int(names["metrics"]["skipped"]) == 0


def test_the_table_is_what_the_results_file_says():
    shown = re.search(r"<!-- digits -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert shown is not None
    assert shown.group(1) == render.digits_table(render.load(ROOT)["rivals"])


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


@pytest.mark.parametrize("target", ["setup", "train", "test", "lint", "evidence"])
def test_make_knows_what_the_readme_names(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE)
