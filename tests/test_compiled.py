"""Compiled programs that one process leaves to the next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from experiments.config import Session
from experiments.running.compiled import keep_programs

ROOT = Path(__file__).resolve().parents[1]

OPTIONS = ("--num-steps", "2", "--epochs", "1", "--train-examples", "64", "--no-control")


@pytest.mark.slow
def test_a_second_run_compiles_nothing(digits_dir, tmp_path):
    cache = tmp_path / "compiled"

    def run(name, seed):
        command = [sys.executable, "-m", "experiments.train", "digits", *OPTIONS, "--seed", seed]
        command += ["--data-dir", str(digits_dir), "--compilation-cache", str(cache), "--output", str(tmp_path / name)]
        environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "another")}  # the option decides
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
        return {path.name for path in cache.iterdir() if path.name.endswith("-cache")}

    first = run("first", "0")
    assert len(first) > 3
    assert run("second", "0") == first
    assert run("another-seed", "1") == first
    assert not (tmp_path / "another").exists()
    models = [(tmp_path / name / "model.bsojax").read_bytes() for name in ("first", "second", "another-seed")]
    assert models[0] == models[1] != models[2]


@pytest.mark.parametrize("name", ["file", "file/below", "\0"])
def test_a_folder_that_cannot_be_made_is_refused(name, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="^--compilation-cache: programs cannot be kept in "):
        keep_programs(Session(compilation_cache=tmp_path / name))
