"""Every setting of an experiment, and every option of the command line, replaced by something else."""

import contextlib
import dataclasses
import io
from typing import Any

from fuzzing import Row, anything, arguments_of, fuzz, is_refusal, raised
from hypothesis import strategies as st

from experiments import train
from experiments.config import Config, Session, flag


def checked_config(**changes: Any) -> None:
    names = {field.name for field in dataclasses.fields(Session)}
    session = Session(**{name: value for name, value in changes.items() if name in names})
    rest = {name: value for name, value in changes.items() if name not in names}
    Config("digits", **({"session": session} | rest)).check()


SETTINGS: dict[str, Any] = {
    field.name: field.default for field in (*dataclasses.fields(Config), *dataclasses.fields(Session))
    if field.name not in ("dataset", "session")
}  # fmt: skip
CONFIG = Row(checked_config, {}, dict.fromkeys(SETTINGS, anything), 200)


def test_a_bad_setting_is_named_or_works():
    also = {"coordinator": ("num_processes", "output"), "resume": ("output",)}
    also |= dict.fromkeys(("num_processes", "process_id"), ("coordinator",))

    def is_refused(name: str, value: Any) -> bool:
        names = tuple(flag(each) for each in (name, *also.get(name, ())))
        return is_refusal(raised(lambda: checked_config(**{name: value})), names, Config.check.__doc__)

    checked_config()
    fuzz(arguments_of(CONFIG), CONFIG.examples, is_refused)


def test_a_bad_option_ends_with_its_name_and_status_2(monkeypatch):
    class Accepted(Exception):
        """The settings were in order, and a run would begin."""

    def accept(session: Session) -> None:
        raise Accepted

    monkeypatch.setattr(train, "start_processes", accept)
    # A flag without a value says so, and what follows it is refused by what it is.
    valued = sorted(name for name, default in SETTINGS.items() if not isinstance(default, bool) and name != "channels")
    words = st.sampled_from(
        ["", "abc", "0", "-1", "nan", "inf", "-inf", "1e400", "1.5", "9" * 400, "1,2", "\u00b2", "a b", "\0"]
    )  # fmt: skip
    texts = st.one_of(words, st.text(st.characters(codec="utf-8"), max_size=4), st.floats().map(str))
    values = texts.filter(lambda text: not text.startswith("-") or text[1:2].isdigit())

    def is_refused(name: str, value: str) -> bool:
        said = io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            end = raised(lambda: train.main(["digits", flag(name), value]))
        if isinstance(end, Accepted):
            return False
        assert isinstance(end, SystemExit), repr(end)
        assert end.code == 2
        of_processes = ["--coordinator", "--num-processes", "--output"]
        names = [flag(name), *(of_processes if flag(name) in (*of_processes, "--process-id") else [])]
        assert any(each in said.getvalue() for each in names), said.getvalue()
        return True

    fuzz(st.tuples(st.sampled_from(valued), values), 200, is_refused)
