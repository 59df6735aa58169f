"""What people who join rely on: one version, workflows and hooks that do what `make` does, a package to install."""

import importlib.metadata
import itertools
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_house import LAYERS

import bsojax

ROOT = Path(__file__).resolve().parents[1]
README, MAKEFILE = (ROOT / "README.md").read_text(), (ROOT / "Makefile").read_text()
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
PACKAGE = ROOT / ".ci" / "package.py"
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
TARGETS = set(re.findall(r"^([\w-]+):", MAKEFILE, re.MULTILINE))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def recipe(target):
    """The commands of a target of the Makefile."""
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)[1].replace("\t", "").splitlines()


def test_there_is_one_version():
    versions = re.findall(r"^## (\S+) - (?:Unreleased|\d{4}-\d\d-\d\d)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == bsojax.__version__
    assert CITATION["version"] == bsojax.__version__
    cure = "installed before it changed: touch pyproject.toml, then make setup"
    assert importlib.metadata.version("bsojax") == bsojax.__version__, cure


def test_the_citation_is_that_of_the_readme():
    bibtex = dict(re.findall(r"^  (\w+) += \{(.*?)\},?$", README, re.MULTILINE | re.DOTALL))
    paper = CITATION["preferred-citation"]
    names = [f"{author['family-names']}, {author['given-names']}" for author in paper["authors"]]
    assert names == re.split(r"\s+and\s+", bibtex["author"])
    assert paper["title"] == re.sub("[{}]", "", bibtex["title"])
    assert paper["collection-title"] == bibtex["booktitle"]
    assert (str(paper["volume"]), str(paper["year"])) == (bibtex["volume"], bibtex["year"])
    assert f"{paper['start']}--{paper['end']}" == bibtex["pages"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_call_targets_of_the_makefile(path):
    for name, job in yaml.safe_load(path.read_text())["jobs"].items():
        assert job["timeout-minutes"] <= 150, name
        commands = [step["run"] for step in job["steps"] if "run" in step]
        called = [command.split()[1] for command in commands if command.startswith("make ")]
        assert called, f"{name} calls no target"
        assert set(called) <= TARGETS, name
        assert all(command.startswith(("make ", "sudo apt-get ")) for command in commands), name


def test_what_continuous_integration_runs_the_workflows_run():
    told = "".join(path.read_text() for path in WORKFLOWS)
    for command in re.findall(r"^ *(make [\w-]+)", (ROOT / ".ci" / "run").read_text(), re.MULTILINE):
        assert re.search(rf"run: {command}\b", told), command


def test_hooks_before_a_commit_are_make_lint():
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = [hook["entry"] for hook in repository["hooks"]]
    assert hooks == [command.replace("$(RUN)", ".venv/bin/python") for command in recipe("lint")]
    assert not any(hook["pass_filenames"] for hook in repository["hooks"])


@pytest.mark.parametrize(
    "name", ["CONTRIBUTING.md", "CHANGELOG.md", "docs/POLICY.md", ".github/pull_request_template.md"]
)
def test_pages_for_those_who_join_name_files_and_targets_that_exist(name):
    page = (ROOT / name).read_text()
    for link in re.findall(r"\]\(([^)]*)\)", page):
        if not link.startswith("https://"):
            file, _, anchor = link.partition("#")
            linked = (ROOT / name).parent / file
            assert linked.exists(), link
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE) if anchor else []
            anchors = [re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings]
            assert not anchor or anchor in anchors, link
    assert set(re.findall(r"`make ([\w-]+)", page)) <= TARGETS


def test_the_picture_of_the_house_shows_its_rooms_from_top_to_bottom():
    (picture,) = re.findall(r"```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    rooms = [room for line in picture.splitlines() for room in re.findall(r"\w+", line[:25])]
    assert sorted(rooms) == sorted(LAYERS)
    pairs = {frozenset(("losses", "encoders")), frozenset(("_validate", "_jax"))}  # side by side
    places = [LAYERS.index(room) for room in rooms]
    for before, after in itertools.pairwise(places):
        assert before > after or frozenset((LAYERS[before], LAYERS[after])) in pairs


def test_the_policy_names_the_public_sub_packages():
    page = (ROOT / "docs" / "POLICY.md").read_text()
    public = re.search(r"\*\*Public:\*\* (.*?), their arguments", page, re.DOTALL)[1]
    assert set(re.findall(r"`(\w+)`", public)) == {room for room in LAYERS if not room.startswith("_")} | {"bsojax"}


def test_what_a_distribution_lacks_or_should_not_hold_is_told():
    names = runpy.run_path(str(PACKAGE))
    assert names["differences"]({"a", "b"}, {"b", "c"}) == [
        "missing: c",
        "not to be shipped, or not tracked by git: a",
    ]
    assert names["lowest_versions"](["jax>=0.10", 'nir>=1.0.8; extra == "nir"']) == ["jax==0.10"]
    assert "bsojax.make_train_step" in names["example"](README)
    with pytest.raises(SystemExit, match="0 do"):
        names["example"]("```python\nprint()\n```\n")
    assert {"bsojax/py.typed", "bsojax/deploy/c/runtime.c"} <= names["tracked"]("bsojax")


@pytest.mark.slow
def test_the_wheel_of_the_sdist_runs_the_example_with_the_lowest_versions(tmp_path):
    oldest = sys.executable if sys.version_info[:2] == (3, 11) else shutil.which("python3.11")
    if oldest is None:
        pytest.skip("needs Python 3.11, the oldest that is supported; `make package` tries the newest too")
    command = [sys.executable, str(PACKAGE), str(tmp_path / "dist"), "--lowest", oldest]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2, done.stdout
    line = rf"^Python 3\.11\.\d+, jax 0\.10\.0, bsojax {re.escape(bsojax.__version__)}: "
    assert re.search(line, done.stdout, re.MULTILINE), done.stdout
