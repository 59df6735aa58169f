"""The files that a set is made of: in folders, in zips and in tars, all read alike; a bad one is named."""

import contextlib
import dataclasses
import gzip
import io
import itertools
import tarfile
import wave
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import NoReturn

import numpy as np

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
CORRUPT = (zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


@dataclasses.dataclass(frozen=True, order=True)
class Member:
    """A file of a source.

    Attributes:
      container: the folder or archive that it lies in.
      name: its path there, with slashes.
    """

    container: Path
    name: str

    def __str__(self) -> str:
        return str(self.container / self.name) if self.container.is_dir() else f"{self.container}: {self.name}"


def find_members(source: Path) -> list[Member]:
    """Returns all files of a folder, of an archive, or of a folder and the archives that lie directly in it; sorted.

    Hidden files and what Macs leave in zips are passed over.

    Raises:
      ValueError: an archive is corrupt, or the source is neither a folder nor an archive.
    """
    if source.is_dir():
        archives = [path for path in source.iterdir() if path.name.endswith(ARCHIVES)]
        files = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
        members = [Member(source, name) for name in files if source / name not in archives]
    else:
        archives, members = [source], []
    for archive in archives:
        with _archive(archive) as opened:
            names = opened.namelist() if isinstance(opened, zipfile.ZipFile) else _tar_names(opened)
            members += [Member(archive, name) for name in names if not name.endswith("/")]
    return sorted(member for member in members if not _is_junk(member.name))


def read_members(members: Iterable[Member]) -> Iterator[tuple[Member, bytes]]:
    """Reads files; each archive is gone through once.

    Raises:
      ValueError: an archive is corrupt.
    """
    for container, group in itertools.groupby(sorted(members), key=lambda member: member.container):
        wanted = {member.name: member for member in group}
        if container.is_dir():
            for member in wanted.values():
                yield member, (container / member.name).read_bytes()
            continue
        with _archive(container) as opened:
            if isinstance(opened, zipfile.ZipFile):
                for member in wanted.values():
                    yield member, _unzipped(opened, member)
            else:
                yield from _untarred(opened, container, wanted)


def decoded(members: Iterable[Member], decode: Callable[[bytes], np.ndarray]) -> Iterator[tuple[Member, np.ndarray]]:
    """Reads and decodes files.

    Raises:
      ValueError: a file is corrupt; its name and the reason.
    """
    for member, data in read_members(members):
        try:
            value = decode(data)
        except ValueError as error:
            raise ValueError(f"source: {member}: {error}") from error
        yield member, value


def decode_wav(data: bytes, sample_rate: int) -> np.ndarray:
    """Returns the samples of a mono 16-bit WAV file, int16.

    Raises:
      ValueError: it is no such file, it is truncated or empty, or its sample rate is another.
    """
    try:
        with wave.open(io.BytesIO(data)) as file:
            form, count = (file.getnchannels(), file.getsampwidth()), file.getnframes()
            rate, samples = file.getframerate(), file.readframes(count)
    except (wave.Error, EOFError) as error:
        raise ValueError(f"is no WAV file, or a truncated one ({error or 'end of file'}).") from error
    if form != (1, 2):
        raise ValueError(f"needs one channel of 2 bytes a sample, not {form[0]} of {form[1]}.")
    if rate != sample_rate:
        raise ValueError(f"needs {sample_rate} samples a second, not {rate}.")
    if len(samples) != 2 * count or not count:
        raise ValueError(f"holds {len(samples) // 2} samples where its header says {count}; it is truncated or empty.")
    return np.frombuffer(samples, "<i2").astype(np.int16)


def _is_junk(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return "__MACOSX" in parts or any(part.startswith(".") for part in parts)


@contextlib.contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile | tarfile.TarFile]:
    if not path.name.endswith(ARCHIVES):
        raise ValueError(f"source: {path} is neither a folder nor an archive ({', '.join(ARCHIVES)}).")
    try:
        if path.name.endswith(".zip"):
            with zipfile.ZipFile(path) as opened:
                yield opened
        else:
            unpacked = gzip.open if path.name.endswith("gz") else open
            with unpacked(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as entries:
                yield entries
    except CORRUPT as error:
        _fail(str(path), error)


def _tar_names(opened: tarfile.TarFile) -> list[str]:
    names = [entry.name.removeprefix("./") for entry in opened if entry.isfile()]
    assert opened.fileobj is not None
    while opened.fileobj.read(1 << 20):
        pass  # to the end of the packed file, where its checksum is
    return names


def _unzipped(opened: zipfile.ZipFile, member: Member) -> bytes:
    try:
        return opened.read(member.name)
    except CORRUPT as error:
        _fail(str(member), error)


def _untarred(opened: tarfile.TarFile, container: Path, wanted: dict[str, Member]) -> Iterator[tuple[Member, bytes]]:
    for entry in opened:
        member = wanted.get(entry.name.removeprefix("./"))
        if member is not None:
            try:
                file = opened.extractfile(entry)
                assert file is not None
                yield member, file.read()
            except CORRUPT as error:
                _fail(str(member), error)


def _fail(what: str, error: Exception) -> NoReturn:
    raise ValueError(f"source: {what} is corrupt or truncated ({error or 'end of file'}); fetch it again.") from error
