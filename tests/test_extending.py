"""docs/EXTENDING.md as a user follows it: a rival and a data set are added to a copy of the experiments, and train."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "EXTENDING.md").read_text()

RUN = """
import sys
from experiments.train import main
for words in (
    ["stripes", "--no-control", "--output", "stripes"],
    ["stripes", "--no-control", "--output", "lion", "--optimizer", "lion", "--weight-decay", "0.01"],
):
    main(words)
main(["stripes", "--optimizer", "sltt", "--weight-decay", "0.01", "--output", "refused"])
"""


def blocks():
    """The code of the page: the file that the words before it name last in their line, its language, and its lines."""
    found = re.findall(r"([^\n]*\n?[^\n]*):\n\n```(python|diff)\n(.*?)```", PAGE, re.DOTALL)
    return [(re.findall(r"`(experiments/\S+\.py)`$", words), kind, code) for words, kind, code in found]


def changed(text, diff):
    """A text with a change: lines without a sign are found in it, those with a minus go, those with a plus come."""
    for hunk in diff.split("@@\n"):
        lines = hunk.splitlines(keepends=True)
        old = "".join(line[1:] for line in lines if line[0] in " -")
        assert text.count(old) == 1, old
        text = text.replace(old, "".join(line[1:] for line in lines if line[0] in " +"))
    return text


@pytest.fixture(scope="module")
def extended(tmp_path_factory):
    """A copy of the experiments with what the page adds, and what it printed when they were trained."""
    place = tmp_path_factory.mktemp("extended")
    shutil.copytree(ROOT / "experiments", place / "experiments", ignore=shutil.ignore_patterns("__pycache__"))
    touched, script = [], None
    for paths, kind, code in blocks():
        if not paths:
            script = code
            continue
        file = place / paths[0]
        assert file.exists() == (kind == "diff")
        file.write_text(changed(file.read_text(), code) if kind == "diff" else code)
        touched.append(paths[0])
    path = os.pathsep.join([str(place), str(ROOT)])  # the copy comes first
    environment = {**os.environ, "PYTHONPATH": path, "TFDS_DATA_DIR": str(place / "data")}
    done = subprocess.run(
        [sys.executable, "-c", script + RUN], cwd=place, env=environment, capture_output=True, text=True, check=False
    )
    return place, touched, done


def test_the_page_touches_no_more_files_than_it_says(extended):
    _, touched, _ = extended
    assert touched == [
        "experiments/rules/lion.py",
        "experiments/rules/__init__.py",
        "experiments/config.py",
        "experiments/data/known.py",
        "experiments/configs/stripes.py",
    ]


def test_the_rival_and_the_data_set_of_the_page_train(extended):
    place, _, done = extended
    assert done.returncode == 2, done.stderr  # of the last command, which is refused
    assert done.stderr.endswith(
        "error: --weight-decay: 'sltt' has no such setting; leave it out. It has --latent-learning-rate.\n"
    )
    lion = json.loads((place / "lion" / "summary.json").read_text())["results"]["Lion"]
    assert lion["flip_ratio"] > 0
    stripes = json.loads((place / "stripes" / "summary.json").read_text())["results"]["T-BSO, calibrated"]
    assert stripes["accuracy"] == 1
