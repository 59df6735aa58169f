"""Builds the sdist and the wheel, checks them, and runs the README's example where nothing else is installed.

    python .ci/package.py dist --lowest python3.11 --newest python3.13

The wheel is built from the sdist. ``--lowest`` names a Python that gets the lowest versions that pyproject.toml allows,
``--newest`` one that gets the newest that the package index has. Only the standard library is needed.
"""

import argparse
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LEAST_ACCURACY = 0.8
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")

# What is told to JAX, XLA and Python here is not told to a user's process.
ENVIRONMENT = {name: value for name, value in os.environ.items() if not re.match("JAX_|XLA_|PYTHON", name)}


def main() -> None:
    """Runs all of it; whatever fails ends the process with its reason."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("output", type=Path, help="folder of the sdist and the wheel; those that are there are removed")
    parser.add_argument("--lowest", metavar="PYTHON", help="tries the wheel here with the lowest versions allowed")
    parser.add_argument("--newest", metavar="PYTHON", help="tries the wheel here with the newest versions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sdist, wheel = built(options.output, Path(folder))
        told = wrong_files(sdist, wheel)
        if told:
            sys.exit("\n".join(told))
        for python, lowest in ((options.lowest, True), (options.newest, False)):
            if python:
                try_out(wheel, python, lowest, Path(folder) / f"lowest-{lowest}")


def built(output: Path, folder: Path) -> tuple[Path, Path]:
    """Returns the paths of a new sdist and of the wheel made of it, both accepted by twine."""
    for old in (*output.glob("bsojax-*.tar.gz"), *output.glob("bsojax-*.whl")):
        old.unlink()
    python = environment(sys.executable, folder / "tools", ["build", "twine"])
    run(python, "-m", "build", "--outdir", str(output.resolve()), str(ROOT), quiet=True)
    (sdist,), (wheel,) = output.glob("bsojax-*.tar.gz"), output.glob("bsojax-*.whl")
    run(python, "-m", "twine", "check", "--strict", str(sdist), str(wheel))
    return sdist, wheel


def tracked(under: str = ".") -> set[str]:
    """Returns the files that git knows; of an unpacked sdist, which it does not know, those that are there."""
    listed = subprocess.run(["git", "ls-files", under], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return set(listed.stdout.splitlines())
    files = (path.relative_to(ROOT) for path in (ROOT / under).rglob("*") if path.is_file())
    made = re.compile(r"(.*/)?(__pycache__|\.venv[^/]*|\.[a-z]+_cache|\.hypothesis)/|(runs|data|dist|site)/")
    return {str(path) for path in files if not made.match(str(path))}


def wrong_files(sdist: Path, wheel: Path) -> list[str]:
    """Returns a line for each file that the sdist or the wheel lacks, or holds and should not."""
    with tarfile.open(sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        library = {name for name in archive.namelist() if ".dist-info/" not in name}
    return differences(source, {*tracked(), "PKG-INFO"}) + differences(library, tracked("bsojax"))


def differences(held: set[str], wanted: set[str]) -> list[str]:
    """Returns a line for each file that a distribution lacks, or holds and should not."""
    return [
        *(f"missing: {name}" for name in sorted(wanted - held)),
        *(f"not to be shipped, or not tracked by git: {name}" for name in sorted(held - wanted)),
    ]


def lowest_versions(requirements: Iterable[str]) -> list[str]:
    """Returns requirements ``name>=version`` as ``name==version``, without those of extras."""
    return [each.replace(">=", "==") for each in requirements if "extra ==" not in each]


def example(readme: str) -> str:
    """Returns the README's example that trains on digits."""
    found = [code for code in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "load_digits" in code]
    if len(found) != 1:
        sys.exit(f"README.md: one example is to train on load_digits, and {len(found)} do.")
    return found[0]


def try_out(wheel: Path, python: str, lowest: bool, folder: Path) -> None:
    """Installs the wheel and what it requires, and runs the README's example with it, outside of the repository."""
    start = time.monotonic()
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        requirements = re.findall(r"^Requires-Dist: (.*)$", archive.read(metadata).decode(), re.MULTILINE)
    pins = lowest_versions(requirements) if lowest else []
    installed = environment(python, folder / "venv", [str(wheel.resolve()), "scikit-learn", *pins])
    run(installed, "-m", "pip", "--disable-pip-version-check", "check", quiet=True)
    versions = "import sys, jax, bsojax; print(sys.version.split()[0], jax.__version__, bsojax.__version__)"
    having = run(installed, "-I", "-c", versions, folder=folder, quiet=True).split()
    if having[2] != wheel.name.split("-")[1]:
        sys.exit(f"bsojax.__version__ is {having[2]} in {wheel.name}.")
    (folder / "example.py").write_text(example((ROOT / "README.md").read_text()))
    printed = run(installed, "-I", "-W", "error", "example.py", folder=folder, quiet=True)
    accuracy = re.search(r"'accuracy': Array\(([\d.]+)", printed)
    if accuracy is None or float(accuracy[1]) < LEAST_ACCURACY:
        sys.exit(f"The README's example did not learn: {printed}")
    seconds = time.monotonic() - start
    print(f"Python {having[0]}, jax {having[1]}, bsojax {having[2]}: accuracy {accuracy[1]}; {seconds:.0f} s")


def environment(python: str, folder: Path, requirements: list[str]) -> str:
    """Returns the Python of a new virtual environment that holds these requirements and nothing else."""
    run(python, "-m", "venv", str(folder), quiet=True)
    made = str(folder / "bin" / "python")
    run(made, *PIP, *requirements, quiet=True)
    return made


def run(*command: str, folder: Path = ROOT, quiet: bool = False) -> str:
    """Returns what a command prints; ends the process, with all that it printed, where it fails."""
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode or not quiet:
        print(done.stdout + done.stderr, end="", flush=True)
    if done.returncode:
        sys.exit(f"failed: {' '.join(command)}")
    return done.stdout


if __name__ == "__main__":
    main()
