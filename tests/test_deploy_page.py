"""docs/DEPLOY.md as a user follows it: its programs compile and answer as the network does, its Python runs."""

import contextlib
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

import bsojax

pytestmark = pytest.mark.slow  # programs are compiled

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "DEPLOY.md").read_text().split("\n## NIR\n")[0]
PYTHON, C = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "c"))
(MAKE,), (CMAKE,) = (re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("make", "cmake"))
STEPS = 4


def network_of(is_sequence):
    """A model, its state, inputs, and the network, as the page makes it."""
    model = bsojax.models.SpikingVGG(channels=(8, "M", 16), num_classes=5)
    rng = np.random.default_rng(3)
    x = rng.integers(0, 256, ((STEPS,) if is_sequence else ()) + (12, 6, 6, 2)).astype(np.uint8)
    frames = (x / 255).astype(np.float32)
    state = bsojax.init(model, optax.identity(), jax.random.key(0), frames[0] if is_sequence else frames)
    state = bsojax.refresh_statistics(model, state, [frames], STEPS)
    network = bsojax.deploy.integer_network(model, state, frames, STEPS, input_scale=255, input_max=255)
    return model, state, x, network


@pytest.fixture(scope="module")
def still():
    return network_of(False)


def needs(*programs):
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def answers(folder, program, frames):
    done = subprocess.run([folder / program], input=frames.tobytes(), capture_output=True, check=True)
    return [int(line) for line in done.stdout.split()]


def written(folder, network, main):
    network.write_c(folder, "net")
    (folder / "main.c").write_text(main)


@needs("cc", "make")
def test_the_program_is_made_and_tells_the_class_of_each_frame(still, tmp_path):
    _, _, x, network = still
    assert 15 <= len(C[0].splitlines()) <= 25
    written(tmp_path, network, C[0])
    (tmp_path / "Makefile").write_text(MAKE)
    subprocess.run(["make", "--silent"], cwd=tmp_path, check=True)
    assert answers(tmp_path, "app", x) == network.run(x)[0].argmax(1).tolist()


@needs("cc", "cmake")
def test_cmake_makes_it_too(still, tmp_path):
    _, _, x, network = still
    written(tmp_path, network, C[0])
    (tmp_path / "CMakeLists.txt").write_text(CMAKE)
    for command in (["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert answers(tmp_path / "build", "app", x) == network.run(x)[0].argmax(1).tolist()


@needs("cc")
def test_a_stream_is_told_frame_by_frame_and_frames_behind_its_end_change_nothing(tmp_path):
    _, _, x, network = network_of(True)
    written(tmp_path, network, C[1])
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", "main.c", "net.c", "-o", "app"]
    subprocess.run(command, cwd=tmp_path, check=True)
    wanted = network.run(x)[0].argmax(1)
    for example, last in zip(np.moveaxis(x, 1, 0), wanted, strict=True):
        found = answers(tmp_path, "app", np.concatenate([example, example[:2]]))
        assert len(found) == STEPS + 2
        assert found[STEPS - 1 :] == [last] * 3


@needs("arm-none-eabi-gcc")
def test_bare_metal_needs_what_the_page_says(still, tmp_path):
    still[-1].write_c(tmp_path, "net")
    (command,) = re.findall(r"`(arm-none-eabi-gcc .*? net\.c)`", PAGE.replace("\n", " "))
    for processor in ("cortex-m4", "cortex-m0"):
        words = command.replace("cortex-m4", processor).split()
        subprocess.run(words, cwd=tmp_path, check=True)
        told = subprocess.run(["arm-none-eabi-nm", "-u", "net.o"], cwd=tmp_path, capture_output=True, check=True)
        undefined = set(told.stdout.decode().split()) - {"U"}
        assert undefined <= {"memset", "__aeabi_lmul"}
        assert all(name in PAGE for name in undefined)


def test_its_python_runs_and_the_program_needs_jax_alone(still, tmp_path, capsys):
    model, state, x, network = still
    names = {"model": model, "state": state, "x": (x / 255).astype(np.float32)}
    *first, last = PYTHON
    with contextlib.chdir(tmp_path):
        for code in first:
            exec(code, names)
        np.save("x.npy", names["x"])
    np.testing.assert_array_equal(names["logits"], network.run(x)[0])
    assert names["same"].num_steps == STEPS
    assert "largest membrane" in capsys.readouterr().out
    alone = (
        "import sys\nsys.modules['bsojax'] = sys.modules['flax'] = sys.modules['optax'] = None\n"
        f"import numpy as np\nx = np.load('x.npy')\n{last}\nnp.save('answers.npy', answers)\n"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    subprocess.run([sys.executable, "-c", alone], cwd=tmp_path, check=True, env=environment)
    found = np.load(tmp_path / "answers.npy")
    np.testing.assert_allclose(found, bsojax.predict(model, state, names["x"], STEPS), rtol=1e-5, atol=1e-5)


NAMES = set(re.findall(r"`(?:bsojax\.)?(?:network)?\.?([a-z_.]+)(?:\(.*?\))?`", PAGE))
C_NAMES = {name for name in NAMES if name.startswith("net_")}
KNOWN = {"net.h", "net.c", "stdint.h", "model", "state", "x", "static", "memset", "int", "-lgcc", "-fstack-usage"}
KNOWN |= {"largest", "__aeabi_lmul", "make deploy"}  # a number of the reader's data; of compilers; of this repository


@pytest.mark.parametrize("name", sorted(NAMES - C_NAMES - KNOWN))
def test_the_names_on_the_page_exist(name):
    module, _, attribute = name.rpartition(".")
    modules = {"np": [np], "deploy": [bsojax.deploy], "": [bsojax, bsojax.deploy, bsojax.deploy.IntegerNetwork]}
    fields = {field.name for field in dataclasses.fields(bsojax.deploy.IntegerNetwork)}
    assert name in fields or any(hasattr(place, attribute) for place in modules[module]), name


def test_the_names_of_c_on_the_page_are_in_the_headers(still, tmp_path):
    still[-1].write_c(tmp_path / "frames", "net")
    network_of(True)[-1].write_c(tmp_path / "streams", "net")
    declared = {name for file in tmp_path.glob("*/net.h") for name in re.findall(r"\bnet_[a-z]+\b", file.read_text())}
    assert {"net_input", "net_step", "net_reset"} <= C_NAMES <= declared
