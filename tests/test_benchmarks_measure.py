"""How benchmarks measure: turns, ratios within a round, bytes of a compiled step, resident memory."""

import shlex
import statistics
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import measure
from benchmarks.peers import __main__ as runner
from benchmarks.peers import install, table
from benchmarks.peers.contenders import OURS, PEERS
from experiments import environment
from experiments.spread import Spread

positive = st.floats(1e-6, 1e6)


class Clock:
    """A clock that only calls move forward."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def call_of(self, seconds: float):
        def call() -> float:
            self.now += seconds
            return seconds

        return call


def timed(costs, **options):
    """interleave over calls of known cost, with the order in which they were called."""
    clock, order = Clock(), []
    calls = {name: clock.call_of(cost) for name, cost in costs.items()}
    recorded = {name: (lambda name=name: (order.append(name), calls[name]())[1]) for name in calls}
    return measure.interleave(recorded, clock=clock, **options), order


@given(
    costs=st.dictionaries(st.text(max_size=3), st.integers(1, 100), min_size=1, max_size=5), rounds=st.integers(5, 9)
)
def test_each_round_runs_each_call_once_and_gives_its_time(costs, rounds):
    seconds, order = timed(costs, rounds=rounds, warmup=1, wait=lambda result: result)
    assert seconds == {name: [cost] * rounds for name, cost in costs.items()}
    turns = [order[first : first + len(costs)] for first in range(0, len(order), len(costs))]
    assert len(turns) == 1 + rounds  # the first warms up
    assert all(sorted(turn) == sorted(costs) for turn in turns)


def test_the_order_turns_so_that_each_comes_first_equally_often():
    _, order = timed({"a": 1, "b": 1, "c": 1}, rounds=6, warmup=0, wait=lambda result: result)
    assert "".join(order) == "abcbcacab" * 2


def test_waiting_is_timed_and_every_result_is_waited_for():
    clock, waited = Clock(), []

    def wait(result):
        clock.now += 10
        waited.append(result)

    seconds = measure.interleave({"a": clock.call_of(1)}, rounds=5, warmup=2, wait=wait, clock=clock)
    assert seconds == {"a": [11.0] * 5}
    assert waited == [1] * 7


def test_interleave_waits_for_jax_by_default():
    step = jax.jit(lambda x: x @ x)
    seconds = measure.interleave({"dot": lambda: {"result": step(jnp.ones((8, 8)))}}, rounds=5)
    assert len(seconds["dot"]) == 5
    assert min(seconds["dot"]) > 0


@pytest.mark.parametrize(
    ("calls", "options", "message"),
    [
        ({"a": int}, {"rounds": 4}, "rounds: at least 5"),
        ({"a": int}, {"warmup": -1}, "warmup"),
        ({}, {}, "calls"),
    ],
)
def test_interleave_refuses(calls, options, message):
    with pytest.raises(ValueError, match=message):
        measure.interleave(calls, **options)


@given(st.lists(positive, min_size=1, max_size=20))
def test_spread_agrees_with_numpy_and_does_not_depend_on_order(values):
    expected = np.percentile(values, [50, 25, 75, 0, 100])
    np.testing.assert_allclose([*Spread.of(values).quantiles().values()], expected, rtol=1e-9)
    assert repr(Spread.of(values[::-1])) == repr(Spread.of(values))  # a NaN is no equal of itself


def test_spread_of_nothing_is_refused():
    with pytest.raises(ValueError, match="values: needs at least one"):
        Spread.of([])


@given(st.lists(st.tuples(positive, positive, positive), min_size=1, max_size=9))
def test_what_slows_a_whole_round_leaves_its_ratios(rounds):
    """A round slowed by any factor compares as before; a ratio of medians would not."""
    ours, theirs, slow = zip(*rounds, strict=True)
    quiet = measure.ratios({"ours": ours, "theirs": theirs}, "theirs")
    noisy = {"ours": [a * s for a, s in zip(ours, slow, strict=True)]}
    noisy["theirs"] = [b * s for b, s in zip(theirs, slow, strict=True)]
    disturbed = measure.ratios(noisy, "theirs")
    both = [[*found["ours"].quantiles().values()] for found in (disturbed, quiet)]
    np.testing.assert_allclose(*both, rtol=1e-9)
    assert [*quiet["theirs"].quantiles().values()] == [1.0] * 5
    assert quiet["ours"].median == pytest.approx(statistics.median(a / b for a, b, _ in rounds))


@pytest.mark.parametrize(
    ("values", "baseline", "error"),
    [
        ({"a": [1.0]}, "b", KeyError),
        ({"a": [1.0], "b": [1.0, 2.0]}, "b", ValueError),
        ({"a": [1.0], "b": [0.0]}, "b", ValueError),
        ({"a": [1.0], "b": [float("nan")]}, "b", ValueError),
    ],
)
def test_ratios_refuse(values, baseline, error):
    with pytest.raises(error):
        measure.ratios(values, baseline)


def test_compiled_bytes_counts_arguments_and_grows_with_temporaries():
    one = jax.ShapeDtypeStruct((1000,), jnp.float32)
    step = jax.jit(lambda x, y: jnp.sort(x)[0] + y[0])
    small = measure.compiled_bytes(step, one, one)
    assert small.arguments == 8000
    assert small.temporaries >= 4000  # the sorted copy
    assert small.total == small.arguments + small.temporaries
    large = measure.compiled_bytes(step, *[jax.ShapeDtypeStruct((2000,), jnp.float32)] * 2)
    assert large.temporaries > small.temporaries


def test_compiled_bytes_needs_a_jitted_function():
    with pytest.raises(TypeError, match="lower"):
        measure.compiled_bytes(len, [1])


linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@linux
def test_memory_that_came_and_went_is_in_the_peak():
    size = 64 * 2**20
    try:
        mark = measure.mark_memory()
    except OSError:
        pytest.skip("this system does not let a process reset its peak")
    block = np.ones(size, np.uint8)
    assert mark.peak_above() >= 0.9 * size
    del block
    assert mark.peak_above() >= 0.9 * size
    again = measure.mark_memory()
    assert again.peak_above() < 0.5 * size  # the peak starts again at the mark


@linux
def test_status_names_a_field_that_is_missing():
    assert measure.status_bytes("VmHWM") >= measure.status_bytes("VmRSS") // 2 > 0
    with pytest.raises(OSError, match="VmNothing"):
        measure.status_bytes("VmNothing")


@linux
def test_load_of_others_is_the_machines_without_ones_own():
    mark = measure.LoadMark(wall=0.0, machine=0.0, own=0.0)
    later = measure.mark_load()
    others = mark._replace(wall=later.wall - 10, machine=later.machine - 25, own=later.own - 5).others()
    assert others == pytest.approx(2.0, abs=0.2)  # 25 - 5 seconds of work in 10
    only_own = mark._replace(wall=later.wall - 10, machine=later.machine, own=later.own - 50)
    assert only_own.others() == 0.0


@linux
def test_waiting_for_an_idle_machine_ends_at_once_or_with_patience():
    looks = []
    assert measure.wait_until_idle(60, cores=float("inf"), sleep=looks.append) >= 0
    assert looks == [1.0]
    looks.clear()
    measure.wait_until_idle(0, cores=-1.0, sample=0.5, sleep=looks.append)
    assert looks == [0.5]


def test_environment_is_json_with_a_command_to_repeat(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "orig_argv", ["/x/python", "-m", "benchmarks.peers", "--output", f"{tmp_path}/a b.json"])
    found = environment.environment((*environment.PACKAGES, "no-such-distribution"))
    assert shlex.split(found["command"]) == ["python", "-m", "benchmarks.peers", "--output", "a b.json"]
    assert found["versions"]["jax"] == jax.__version__
    assert found["versions"]["no-such-distribution"] is None
    assert found["device"] == jax.devices()[0].device_kind
    assert environment.machine()["platform"] == jax.devices()[0].platform


def record(contender, turn, seconds, memory=100.0, num_steps=4):
    memories = {table.PEAK: memory, table.STEADY: memory}
    return {"contender": contender, "round": turn, "num_steps": num_steps, "seconds": seconds, **memories}


def test_peers_are_compared_within_rounds_that_both_have():
    records = [
        record("ours", 0, [1.0, 1.0, 50.0], memory=50.0),
        record("peer", 0, [2.0, 2.0, 2.0]),
        record("ours", 1, [30.0] * 3, memory=50.0),  # a slow spell
        record("peer", 1, [40.0] * 3),
        record("ours", 2, [1.0] * 3, memory=50.0),  # the peer failed here
        record("other", 0, [1.0], num_steps=1),  # ours has no such run
    ]
    (row,) = table.compare(records, ["ours"], table.TIME)
    assert (row["ours"], row["peer"], row["num_steps"], row["rounds"]) == ("ours", "peer", 4, 2)
    assert (row["min"], row["median"], row["max"]) == (0.5, 0.625, 0.75)
    (memory,) = table.compare(records, ["ours"], table.PEAK)
    assert memory["median"] == 0.5
    assert {row["contender"]: row["seconds"]["max"] for row in table.absolute(records)} == {
        "ours": 30.0,
        "peer": 40.0,
        "other": 1.0,
    }
    rendered = table.ratio_table("Time", [row]).splitlines()
    assert rendered[2:] == ["| ours | peer | 0.62 (0.50 to 0.75) |"]


def test_contenders_have_one_name_each_and_ours_come_first():
    everyone = (*OURS, *PEERS)
    names = [contender.name for contender in everyone]
    assert len(set(names)) == len(names)
    kinds = [contender.ours for contender in everyone]
    assert kinds == sorted(kinds, reverse=True)
    assert kinds[0]
    for contender in everyone:
        assert contender.here == (contender in OURS) >= contender.ours
        refused = [num_steps for num_steps in (1, 4, 16) if contender.refusal(num_steps) is not None]
        assert not refused or contender.note
        assert not (refused and contender.ours)


def test_a_peer_that_is_not_installed_is_reported(tmp_path):
    options = runner.Options(peers=tmp_path)
    peer = next(contender for contender in PEERS if contender.module == "run_snntorch")
    with pytest.raises(runner.Failed, match="FileNotFoundError"):
        runner._run(peer, 1, options)
    with pytest.raises(runner.Failed, match="No module named 'snntorch'"):
        runner._run(peer._replace(here=True), 1, options)  # by this environment's interpreter


def test_results_name_who_was_not_run_and_whether_others_disturbed():
    chosen = [*OURS, *PEERS]
    options = runner.Options(num_steps=(1, 4))
    one = record(chosen[0].name, 0, [1.0]) | {"others": 1.5, "versions": {"python": "3"}}
    results = runner._results(chosen, options, [one])
    assert results["disturbed"].startswith("1 of 1 runs")
    assert {row["contender"] for row in results["not_run"]} == {one.name for one in chosen if one.least > 1}
    assert runner._results(chosen, options, [one | {"others": 0.0}])["disturbed"] is None


def test_requirements_are_pinned_and_name_no_host():
    text = install.REQUIREMENTS.read_text()
    lines = install.requirements(text)
    assert {"torch", "spikingjelly", "snntorch", "spyx"} <= {line.split("==")[0] for line in lines}
    assert all("==" in line for line in lines)
    assert "://" not in text


def test_requirements_skip_comments():
    assert install.requirements("# a\n\nb==1  # why\n c==2 ; x\n") == ["b==1", "c==2 ; x"]
