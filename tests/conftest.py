"""Settings of all tests: eight fake CPU devices, quick compilation, and silent rank promotion is an error."""

import fcntl
import os
import shutil

import jaxlib.version

# Compilation is most of the time of these tests; what they compute takes little. Buffers, and so bytes, are planned
# before the code that these flags simplify is written: they differ by no more than a compiler's unit of 64 bytes.
# A flag that XLA does not know ends the process; that of jaxlib 0.12 does not know the last one.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        "--xla_backend_optimization_level=1",
        "--xla_cpu_use_fusion_emitters=false" if jaxlib.version.__version_info__ < (0, 11) else "",
    )
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs that tests start have it from the environment.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"

from pathlib import Path

import jax
import pytest
from hypothesis import HealthCheck, settings

jax.config.update("jax_numpy_rank_promotion", "raise")
# A run takes all devices that there are unless there is a default one: only tests of devices want eight.
jax.config.update("jax_default_device", jax.devices()[0])

settings.register_profile(
    "bsojax", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("bsojax")


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """Returns a function of a name and of what fills a folder: the first of several test processes calls it."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def folder_of(name, fill):
        folder, done = base / name, base / f"{name}.done"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                fill(folder)
                done.touch()
        return folder

    return folder_of


@pytest.fixture(scope="session")
def digits_dir(made_once):
    """The folder of the prepared digits; tests read it alone."""
    from experiments.data import load

    return made_once("digits", lambda folder: load("digits", folder))


@pytest.fixture(autouse=True, scope="module")
def _compiler(request):
    """Optimises the programs of modules marked "optimised".

    Two programs of one computation may then round differently, as a multiplication and an addition become one
    instruction in one of them: modules that compare the bits of two programs need the mark to be able to fail.
    """
    if request.node.get_closest_marker("optimised") is None:
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "0")
        jax.config.update("jax_disable_most_optimizations", False)
        # What other modules compiled is not to be found here, nor the other way round.
        jax.clear_caches()
        yield
        jax.clear_caches()
        jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(autouse=True, scope="session")
def _pages_stay():
    """No test writes a page, a picture or a result that the repository holds: `make evidence` and the like do."""
    root = Path(__file__).resolve().parents[1]
    folders = (root / "docs", root / "benchmarks" / "results")

    def written():
        return {str(path): path.stat().st_mtime_ns for folder in folders for path in folder.rglob("*")}

    before = written()
    yield
    assert written() == before, "something was written into docs/ or benchmarks/results while the tests ran"
