"""The report of runs: what it says is what their folders hold, finished or killed half-way."""

import json
import math
import struct
import sys

import pytest
from tensorboardX.proto.event_pb2 import Event

from experiments import curves, report
from experiments.config import Config, as_json
from experiments.running.events import check_installed, writer
from experiments.running.progress import Progress
from experiments.running.records import append_record, read_records


def record(epoch, accuracy, loss=0.5, skipped=0):
    return {
        "loss": loss, "accuracy": accuracy, "flips": 10, "flips_per_batch": 2.0, "flip_ratio": 0.1, "spike_rate": 0.2,
        "skipped": skipped, "epoch": float(epoch), "updates": 20 * epoch, "eval_loss": loss, "eval_accuracy": accuracy,
        "seconds": 1.5, "spike_rates": {"lif": 0.25}, "flip_ratios": {"conv/kernel": 0.5},
    }  # fmt: skip


def made(folder, accuracies, done=True, **settings):
    folder.mkdir(parents=True)
    config = json.loads(json.dumps(as_json(Config("digits", epochs=len(accuracies), **settings))))
    (folder / "config.json").write_text(json.dumps({"name": "digits", "config": config}))
    for epoch, accuracy in enumerate(accuracies, 1):
        append_record(folder, record(epoch, accuracy))
    if done:
        (folder / "summary.json").write_text("{}")
    return folder


def test_runs_stand_side_by_side_with_means_over_seeds(tmp_path, capsys):
    runs = [made(tmp_path / f"t-bso-{seed}", [0.5, accuracy], seed=seed) for seed, accuracy in enumerate((0.8, 0.9))]
    runs.append(made(tmp_path / "bop", [0.6, 0.7], optimizer="bop"))
    report.main([*map(str, runs), "--output", str(tmp_path / "report")])
    assert "report.md" in capsys.readouterr().out
    rows = json.loads((tmp_path / "report" / "report.json").read_text())
    assert [row["run"] for row in rows] == ["t-bso-0", "t-bso-1", "bop", "mean of 2"]
    assert [row["accuracy"] for row in rows] == pytest.approx([0.8, 0.9, 0.7, 0.85])
    assert rows[3]["spread"] == pytest.approx(0.05 * math.sqrt(2))
    assert rows[2]["differs"] == "--optimizer bop, --epochs 2"
    text = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert len(text) == 2 + 4
    assert "85.00 ± 7.07 %" in text[-1]
    assert (tmp_path / "report" / "report.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_was_killed_in_a_line_is_shown_as_far_as_it_came(tmp_path, capsys):
    folder = made(tmp_path / "run", [0.5, 0.6], done=False)
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write('{"loss": 0.4, "accu')
    report.main([str(folder)])
    assert "epoch 2 of 2" in capsys.readouterr().out
    assert len(read_records(folder)) == 2
    with (folder / "metrics.jsonl").open("a") as lines:
        lines.write("\n")
    with pytest.raises(ValueError, match="line 3 is damaged"):
        read_records(folder)


def test_a_number_that_is_not_finite_survives_as_null(tmp_path):
    append_record(tmp_path, record(1, 0.5, loss=math.nan))
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert math.isnan(read_records(tmp_path)[0]["loss"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "RUN: name at least one folder"), (["nowhere"], "RUN: there is no run in nowhere: it holds no config.json")],
)
def test_what_cannot_be_reported_is_said_in_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        report.main(arguments)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def test_events_for_tensorboard_hold_the_records_and_void_what_is_done_again(tmp_path):
    with writer(tmp_path, True, None) as write:
        write(record(1, 0.5))
        write(record(2, 0.25, loss=math.nan))
    at = Progress(None, None, records=(record(1, 0.5),))
    with writer(tmp_path, True, at) as write:
        write(record(2, 0.75))
    values, of_layers = [], {}
    for path in sorted((tmp_path / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (size,) = struct.unpack("<Q", content[place : place + 8])
            event = Event.FromString(content[place + 12 : place + 12 + size])
            values += [
                (event.step, value.simple_value) for value in event.summary.value if value.tag == "eval_accuracy"
            ]
            of_layers |= {value.tag: value.simple_value for value in event.summary.value if "/" in value.tag}
            values += ["void"] if event.session_log.status == 1 else []
            place += 16 + size
    assert values == [(20, 0.5), (40, 0.25), "void", (40, 0.75)]
    assert of_layers == {"spike_rates/lif": 0.25, "flip_ratios/conv/kernel": 0.5}


def test_events_that_nobody_wants_are_not_written(tmp_path):
    with writer(tmp_path, False, None) as write:
        write(record(1, 0.5))
    assert not list(tmp_path.iterdir())


def test_a_missing_package_for_events_is_said_before_training(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r"--tensorboard: needs a package; pip install 'bsojax\[tensorboard\]'"):
        check_installed()


def test_the_axis_of_accuracies_shows_what_parts_good_runs():
    def runs(*bests):
        return [[record(1, 0.3), record(2, best)] for best in bests]

    assert curves.lowest(runs(0.99, 0.995)) == pytest.approx(0.96)
    assert curves.lowest(runs(0.99, 0.65)) == 0  # a control
    assert curves.lowest([]) == curves.lowest([[record(1, math.nan)]]) == 0


def test_a_control_alone_is_grey(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(curves, "save_picture", lambda path, drawing, dpi: found.append(drawing))
    runs = {"one": [record(1, 0.9)], "two": [record(1, 0.8)]}
    for control in (None, "two"):
        curves.draw(tmp_path / "picture.png", runs, "test", control)
        colors = [line.get_color() for line in found[-1].axes[2].get_lines()]
        assert (colors[1] == curves.CONTROL) == (control == "two")
        assert colors[0] != colors[1]
    labels = [line.get_label() for line in found[-1].axes[0].get_lines()]
    assert labels[0] == "one, test"
