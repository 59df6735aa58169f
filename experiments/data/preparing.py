"""Preparing a data set: moved into its place in one step at the end, or not at all."""

import contextlib
import fcntl
import importlib.util
import io
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from experiments.data.known import SETS

LEFTOVERS = "incomplete.*"
"""What TensorFlow Datasets calls the folder that it fills, before it moves it into its place."""


def prepare(name: str, folder: Path, source: Path | None = None, *, quiet: bool = False) -> Path:
    """Prepares a set for reading without TensorFlow; an existing one is left unchanged.

    A preparation that fails or is interrupted leaves nothing behind; one that was killed leaves a folder that is never
    read, and that the next preparation removes. If two processes prepare at once, the second waits for the first.

    Args:
      name: a key of SETS.
      folder: folder of prepared sets.
      source: the files that one of our own sets is made of, a folder or an archive; of a stock set that cannot be
        downloaded by a program (imagenet2012): the folder with its archives.
      quiet: show no progress.

    Returns:
      The folder of the prepared set.

    Raises:
      ValueError: the name is unknown, a source is missing or not needed, or a file of it is corrupt; it is named.
      FileNotFoundError: the source is not there, or the set can be prepared only elsewhere.
      ModuleNotFoundError: it is a stock set and there is no TensorFlow.
    """
    if name not in SETS:
        raise ValueError(f"name: there is no '{name}'; choose one of {', '.join(sorted(SETS))}.")
    known = SETS[name]
    if known.source and source is None:
        raise ValueError(f"--source: '{name}' is made from {known.source}; give its path.")
    if source is not None and not (known.source or known.stock):
        raise ValueError(f"--source: '{name}' needs none.")
    if source is not None and not source.exists():
        raise FileNotFoundError(f"--source: there is no {source}.")
    if (prepared := prepared_folder(name, folder)) is not None:
        return prepared
    if known.builder is None and not known.stock:
        raise FileNotFoundError(
            f"'{name}' cannot be prepared here; copy it to {folder / name}, in the format array_record."
        )
    if known.stock and importlib.util.find_spec("tensorflow") is None:
        raise ModuleNotFoundError(
            f"'{name}': TensorFlow Datasets downloads and prepares it, which needs TensorFlow and a network "
            "connection. Install tensorflow, or prepare the set elsewhere with the same command and copy "
            f"{folder / name} here."
        )
    with _alone(folder / name), _silent() if quiet else contextlib.nullcontext():
        for leftover in (folder / name).glob(LEFTOVERS):
            shutil.rmtree(leftover)
        if prepared_folder(name, folder) is None:
            _download_and_prepare(name, folder, source)
    prepared = prepared_folder(name, folder)
    assert prepared is not None
    return prepared


def prepared_folder(name: str, folder: Path) -> Path | None:
    """Returns the folder of the newest version of a prepared set, or None."""
    versions = [info.parent for info in (folder / name).glob("[0-9]*.[0-9]*.[0-9]*/dataset_info.json")]
    return max(versions, key=lambda version: [int(part) for part in version.name.split(".")], default=None)


def how_to_prepare(name: str, folder: Path) -> str:
    """Returns the advice, a sentence with a command, to someone who lacks a set."""
    known = SETS[name]
    if known.builder is None and not known.stock:
        return f"It cannot be prepared here: copy it to {folder / name}, in the format array_record."
    command = f"python -m experiments.prepare {name} --data-dir {folder}" + (" --source PATH" if known.source else "")
    where = f"On a machine with a network and TensorFlow run:\n  {command}\nthen copy {folder / name} here."
    return where if known.stock else f"Run:\n  {command}\nPATH: {known.source}."


def _download_and_prepare(name: str, folder: Path, source: Path | None) -> None:
    import tensorflow_datasets as tfds

    known = SETS[name]
    if known.builder is None:
        builder = tfds.builder(name, data_dir=str(folder), file_format="array_record")
        config = tfds.download.DownloadConfig(manual_dir=source and str(source))
        builder.download_and_prepare(download_config=config)
        return
    arguments = {} if source is None else {"source": source.resolve()}
    builder = known.builder()(data_dir=str(folder), file_format="array_record", **arguments)
    with tempfile.TemporaryDirectory() as downloads:  # it stays empty, and need not stay
        builder.download_and_prepare(download_dir=downloads)


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Makes a set's folder, waits until no other process prepares the set, and removes the folder if it stays empty."""
    missing = [parent for parent in folder.parents if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)  # a process that is killed lets go
        yield
    finally:
        os.close(handle)
        for parent in (folder, *missing):
            with contextlib.suppress(OSError):  # not empty: it is needed
                parent.rmdir()


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
