"""Where a result comes from: the command, the versions, the devices and the revision of the code."""

import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

PACKAGES = ("bsojax", "jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def environment() -> dict[str, Any]:
    """The command, versions, devices and revision of this process, as JSON values."""
    return {
        "command": shlex.join(["python", "-m", *_module_and_arguments()]),
        "versions": {"python": sys.version.split()[0]} | {package: version(package) for package in PACKAGES},
        "device": str(jax.devices()[0].device_kind),
        "devices": [f"{device.platform}:{device.id} of process {device.process_index}" for device in jax.devices()],
        "revision": revision(Path(__file__).parent),
    }


def revision(folder: Path) -> str | None:
    """The git revision of the code in a folder, with a plus sign if files differ from it; None: there is none."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _module_and_arguments() -> list[str]:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    name = spec.name if spec is not None else Path(sys.argv[0]).name
    return [name.removesuffix(".__main__"), *sys.argv[1:]]
