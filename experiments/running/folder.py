"""A run's folder: it holds one run, and one process at a time may write into it."""

import contextlib
import dataclasses
import datetime
import fcntl
import json
import os
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import rules
from experiments.config import Config, as_json, flag, of_json
from experiments.environment import environment
from experiments.running.devices import agreed, is_first
from experiments.running.files import append_line, write_json

MODEL = "model.bsojax"
"""The trained network in a run's folder, as bsojax.save_model writes it; earlier runs have model.msgpack."""

FREE = ("session", "output", "data_dir", "control")
"""Settings that do not change the result of a training: they may differ when it is resumed."""


def resumed(folder: Path) -> tuple[str, Config] | None:
    """Returns the config's name and the settings that are written in a run's folder; None: no run.

    The session is not included.

    Raises:
      ValueError: they are damaged, or were edited.
    """
    path = folder / "config.json"
    if not path.exists():
        return None
    about, settings = _written(path)
    try:
        config = dataclasses.replace(of_json(settings), output=folder)
        config.check()
        return str(about["name"]), config
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


@contextlib.contextmanager
def entered(config: Config, name: str, data: dict[str, Any]) -> Iterator[Path]:
    """Enters the folder of a run and locks it within the context; writes config.json, and a line into starts.jsonl.

    Of several processes, the first does all this; the others fail if it does.

    Args:
      config: the settings; with ``--resume`` the folder may hold a run with the same settings.
      name: the config's name on the command line.
      data: a description of the data, as JSON values: a resumed run must find the same.

    Raises:
      FileExistsError: the folder is not empty, or another process works in it.
      ValueError: the run in it has other settings, or other data.
    """
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    folder, error = config.output or Path("runs") / f"{name}-{stamp}", None
    with contextlib.ExitStack() as stack:
        if is_first():
            try:
                stack.enter_context(_locked(folder))
                _begin(folder, config, name, data)
            except (OSError, ValueError) as reason:
                error = reason
        if agreed()(error is not None):
            raise error or FileExistsError(f"--output: the first process could not enter {folder}; see its message.")
        yield folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"--output: {folder} is a file; choose another name.")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise FileExistsError(
                f"--output: {file.read().strip() or 'another process'} is at work in {folder}; wait for it to end, "
                "or choose another folder."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield  # the system opens the lock whenever the process ends, however it ends


def _begin(folder: Path, config: Config, name: str, data: dict[str, Any]) -> None:
    path, others = folder / "config.json", {entry.name for entry in folder.iterdir()} - {"lock"}
    if others and not (config.session.resume and path.exists()):
        what = "a run; go on with it by --resume, or" if path.exists() else "other files;"
        raise FileExistsError(f"--output: {folder} already holds {what} choose another folder or remove it.")
    if path.exists():
        _check_same(path, config, data)
    else:
        about = {"name": name, "config": as_json(config), "data": data}
        write_json(path, {**about, "checksum": _checksum(about), **environment()})
    start = {"time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), **environment()}
    append_line(folder / "starts.jsonl", start)


def _check_same(path: Path, config: Config, data: dict[str, Any]) -> None:
    """Raises ValueError unless a run has the same settings and data."""
    about, old = _written(path)
    try:
        known = dict(about["data"])
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    new = _of_its_rule(json.loads(json.dumps(as_json(config))))
    for kind in (old, new):
        for field in FREE:
            kind.pop(field, None)
    differing = [f"{flag(field)} was {old.get(field)} and is {new.get(field)}" for field in old | new
                 if old.get(field) != new.get(field)]  # fmt: skip
    differing += [f"{field} was {known.get(field)} and is {data[field]}" for field in data
                  if known.get(field) != data[field]]  # fmt: skip
    if differing:
        raise ValueError(f"--resume: the run in {path.parent} is another: {'; '.join(differing)}.")


def _written(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the content of config.json, and those settings in it that the run's rule has."""
    try:
        about = json.loads(path.read_text())
        if "checksum" in about and about["checksum"] != _checksum(about):  # older versions wrote none
            raise ValueError("it does not hold what was written: its checksum differs")
        # A setting that it does not know came later.
        return about, _of_its_rule({**as_json(Config(dataset="")), **about["config"]})
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _checksum(about: dict[str, Any]) -> int:
    run = {key: about[key] for key in ("name", "config", "data")}
    return zlib.crc32(json.dumps(run, sort_keys=True).encode())


def _of_its_rule(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns settings without those of other rules, which older versions kept in a config."""
    own = rules.settings_of(rules.kind_of(settings["optimizer"], settings["preset"]))
    return {name: value for name, value in settings.items() if name in own or name not in rules.SETTINGS}


def _damaged(path: Path, error: Exception) -> ValueError:
    return ValueError(f"--resume: {path} is damaged ({error}); the run cannot be resumed.")
