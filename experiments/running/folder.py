"""A run's folder: whose it is, and that the run in it is the same one; one process at a time may write into it."""

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
from experiments.config import Config, Session, as_json, flag, from_json
from experiments.environment import environment
from experiments.running.devices import agreed, is_first
from experiments.running.files import append_line, write_json

FREE = ("session", "output", "data_dir", "control")
"""Settings that do not change what a training does: they may differ when it is resumed."""


@contextlib.contextmanager
def entered(config: Config, name: str, data: dict[str, Any]) -> Iterator[Path]:
    """Enters the folder of a run, which stays locked within; writes config.json, and a line into starts.jsonl.

    Of several processes the first does all this; the others fail if it does.

    Args:
      config: the settings; with ``--resume`` the folder may hold a run of the same.
      name: the config's name on the command line.
      data: what is known of the data, as JSON values: a resumed run must find the same.

    Raises:
      FileExistsError: the folder holds a run or anything else, or another process is at work in it.
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
        settings = as_json(config)
        about = {"name": name, "config": settings, "checksum": _checksum(settings), "data": data, **environment()}
        write_json(path, about)
    start = {"time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"), **environment()}
    append_line(folder / "starts.jsonl", start)


def stored_run(folder: Path) -> tuple[str, Config]:
    """Returns the name and the settings of the run in a folder, less those of one start alone.

    Raises:
      ValueError: its config.json is damaged, or was changed.
    """
    path = folder / "config.json"
    try:
        about = json.loads(path.read_text())
        # Of older versions there is no checksum.
        if about.get("checksum", (right := _checksum(about["config"]))) != right:
            raise ValueError("its settings are not those that were written")
        config = from_json(about["config"])
        unused = set(rules.SETTINGS) - set(rules.settings_of(rules.kind_of(config.optimizer, config.preset)))
        usual = Config(dataset="")  # older versions let settings stand that the rule has not
        config = dataclasses.replace(config, **{name: getattr(usual, name) for name in unused})
        start = Session()
        once = {name: getattr(start, name) for name in ("resume", "coordinator", "num_processes", "process_id")}
        config = dataclasses.replace(config, session=dataclasses.replace(config.session, **once))
        config.check()
        return str(about["name"]), config
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"--resume: {path} is damaged ({error}); the run cannot be resumed.") from error


def _checksum(settings: Any) -> int:
    return zlib.crc32(json.dumps(settings, sort_keys=True).encode())


def _check_same(path: Path, config: Config, data: dict[str, Any]) -> None:
    """Raises ValueError unless a run has the same settings and data."""
    try:
        written = json.loads(path.read_text())
        old = {**as_json(Config(dataset="")), **written["config"]}  # a setting that it does not know came later
        known = dict(written["data"])
        own = rules.settings_of(rules.kind_of(old["optimizer"], old["preset"]))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"--resume: {path} is damaged ({error}); the run cannot be resumed.") from error
    new = json.loads(json.dumps(as_json(config)))
    unused = [name for name in rules.SETTINGS if name not in own]  # older versions let them stand in a config
    for kind in (old, new):
        for field in (*FREE, *unused):
            kind.pop(field, None)
    differing = [f"{flag(field)} was {old.get(field)} and is {new.get(field)}" for field in old | new
                 if old.get(field) != new.get(field)]  # fmt: skip
    differing += [f"{field} was {known.get(field)} and is {data[field]}" for field in data
                  if known.get(field) != data[field]]  # fmt: skip
    if differing:
        raise ValueError(f"--resume: the run in {path.parent} is another: {'; '.join(differing)}.")
