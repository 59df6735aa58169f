"""Where a result comes from: the command, the versions, the devices, the machine and the revision of the code."""

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def environment(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Returns the command, versions, devices and revision of this process, as JSON values.

    Use it at the head of every file of results; if speed or memory is the result, with ``machine()`` instead of the
    device's name: ``environment() | {"device": machine()}``.

    Args:
      packages: names of distributions; one that is not installed has the version None.
    """
    import jax  # here: so that the versions serve a process without JAX

    return {
        "command": command(),
        "versions": versions(packages),
        "device": str(jax.devices()[0].device_kind),
        "devices": [f"{device.platform}:{device.id} of process {device.process_index}" for device in jax.devices()],
        "revision": revision(Path(__file__).parent),
    }


def machine() -> dict[str, Any]:
    """Returns what JAX computes on, and the machine's processor, cores and memory in MiB, as JSON values."""
    import jax

    devices = jax.devices()
    return {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mib": _memory() // 2**20,
        "system": f"{platform.system()} {platform.machine()}",
    }


def command() -> str:
    """Returns the command line of this process, as a user types it in the repository."""
    return shlex.join(["python", *map(_relative, sys.orig_argv[1:])])


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Returns the versions of Python and of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def revision(folder: Path) -> str | None:
    """Returns the git revision of a folder's code, with a plus sign if files differ from it; None: there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _relative(argument: str) -> str:
    """A path relative to the working directory if it lies below it, since what lies above is private."""
    here = f"{Path.cwd()}{os.sep}"
    return argument.removeprefix(here) if argument.startswith(here) else argument


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 0
