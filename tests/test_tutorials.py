"""The tutorials as a reader runs them: each ends, draws, and prints what its text says."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "tutorials"
FILES = sorted(FOLDER.glob("*.py"))
each_tutorial = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)

RUN = """
import runpy, sys
runpy.run_path(sys.argv[1], run_name="__main__")
import matplotlib.pyplot as plt
print(len(plt.get_fignums()), "pictures")
"""


def cells(path):
    """Pairs of whether a cell is Markdown, and its text."""
    parts = re.split(r"^# %%(.*)\n", path.read_text(), flags=re.MULTILINE)
    assert parts[0].strip() == "", "something stands before the first cell"
    return [("[markdown]" in head, text.strip()) for head, text in zip(parts[1::2], parts[2::2], strict=True)]


def share(pattern, text):
    """The percentages that follow a pattern in what was printed, as numbers."""
    found = [float(value) for value in re.findall(pattern + r"\D*?(-?\d+\.\d+)%", text)]
    assert found, f"nothing printed fits {pattern}"
    return found


EXPECTED = {}
"""What must hold of what is printed."""


def expected(stem):
    return lambda check: EXPECTED.setdefault(stem, check)


@expected("1-first-network")
def _(text):
    (trained,), (frozen,) = share("test accuracy", text)[:1], share("frozen signs", text)
    assert trained > 90 > 85 > frozen


@expected("2-your-own-data")
def _(text):
    assert share("images:", text)[0] > 85
    assert share("events:", text)[0] > 85
    assert share("sound:", text) == share("nonsense for padding:", text) > [80]
    assert "TypeError: x" in text
    assert "ValueError: y" in text


@expected("3-your-own-model")
def _(text):
    flips = [float(value) for value in re.findall(r"(\d+\.\d+) flips per weight", text)]
    assert flips == sorted(flips, reverse=True)
    accuracies = share("flips per weight, test accuracy", text)
    assert max(accuracies) > accuracies[-1] + 3
    assert text.count("kernel'") == 2
    assert re.findall(r"(\d+) signs wrong", text)[-1] == "0"


@expected("4-memory-budget")
def _(text):
    rows = re.findall(r"^(\w.*?)  +(\d+\.\d)  (\d+\.\d)%  \(", text, re.MULTILINE)
    bits = {name: float(value) for name, value, _ in rows}
    accuracies = {name: float(value) for name, _, value in rows}
    assert round(bits["latent weights, Adam"]) == 96
    assert bits["counter, 3 bits"] == 3
    assert accuracies["counter, 6 bits"] > accuracies["latent weights, Adam"] - 4
    assert accuracies["counter, 3 bits"] > accuracies["frozen signs"] + 10
    found = re.findall(r"^(T = \d+) +arguments .* temporaries +(\S+) bytes", text, re.MULTILINE)
    temporaries = {name: int(value.replace(",", "")) for name, value in found}
    assert temporaries["T = 64"] < 1.01 * temporaries["T = 4"]


@expected("5-to-the-edge")
def _(text):
    assert abs(share("in JAX, float32:", text)[0] - share("in whole numbers:", text)[0]) < 1
    assert "False" not in re.sub(r"^C compiler:.*", "", text)
    assert all(count == "0" for count in re.findall(r"(\d+) answers differ", text))


@expected("6-adapt")
def _(text):
    before, after = share("the shipped network sees", text)[0], share("all signs, 6-bit counter", text)[0]
    assert after > before + 20


@expected("7-many-devices")
def _(text):
    assert len(re.findall(r"CpuDevice", text)) == 4
    ways = ("one device", "four devices", "split optimizer")
    alone, together, split = (float(re.search(rf"{way}: loss ([\d.]+)", text)[1]) for way in ways)
    assert abs(alone - together) < 0.1
    assert abs(together - split) < 0.1


@expected("8-your-own-rules")
def _(text):
    frozen = share("must beat:", text)[0]
    for name in ("built in:", "the most wrong:", "with the new trace:", "RMSNorm:"):
        assert share(name, text)[0] > frozen + 2, name


@pytest.mark.slow
@each_tutorial
def test_a_tutorial_runs_and_shows_what_it_says(path, tmp_path):
    environment = {
        **os.environ,
        "MPLBACKEND": "Agg",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",
        "XLA_FLAGS": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run(
        [sys.executable, "-c", RUN, path], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    pictures = int(done.stdout.splitlines()[-1].removesuffix(" pictures"))
    assert pictures >= 1
    assert not list(tmp_path.iterdir()), "a tutorial leaves files where it is run"
    EXPECTED[path.stem](done.stdout)


def test_there_are_eight_and_each_has_its_bar():
    assert [path.stem[:2] for path in FILES] == [f"{number}-" for number in range(1, 9)]
    assert {path.stem for path in FILES} == EXPECTED.keys()


@each_tutorial
def test_a_tutorial_is_a_notebook_with_a_heading_and_a_way_on(path):
    ast.parse(path.read_text())
    found = cells(path)
    prose = [text for is_markdown, text in found if is_markdown]
    for text in prose:
        assert all(line.startswith("#") for line in text.splitlines()), text
    assert re.match(r"# # \S", found[0][1])
    assert sum(len(re.findall(r"^# # ", text, re.MULTILINE)) for text in prose) == 1
    assert "# ## Where to go next" in found[-1][1]
    assert all(len(text.splitlines()) <= 36 for is_markdown, text in found if not is_markdown)


@each_tutorial
def test_what_a_tutorial_links_to_is_there(path):
    links = re.findall(r"\]\(([^)\s]+)\)", "\n".join(text for is_markdown, text in cells(path) if is_markdown))
    for link in links:
        assert link.startswith("https://") or (FOLDER / link).exists(), link


@each_tutorial
def test_a_tutorial_is_in_the_navigation(path):
    assert re.search(rf"tutorials/{re.escape(path.stem)}\.md$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
