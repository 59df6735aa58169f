"""The pages' writer: tables, templates, and the line that says where figures come from."""

import pytest

from experiments import pages


def test_a_row_that_is_too_short_ends_with_empty_cells():
    lines = pages.table(("a", "b", "c"), [("1", "2", "3"), ("only",)]).splitlines()
    assert lines == ["| a | b | c |", "| --- | --- | --- |", "| 1 | 2 | 3 |", "| only |  |  |"]


def test_a_template_is_filled_and_what_is_empty_leaves_no_gap(tmp_path):
    template = tmp_path / "page.md"
    template.write_text("# Title\n\n{{ one }}\n\n{{ none }}\n\nThe end, {{ one }}.\n\n{{ none }}\n")
    values = {"one": "{{ none }} {braces}", "none": ""}
    assert pages.filled(template, values) == "# Title\n\n{{ none }} {braces}\n\nThe end, {{ none }} {braces}.\n"
    with pytest.raises(KeyError, match="none"):
        pages.filled(template, {"one": "1"})


@pytest.mark.parametrize(
    ("device", "told"),
    [
        ("cpu", "cpu"),
        ({"platform": "cpu", "kind": "cpu", "count": 1, "cores": 2}, "cpu (2 cores)"),
        ({"platform": "cpu", "kind": "cpu", "count": 8, "cores": 2}, "8 cpu devices of one host (2 cores)"),
        ({"platform": "gpu", "kind": "NVIDIA H100", "count": 1, "cores": 16}, "NVIDIA H100"),
    ],
)
def test_the_source_of_figures_names_file_command_version_and_device(device, told):
    content = {"command": "python -m a", "versions": {"jax": "1.2"}, "device": device}
    line = pages.source("../results/a.json", content)
    assert line == f"From [results/a.json](../results/a.json), written by `python -m a` with jax 1.2 on {told}."


def test_parts_that_are_not_there_are_left_out():
    assert pages.joined("a", "", None, "b") == "a\n\nb"
