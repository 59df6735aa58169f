"""What a command line and the folder of a run can hold: it is taken, or ends with one message and status 2."""

import contextlib
import dataclasses
import io
import shutil
from typing import Any

from faults import SMALL
from fuzzing import fuzz, raised
from hypothesis import strategies as st
from test_report import made

from experiments import build, report, train
from experiments.config import Config, Session, flag
from experiments.configs import CONFIGS
from experiments.data import load
from experiments.running import compiled

SETTINGS: dict[str, Any] = {
    field.name: field.default for field in (*dataclasses.fields(Config), *dataclasses.fields(Session))
    if field.name not in ("dataset", "session")
}  # fmt: skip


class Accepted(Exception):
    """Everything was in order, and a run would begin."""


def accept(*_: Any) -> None:
    raise Accepted


def refused(main: Any, *arguments: str) -> str:
    """What a command says before it ends with status 2; nothing where it goes on."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO() if main is report.main else said):
        end = raised(lambda: main(list(arguments)))
    if end is None or isinstance(end, Accepted):
        return ""
    assert isinstance(end, SystemExit), repr(end)
    assert end.code == 2
    assert "Traceback" not in said.getvalue()
    return said.getvalue()


def test_a_bad_option_ends_with_its_name_and_status_2(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where folders of the names drawn are made
    monkeypatch.setattr(train, "start_processes", accept)
    monkeypatch.setattr(compiled.jax.config, "update", accept)
    # A flag without a value says so, and what follows it is refused by what it is.
    valued = sorted(name for name, default in SETTINGS.items() if not isinstance(default, bool) and name != "channels")
    words = st.sampled_from(
        ["", "abc", "0", "-1", "nan", "inf", "-inf", "1e400", "1.5", "9" * 400, "1,2", "\u00b2", "a b", "\0"]
    )  # fmt: skip
    texts = st.one_of(words, st.text(st.characters(codec="utf-8"), max_size=4), st.floats().map(str))
    values = texts.filter(lambda text: not text.startswith("-") or text[1:2].isdigit())

    def check(case: tuple[str, str]) -> bool:
        name, value = case
        said = refused(train.main, "digits", flag(name), value)
        of_processes = ["--coordinator", "--num-processes", "--output"]
        names = [flag(name), *(of_processes if flag(name) in (*of_processes, "--process-id") else [])]
        assert not said or any(each in said for each in names), said
        return bool(said)

    outcomes = fuzz(st.tuples(st.sampled_from(valued), values), 100, check)
    assert 25 <= sum(outcomes) < len(outcomes)


def truncated(content: bytes, place: int) -> bytes:
    return content[: place % max(len(content), 1)]


def flipped(content: bytes, place: int) -> bytes:
    place %= len(content)
    return content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :]


def replaced(content: bytes, place: int) -> bytes:
    return [b"", b"[]", b"null\n", b"{}\n", b'"config"', b"\xff\xfe", b'{"config": [], "name": 3, "data": {}}'][
        place % 7
    ]


damages = st.tuples(st.sampled_from([truncated, flipped, replaced]), st.integers(0, 2**16))


def damaged(folder, source, name, damage):
    """A copy of a run's folder with one of its files changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    change, place = damage
    (folder / name).write_bytes(change((folder / name).read_bytes(), place))
    return folder


def test_a_damaged_folder_is_reported_as_far_as_it_goes_or_refused_by_its_name(tmp_path):
    source = made(tmp_path / "whole", [0.5, 0.6])
    assert refused(report.main, str(source)) == ""

    def check(case: tuple[str, Any]) -> bool:
        folder = damaged(tmp_path / "run", source, *case)
        said = refused(report.main, str(folder))
        assert not said or str(folder) in said
        return bool(said)

    files = st.sampled_from(["config.json", "metrics.jsonl", "summary.json"])
    outcomes = fuzz(st.tuples(files, damages), 150, check)
    assert 30 <= sum(outcomes) < len(outcomes)


def test_a_run_whose_settings_are_damaged_is_not_resumed(tmp_path, monkeypatch):
    config = dataclasses.replace(SMALL, output=tmp_path / "run", data_dir=tmp_path / "data")
    data = load("digits", tmp_path / "data")
    run = build.prepare(config, data)
    monkeypatch.setattr(train, "load", lambda *_: data)
    monkeypatch.setattr(train, "prepare", lambda *_: run)
    monkeypatch.setattr(train, "execute", accept)
    monkeypatch.setitem(CONFIGS, "small", ("The small run.", config))
    assert refused(train.main, "small") == ""
    shutil.move(tmp_path / "run", tmp_path / "whole")
    assert refused(train.main, "small", "--resume") == ""

    def check(damage: Any) -> bool:
        folder = damaged(tmp_path / "run", tmp_path / "whole", "config.json", damage)
        said = refused(train.main, "small", "--resume")
        assert not said or (said.startswith("error: --resume") and str(folder) in said), said
        return bool(said)

    outcomes = fuzz(damages, 60, check)
    assert sum(outcomes) >= 20
