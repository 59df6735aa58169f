"""The page on faults is what its result says, and the result is of the tests that are there."""

from pathlib import Path

from benchmarks import faults, render

ROOT = Path(__file__).resolve().parents[1]
RESULTS = render.load(ROOT)


def test_the_page_is_what_the_result_says():
    assert (ROOT / "docs" / "RELIABILITY.md").read_text() == render.reliability(RESULTS)


def test_without_a_result_the_page_says_how_to_make_one():
    assert "Not measured yet: `make faults`." in render.reliability({})


def test_the_result_holds_every_fault_and_all_were_survived():
    rows = RESULTS["faults"]["result"]
    text = " ".join(row["fault"] for row in rows)
    for fault in (
        "kill -9 at 20 random moments", "SIGTERM", "SIGINT", "truncated", "a byte flipped", "a leaf missing",
        "a dtype changed", "disk full", "NaN in the data", "infinity in the gradients", "NaN in the loss", "in a row",
        "data set corrupted", "data set missing", "two processes on one folder", "4 devices, resumed on 1",
    ):  # fmt: skip
        assert fault in text
    assert all(row["survived"] == row["tried"] > 0 for row in rows)


def test_the_tests_exist_and_report_where_they_are_told_to():
    assert all((ROOT / path).exists() for path in faults.TESTS)
    assert (ROOT / "tests" / "faults.py").read_text().count(faults.REPORT) == 1
