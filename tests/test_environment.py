"""Where a result comes from, as it stands at the head of every file of results."""

import shlex
import subprocess
import sys
from pathlib import Path

import jax

from experiments import environment


def test_the_origin_of_a_result_is_a_command_to_repeat_versions_devices_and_revision(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = ["/x/python", "-m", "experiments.train", "digits", "--output", f"{tmp_path}/a b"]
    monkeypatch.setattr(sys, "orig_argv", words)
    found = environment.environment((*environment.PACKAGES, "no-such-distribution"))
    assert shlex.split(found["command"]) == ["python", "-m", "experiments.train", "digits", "--output", "a b"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["no-such-distribution"] is None
    assert found["device"] == jax.devices()[0].device_kind
    assert len(found["devices"]) == len(jax.devices())
    assert found["revision"] is None or len(found["revision"].rstrip("+")) == 40
    machine = environment.machine()
    assert (machine["platform"], machine["count"]) == (jax.devices()[0].platform, len(jax.devices()))
    assert machine["cores"] > 0
    assert machine["memory_mib"] > 0


def test_versions_serve_a_process_without_jax():
    script = (
        "import sys; from experiments.environment import versions as v; assert v()['jax'] and 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).resolve().parents[1], check=True)
