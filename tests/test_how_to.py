"""docs/how-to and docs/explanation as a user follows them: the code runs, names and links are there, figures hold."""

import contextlib
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bsojax
import bsojax.nnx
import bsojax.plots

ROOT = pathlib.Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*(DOCS / "how-to").glob("*.md"), *(DOCS / "explanation").glob("*.md")])
WITH_CODE = [path.stem for path in PAGES if "```python" in path.read_text() and path.stem != "index"]
QUOTING = ("flips", "online-gradients", "deployed-signs")
each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: f"{path.parent.name}/{path.stem}")


def code_of(name):
    return re.findall(r"```python\n(.*?)```", (DOCS / "how-to" / f"{name}.md").read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def begun():
    """What the first page of the how-to defines, with which all others begin."""
    names = {}
    (code,) = code_of("index")
    exec(code, names)
    return names


def says(**wanted):
    """A check that names have these values, or meet these conditions."""

    def check(found):
        for name, value in wanted.items():
            assert value(found[name]) if callable(value) else found[name] == value, name

    return check


CHECKS = {
    "optimizer-chain": says(
        refused=lambda text: "int8" in text and "kernel" in text,
        metrics=lambda metrics: metrics["skipped"] == 0,
        weights=lambda weights: weights["kernel"].dtype == bool and not weights["kernel"].all(),
    ),
    "schedules": says(halfway=lambda rate: np.isclose(rate, 0.05)),
    "freeze": says(momentum=0),
    "change-classes": says(
        left_fresh=["params/readout/bias", "params/readout/kernel"], metrics=lambda metrics: metrics["skipped"] == 0
    ),
    "save-and-load": says(answers=lambda answers: answers.shape == (8, 3), metrics=lambda m: m["skipped"] == 0),
    "resume": lambda found: jax.tree.map(
        np.testing.assert_array_equal, found["went_on"].signs, found["step"](found["state"], *found["batch"])[0].signs
    ),
    "targets": says(told=lambda told: set(told) == {"loss", "mae"}, metrics=lambda metrics: metrics["skipped"] == 0),
    "unequal-lengths": says(told=lambda told: np.isfinite(told["loss"])),
    "streams": says(outputs=lambda outputs: outputs.shape == (8, 3)),
    "random-keys": says(pixels=lambda pixels: pixels.shape == (4, 8, 5) and set(np.unique(pixels)) == {0, 1}),
    "inputs-and-heads": says(metrics=lambda m: {"loss", "flips", "spikes", "skipped"} == set(m) and m["skipped"] == 0),
    "layers": says(metrics=lambda metrics: len(metrics["spikes"]) == 2 and metrics["skipped"] == 0),
    "nnx": says(value=np.isfinite, logits=lambda logits: logits.shape == (8, 3)),
    "ensembles": says(logits=lambda logits: logits.shape == (3, 8, 3), answers=lambda answers: answers.shape == (8,)),
    "record-spikes": says(
        crossings=lambda same: same.all(), rates=lambda rates: set(rates) == {"neuron_0", "neuron_1"}
    ),
    "silent-neurons": says(
        silent=lambda silent: set(silent) == {"neuron_0", "neuron_1"}, metrics=lambda m: m["skipped"] == 0
    ),
    "not-finite": says(skipped=4, in_all=4, told=lambda text: text.startswith("x")),
    "stale-statistics": says(told=lambda told: np.isfinite(told["loss"]), model=lambda model: model.norm is not None),
    "mixed-precision": says(kept={"float32"}, metrics=lambda metrics: metrics["skipped"] == 0),
    "save-memory": says(
        report=lambda report: (
            report["signs"] == report["signs_packed"] == 16 * 16 // 8
            and report["momentum"] == 16 * 16 + 4 * 16
            and report["step_temporaries"] > 0
        )
    ),
    "many-devices": says(mesh=lambda mesh: mesh.size == 8, metrics=lambda metrics: metrics["skipped"] == 0),
    "switch": says(leaky=lambda lif: np.isclose(lif.tau, 10), lif_node=lambda lif: lif.v_reset == 0),
    "run-folder": says(accuracies=[0.5]),
}


SLOW = ("ensembles", "layers", "nnx", "random-keys", "record-spikes", "save-memory", "targets", "unequal-lengths")
"""Pages that compile much, of what the tests of examples and of the parts compile too."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in WITH_CODE]
)
def test_the_code_of_a_page_runs_and_does_what_it_says(name, begun, tmp_path):
    found = {**begun, "state": jax.tree.map(jnp.copy, begun["state"]), "rng": np.random.default_rng(0)}
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "metrics.jsonl").write_text('{"eval_accuracy": 0.5}\n')
    with contextlib.chdir(tmp_path), contextlib.redirect_stdout(None):
        for code in code_of(name):
            exec(code, found)
    CHECKS[name]({**found, "batch": (begun["x"], begun["y"])})


@each_page
def test_a_page_has_one_title_and_its_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        found = (path.parent / file).resolve() if file else path
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), target


def anchors(path):
    """The anchors of a page's headings, as both the site and a code host make them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def test_the_first_page_of_the_how_to_leads_to_all_others():
    listed = set(re.findall(r"\]\(([\w-]+)\.md\)", (DOCS / "how-to" / "index.md").read_text()))
    assert listed == {path.stem for path in PAGES if path.parent.name == "how-to"} - {"index"}


@each_page
def test_the_names_of_the_library_on_a_page_exist(path):
    for full in set(re.findall(r"\bbsojax((?:\.[A-Za-z_]\w*)+)", re.sub(r"[\w-]+\.bsojax", "", path.read_text()))):
        place = bsojax
        for part in full.strip(".").split("."):
            assert hasattr(place, part), f"bsojax{full}"
            place = getattr(place, part)


def test_figures_of_the_explanation_are_those_that_were_computed():
    result = json.loads((DOCS / "results" / "explained.json").read_text())
    flips, gradients, hot = ((DOCS / "explanation" / f"{name}.md").read_text() for name in QUOTING)
    idle, delay = result["thresholds"]["flips_in_1000"], result["thresholds"]["updates_to_flip"]
    assert f"fall from {idle[0]:.3g} to {idle[-1]:.3g} in 1,000 updates" in flips
    assert f"rise from {delay[0]} to {delay[-1]}" in flips.replace("\n", " ")
    rows = re.findall(r"^\| (?:OTTT|none|NDOT).*?\|(.*)\|$", gradients, re.MULTILINE)
    shown = [[float(cell) for cell in row.split("|")] for row in rows]
    cosines = result["gradients"]["cosines"]
    wanted = [cosines[name] for name in ("OTTT", "none (SLTT)", "NDOT", "NDOT, released")]
    np.testing.assert_allclose(shown, np.mean(wanted, axis=-1), atol=5.1e-4)
    runs = result["training"]["calibrated"]
    early = {name: np.mean([[record[name] for record in run[:16]] for run in runs]) for name in ("trained", "deployed")}
    assert f"({100 * early['deployed']:.1f} against {100 * early['trained']:.1f} %)" in hot
