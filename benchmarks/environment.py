"""What a measurement depends on: versions, device, command."""

import os
import platform
import shlex
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy")


def environment(packages: Iterable[str] = PACKAGES) -> dict[str, Any]:
    """Returns the command, the versions and the device of this process, as JSON values.

    Use it at the head of every file of results.

    Args:
      packages: names of distributions; one that is not installed has the version None.
    """
    return {"command": command(), "versions": versions(packages), "device": device()}


def command() -> str:
    """Returns the command line of this process, as a user types it in the repository."""
    arguments = list(sys.orig_argv[1:])
    return shlex.join(["python", *(_relative(argument) for argument in arguments)])


def versions(packages: Iterable[str] = PACKAGES) -> dict[str, str | None]:
    """Returns the versions of Python and of each distribution, None where it is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def device() -> dict[str, Any]:
    """Returns what JAX computes on, and the machine's processor, cores and memory in MiB."""
    import jax  # here: so that the rest serves a process without JAX

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


def _relative(argument: str) -> str:
    """A path below the working directory without what lies above it, which is nobody else's."""
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
