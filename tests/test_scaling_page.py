"""The page on many devices is what its files say."""

from pathlib import Path

import jax
import pytest

from benchmarks import render, scaling
from benchmarks.hlo import Program

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_is_what_the_files_say():
    results = render.load(ROOT)
    assert (ROOT / "docs" / "SCALING.md").read_text() == render.devices(results)


@pytest.mark.parametrize("missing", ["scaling", "votes"])
def test_a_part_that_was_not_measured_says_how_to(missing):
    results = {name: result for name, result in render.load(ROOT).items() if name != missing}
    assert f"Not measured yet: `python -m benchmarks.{missing}`" in render.devices(results)


def test_traffic_is_counted_by_what_it_is():
    text = """
%body (t: s32[]) -> s32[] {
  %conv = f32[3,3,16,32]{3,2,1,0} all-reduce(%b)
  %norm = (f32[32]{0}, f32[]) all-reduce(%b, %c)
  %vote = u8[8,9]{1,0} all-to-all(%b)
}

ENTRY %main (t: s32[]) -> s32[] {
  %loop = s32[] while(%t), condition=%condition, body=%body
  %once = f32[512,512]{1,0} all-reduce(%b)
}
"""
    found = scaling.traffic(Program(text), 8)
    assert found == {"gradients": 4 * 4608 * 7 // 4, "statistics": 4 * 32 * 7 // 4, "flips": 63, "other": 7}


def test_the_pages_figures_of_memory_are_those_that_the_compiler_gives():
    rows = render.load(ROOT)["scaling"]["result"]["memory"]
    job, way = "digits network", "jit, split optimizer"
    (row,) = [row for row in rows if (row["job"], row["way"], row["devices"]) == (job, way, 8)]
    found = scaling.memory(scaling.WAYS[way](scaling.JOBS[job], jax.devices()).compile())
    assert found["arguments"] == row["arguments"]
