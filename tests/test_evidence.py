"""Studies: what a run measures, that an interrupted study goes on, and that settings are chosen on validation data."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from rich.console import Console

from experiments.build import prepare
from experiments.configs import CONFIGS
from experiments.data import hold_out, load
from experiments.evaluation import evaluate
from experiments.evidence import measure, runner, studies
from experiments.evidence.measure import Job
from experiments.evidence.studies import PLAN


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """A short run on the digits."""
    return dataclasses.replace(
        CONFIGS["digits"][1],
        channels=(8, "M", 8),
        num_steps=2,
        epochs=2,
        batch_size=32,
        data_dir=tmp_path_factory.mktemp("data"),
    )


@pytest.fixture(scope="module")
def measured(config):
    return measure.measure(Job("a", config, memory=True, statistics=True))


@pytest.mark.slow
def test_a_run_is_judged_on_held_out_images_and_tested_once(config, measured):
    batches = 1442 * 4 // 5 // 32 + (1442 * 4 // 5 % 32 > 31)
    assert [updates for updates, _ in measured["validation"]] == [2 * batches, 4 * batches]
    assert measured["train"][-1][0] == 4 * batches
    assert measured["train"][-1][1] > measured["train"][0][1]
    assert measured["test_running"] is None  # they were re-estimated before
    assert abs(measured["test_batch"] - measured["test"]) < 0.1
    assert measured["memory"]["step_temporaries"] > 0
    assert measured["flips_per_weight"] == pytest.approx(measured["flip_ratio"] * 4 * batches)
    json.dumps(measured)


def test_the_running_mean_of_the_training_accuracy_is_that_of_the_last_batches():
    accuracies = list(np.linspace(0, 1, 60))
    points = measure._thinned(accuracies, 120)
    assert len(points) == 60 - measure.WINDOW + 1
    assert points[0] == [2 * measure.WINDOW, round(np.mean(accuracies[: measure.WINDOW]), 5)]
    assert points[-1] == [120, round(np.mean(accuracies[-measure.WINDOW :]), 5)]
    assert measure._thinned([0.2, 0.4], 4) == [[4, pytest.approx(0.3)]]
    assert len(measure._thinned(list(np.zeros(1000)), 1000)) == 200


@pytest.mark.slow
def test_without_statistics_the_accuracy_as_in_training_is_the_accuracy(config):
    data = load("digits", config.data_dir)
    run = prepare(dataclasses.replace(config, norm="none"), hold_out(data))
    assert measure.accuracy_as_in_training(run, run.state, data.test) == pytest.approx(
        evaluate(run, run.state, data.test)["accuracy"]
    )


@pytest.mark.slow
def test_a_study_goes_on_where_it_stopped_and_reruns_what_changed(config, measured, tmp_path):
    path, console = tmp_path / "results" / "study.json", Console(quiet=True)
    jobs = [Job("a", config), Job("b", dataclasses.replace(config, frozen=True))]
    done = {"a": {"settings": measure.settings(config), "runs": [measured]}}
    runner._write(path, done)
    result = runner.run(jobs, path, console, workers=1)
    assert result["rows"]["a"]["runs"] == [measured]  # not run again
    assert result["rows"]["b"]["runs"][0]["flips_per_weight"] == 0
    stamp = path.read_text().replace('"command": "', '"command": "earlier ')
    path.write_text(stamp)
    assert runner.run(jobs, path, console, workers=1)["rows"] == result["rows"]
    assert path.read_text() == stamp  # a process that ran nothing does not put its name to it
    changed = runner._rows([Job("a", dataclasses.replace(config, epochs=3)), jobs[1]], result["rows"])
    assert changed["a"]["runs"] == []
    assert changed["b"]["runs"] == result["rows"]["b"]["runs"]
    assert set(runner._rows(jobs[1:], result["rows"])) == {"b"}
    assert not list(path.parent.glob("*.partial"))


def test_a_study_that_was_not_run_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="has not been run yet"):
        runner.read(tmp_path / "rivals-digits.json")


def test_rows_that_take_settings_over_are_tuned_when_those_have_been_chosen(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = studies.tuning("digits")
    assert not any("read at an average" in job.label for job in first)
    rows = {job.label: {"settings": {}, "runs": [{"seed": 100, "validation": [[1, 0.5]]}]} for job in first}
    runner._write(studies.path_of("tuning", "digits"), rows)
    then = studies.tuning("digits")
    averaged = [job.config for job in then if "Adam, read at an average" in job.label]
    assert [config.average for config in averaged] == [0.9, 0.97, 0.99]
    assert {config.latent_learning_rate for config in averaged} == {1e-3}  # the first of equally good points
    assert len(then) > len(first)


def test_the_chosen_settings_are_the_best_on_validation_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    jobs = studies.tuning("digits")
    rows = {job.label: {"settings": {}, "runs": [{"seed": 100, "validation": [[1, 0.5]]}]} for job in jobs}
    best = next(job for job in jobs if job.label.startswith("OTTT") and job.config.latent_learning_rate == 1e-2)
    rows[best.label]["runs"][0]["validation"] = [[1, 0.9], [2, 0.6]]
    other = next(job for job in jobs if job.label.startswith("OTTT") and job.config.latent_learning_rate == 3e-2)
    rows[other.label]["runs"][0] |= {"validation": [[1, 0.95], [2, 0.55]], "test": 1.0}
    runner._write(studies.path_of("tuning", "digits"), rows)
    assert studies.chosen("digits", "OTTT, latent") == {"latent_learning_rate": 1e-2}
    assert studies.chosen("digits", "BSO, paper") == {}  # the paper's presets are not tuned
    del rows[other.label]
    runner._write(studies.path_of("tuning", "digits"), rows)
    with pytest.raises(ValueError, match="is missing; run that study first"):
        studies.chosen("digits", "OTTT, latent")


def test_every_study_names_known_configs_and_rows_of_one_setting(tmp_path, monkeypatch):
    monkeypatch.setattr(studies, "chosen", lambda name, label: {})
    for jobs_of, configs in PLAN.values():
        for name in configs:
            jobs = jobs_of(name)
            settings = {}
            for job in jobs:
                job.config.check()
                assert settings.setdefault(job.label, measure.settings(job.config)) == measure.settings(job.config)
            assert len({(job.label, job.config.seed) for job in jobs}) == len(jobs)
            assert len(jax.tree.leaves([job.label for job in jobs])) == len(jobs)
