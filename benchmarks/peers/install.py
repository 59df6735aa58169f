"""The peers' environment: a separate virtual environment, so that ours keeps its versions."""

import subprocess
import sys
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def prepare(folder: Path) -> dict[str, str]:
    """Makes the environment if it is missing or its requirements have changed; returns what failed, by requirement.

    A requirement that cannot be installed does not prevent the others: the peers that need it fail when they are run.

    Args:
      folder: its folder, whose stamp ``.ready`` holds the requirements that it was made from.
    """
    wanted, stamp = REQUIREMENTS.read_text(), folder / ".ready"
    if stamp.exists() and stamp.read_text() == wanted:
        return {}
    if not python_of(folder).exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    lines = requirements(wanted)
    if _install(folder, lines) is None:
        stamp.write_text(wanted)
        return {}
    return {line: error for line in lines if (error := _install(folder, [line])) is not None}


def python_of(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / "bin" / "python"


def requirements(text: str) -> list[str]:
    """The requirements in a file's text, without comments."""
    lines = (line.split("#", 1)[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def _install(folder: Path, lines: list[str]) -> str | None:
    """Installs them without their dependencies; returns pip's last message if it fails."""
    command = [
        str(python_of(folder)),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        *lines,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["pip failed"])[-1]
