"""The page of results: what it computes, what it says of runs that are missing, and that it is up to date."""

import dataclasses
import importlib
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import tyro
from fast_and_slow import rarely
from hypothesis import example, given
from hypothesis import strategies as st

from experiments.configs import CONFIGS
from experiments.evidence import compared, paper, render, results, studies, tables
from experiments.evidence.compared import COMPARED, FEW, LATENT_FREE, OURS, RULES, TUNED_ON
from experiments.evidence.measure import settings
from experiments.evidence.results import Row, Study
from experiments.evidence.studies import PLAN
from experiments.spread import Spread

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("signs", "signs_packed", "momentum", "optimizer_other", "latent_adam", "neurons")
MEMORY = dict.fromkeys((*PARTS, "step_arguments", "step_temporaries"), 2048)
SLOW, FAST = "BPTT, latent, Adam", "T-BSO, paper"


ABLATED = PLAN["ablations"][1][0]


def made_run(seed, test=0.9, validation=((100, 0.5), (200, 0.9)), train=((100, 0.5), (200, 0.9)), **more):
    return {
        "seed": seed,
        "test": test,
        "seconds": 10.0,
        "validation": [list(point) for point in validation],
        "train": [list(point) for point in train],
        "flips_per_weight": 2.5,
        "spike_rate": 0.125,
        "skipped": 0,
        **more,
    }


def made_row(label, tests=(0.9, 0.91, 0.92), config="digits", changes=None, **more):
    changed = dataclasses.replace(CONFIGS[config][1], **RULES[label], **(changes or {}))
    return {"settings": settings(changed), "runs": [made_run(seed, test, **more) for seed, test in enumerate(tests)]}


def study_of(rows, config="digits", name="rivals"):
    content = None if rows is None else content_of(rows)
    return Study(name, config, content)


def content_of(rows):
    return {"command": "python -m experiments.evidence", "versions": {"jax": "0"}, "device": "cpu", "rows": rows}


def whole_study(name, config, rng):
    """A study with runs of every row, figures drawn at random."""
    if name in ("rivals", "speed"):  # their jobs need settings that a tuning has chosen
        labels = tables.rules_of(config) if name == "rivals" else compared.FAST
        rows = {label: (dataclasses.replace(CONFIGS[config][1], **RULES[label]), (0, 1, 2)) for label in labels}
    else:
        jobs = PLAN[name][0](config)
        rows = {job.label: (job.config, (0,) if name == "tuning" else (0, 1, 2)) for job in jobs}
    made = {}
    for place, (label, (changed, seeds)) in enumerate(rows.items()):
        level = 0.1 if "frozen" in label else 0.8 + 0.1 * place / len(rows)
        counts = np.arange(1, 16) * Row("", settings(changed), ()).updates_per_batch * 36
        runs = []
        for seed in seeds:
            points = np.clip(level * (1 - 0.8 ** np.arange(1, 16)) + rng.normal(0, 0.01, 15), 0, 1)
            curve = [[int(count), float(value)] for count, value in zip(counts, points, strict=True)]
            test = float(level + rng.normal(0, 0.01))
            others = {"test_running": test - 0.05, "test_batch": test + 0.01} if name == "norms" else {}
            runs.append(made_run(seed, test, curve, curve, **others))
        if name == "rivals":
            runs[0]["memory"] = MEMORY
        made[label] = {"settings": settings(changed), "runs": runs}
    return study_of(made, config, name)


@pytest.fixture(scope="module")
def evidence():
    rng = np.random.default_rng(0)
    return {name: {config: whole_study(name, config, rng) for config in configs} for name, (_, configs) in PLAN.items()}


def write(root, evidence):
    (root / "docs" / "results").mkdir(parents=True)
    (root / "README.md").write_text("before\n<!-- digits -->\nold\n<!-- end -->\nafter\n")
    for name, shown in evidence.items():
        for config, study in shown.items():
            (root / studies.path_of(name, config)).write_text(json.dumps(study.content))


curves = st.lists(st.integers(0, 100), min_size=1, max_size=8).map(
    lambda values: [[10.0 * (place + 1), value / 100] for place, value in enumerate(values)]
)


@given(curves, st.integers(1, 100))
@example([[10.0 * (place + 1), value / 100] for place, value in enumerate([0, 0, 0, 0, 1, 0, 1])], 1)
def test_crossing_is_the_first_count_of_the_interpolated_curve_that_is_high_enough(points, percent):
    target = percent / 100
    xs, ys = np.array(points).T
    # The curve's own points are on the grid: one of them alone may reach the target.
    grid = np.linspace(xs[0], xs[-1], 20 * 1000 * (len(xs) - 1) + 1) if len(xs) > 1 else xs
    there = np.flatnonzero(np.interp(grid, xs, ys) >= target - 1e-12)
    found = results.crossing(points, target)
    if not there.size:
        assert found is None
        return
    assert found[0] == pytest.approx(grid[there[0]], abs=0.01)
    assert found[1] == (ys[0] >= target)


def test_batches_are_counted_not_updates():
    online = Row("", **made_row(FAST)).batches_to("validation", 0.7)
    through_time = Row("", **made_row(SLOW)).batches_to("validation", 0.7)
    assert CONFIGS["digits"][1].num_steps == 4
    assert (str(online), str(through_time)) == ("38", "150")  # 150 updates each
    assert online.batches == 150 / 4


def test_seeds_that_never_reach_a_target_are_counted_and_bounds_are_marked():
    row = made_row(SLOW)
    row["runs"][1]["validation"] = [[100, 0.1], [200, 0.2]]
    assert str(Row("", **row).batches_to("validation", 0.7)) == "150 (2 of 3)"
    assert not Row("", **row).batches_to("validation", 0.7).by_all
    assert str(Row("", **row).batches_to("validation", 0.95)) == "never"
    assert str(Row("", **made_row(SLOW)).batches_to("validation", 0.4)) == "≤ 100"


def test_a_spread_is_that_of_numpy_and_one_seed_has_none():
    spread = Spread.of([0.9, 0.91, 0.95])
    assert spread.percent == f"92.00 ± {100 * np.std([0.9, 0.91, 0.95], ddof=1):.2f}"
    assert spread.percent_range == "90.00 to 95.00"
    assert (spread.min, spread.max, spread.count) == (0.9, 0.95, 3)
    assert Spread.of([0.5]).percent == "50.00 (one seed)"


def test_the_ratio_is_of_batches_and_a_bound_where_a_curve_starts_above_the_target():
    late, early = ((100, 0.5), (300, 1.0)), ((100, 0.5), (140, 1.0))
    rows = {SLOW: made_row(SLOW, validation=late, train=late), FAST: made_row(FAST, validation=early, train=early)}
    expected = (100 + 200 * 0.9) / ((100 + 40 * 0.9) / 4)
    assert [speed.ratio for speed in paper.speeds({"digits": study_of(rows)})] == pytest.approx([expected] * 2)
    rows[FAST] = made_row(FAST, validation=((80, 0.99),), train=early)
    found = {speed.target: str(speed) for speed in paper.speeds({"digits": study_of(rows)})}
    assert found == {"training": f"{expected:.2f}", "validation": f"≥ {280 / 20:.2f}"}
    rows[SLOW]["runs"][2]["validation"] = [[100, 0.1]]
    assert [speed.target for speed in paper.speeds({"digits": study_of(rows)})] == ["training"]


def test_the_sentence_on_speed_names_the_largest_and_the_smallest_ratio():
    speeds = [
        paper.Speed(1.5, "", FAST, SLOW, "digits", "training"),
        paper.Speed(0.5, "", "BSO, paper", SLOW, "n-mnist", "validation"),
        paper.Speed(9.0, "≤ ", FAST, SLOW, "digits", "validation"),
    ]
    sentence = paper.fastest(speeds)
    assert f"Largest ratio: 1.50 ({FAST} against {SLOW}, digits, training target)" in sentence
    assert "Smallest ratio: 0.50 (BSO, paper" in sentence
    assert f"Against {SLOW} the flip rule is faster in 1 comparisons and slower in 1." in sentence
    assert paper.fastest([]) == "No ratio can be given yet."


def test_targets_that_one_side_alone_reached_are_counted():
    rows = {SLOW: made_row(SLOW, validation=((100, 0.1), (200, 0.2))), FAST: made_row(FAST, train=((200, 0.3),))}
    rows[SLOW]["runs"][0]["validation"] = [[100, 0.1], [200, 0.99]]  # one seed is not enough
    rows[SLOW]["runs"][0]["train"] = rows[SLOW]["runs"][1]["train"] = rows[SLOW]["runs"][2]["train"] = [[200, 0.99]]
    for run in rows[FAST]["runs"]:
        run["validation"] = [[200, 0.99]]
    turned = {SLOW: made_row(SLOW, validation=((200, 0.99),)), FAST: made_row(FAST, validation=((200, 0.3),))}
    shown = {"digits": study_of(rows), "n-mnist": study_of(turned, "n-mnist")}
    assert "only the flip rule in 1 comparisons, only BPTT in 1." in paper.alone(shown)
    assert paper.speeds({"digits": study_of(rows)}) == []


def test_claims_of_speed_are_of_the_validation_target_alone():
    found = [
        paper.Speed(7.0, "", FAST, SLOW, "digits", "training"),
        paper.Speed(0.5, "", FAST, SLOW, "digits", "validation"),
    ]
    assert "Largest ratio: 0.50" in paper.fastest(paper.on_validation(found))


@pytest.mark.parametrize(
    ("rival", "answer"),
    [
        ((0.80, 0.81, 0.82), True),
        ((0.935, 0.945, 0.955), False),  # behind, by less than the spread
        ((0.97, 0.98, 0.99), False),  # ahead
        ((0.5, 0.9, 1.3), False),  # far behind, but its own spread is larger
    ],
)
def test_ours_is_best_only_if_it_leads_every_rival_by_more_than_the_spread(rival, answer):
    rows = {label: made_row(label, (0.5, 0.51, 0.52)) for label in RULES}
    rows[OURS] = made_row(OURS, (0.94, 0.95, 0.96))
    rows["Bop"] = made_row("Bop", rival)
    best, sentence = tables.beats(study_of(rows), RULES)
    assert best is answer
    assert "Bop" in sentence
    assert tables.beats(study_of(rows), [label for label in RULES if label != "Bop"])[0] is True


def test_a_lead_of_just_the_spread_is_not_more_than_it():
    measured = (0.7999999237060547, 0.81, 0.82)  # as an evaluation in float32 writes them
    rows = {OURS: made_row(OURS, measured), FAST: made_row(FAST, measured[:1] * 3)}
    ours, rival = (Spread.of(run["test"] for run in row["runs"]) for row in rows.values())
    assert ours.mean - rival.mean > ours.deviation  # in floating point, by rounding alone
    best, sentence = tables.beats(study_of(rows), [OURS, FAST])
    assert best is False
    assert "1.00 points ahead, spread 1.00" in sentence


@pytest.mark.parametrize("missing", ["no row", "no run", "one seed"])
def test_nothing_is_claimed_while_runs_are_missing(missing):
    rows = {label: made_row(label, (0.5, 0.51, 0.52)) for label in RULES}
    rows["Bop"]["runs"] = rows["Bop"]["runs"][: {"no row": 0, "no run": 0, "one seed": 1}[missing]]
    if missing == "no row":
        del rows["Bop"]
    best, sentence = tables.beats(study_of(rows), LATENT_FREE)
    assert best is None
    assert sentence == "This cannot be answered yet; runs of Bop are missing."
    assert tables.beats(study_of(None), LATENT_FREE)[0] is None


def test_the_best_row_is_bold_and_those_within_the_pooled_spread_are_marked():
    rows = {label: made_row(label, (0.5, 0.51, 0.52)) for label in RULES}
    rows["Bop"] = made_row("Bop", (0.94, 0.95, 0.96))
    rows[SLOW] = made_row(SLOW, (0.931, 0.941, 0.951))
    cells = {line.split(" | ")[0][2:]: line.split(" | ")[1] for line in tables.rivals(study_of(rows)).splitlines()}
    assert cells["Bop"] == "**95.00 ± 1.00**"
    assert cells[SLOW] == "≈ 94.10 ± 1.00"
    assert cells[FAST] == "51.00 ± 1.00"


def tuned_bop(config):
    """A made tuning in which the last point of the grid of Bop is the best; that point; and the rows of the grid."""
    tuned = whole_study("tuning", config, np.random.default_rng(1))
    points = [label for label in tuned.rows if label.startswith("Bop, ")]
    for label in points:
        tuned.rows[label].runs[0]["validation"][-1][1] = 0.8 if label == points[-1] else 0.5
    grid = compared.GRIDS["Bop"]
    assert len(points) > 1
    return tuned, {name: values[-1] for name, values in grid.items()}, points


def bop_line(text):
    (line,) = (line for line in text.splitlines() if line.startswith("| Bop"))
    return line


def test_the_chosen_point_is_the_best_on_validation_and_another_one_in_the_comparison_is_said():
    tuned, best, points = tuned_bop("digits")
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.items())
    same, other = (study_of({"Bop": made_row("Bop", changes=changes)}) for changes in (best, {"b1": 0.5}))
    assert bop_line(tables.tuning(tuned, same)).endswith(f"| {chosen} |")
    line = bop_line(tables.tuning(tuned, other))
    assert line.endswith(f"| {chosen} (but the comparison was run with b1 0.5, threshold None) |")
    incomplete = f"| {tuned.missing} (incomplete) |"
    rows = tuned.content["rows"]
    rows["Bop, b1 0.123, threshold 0.456"] = rows.pop(points[0])  # of a grid that is no more
    line = bop_line(tables.tuning(tuned, study_of(None)))
    assert line.endswith(incomplete)
    assert "0.456" not in line


def test_a_config_that_takes_settings_over_says_from_where_and_which_of_its_rows_were_run_with_others(monkeypatch):
    monkeypatch.setitem(TUNED_ON, "digits", "fashion-mnist-binary")
    tuned, best, _ = tuned_bop("fashion-mnist-binary")
    same, other = (study_of({"Bop": made_row("Bop", changes=changes)}) for changes in (best, {"b1": 0.5}))
    sentence = "The settings are those chosen on fashion-mnist-binary (see there)."
    untuned = f"Not tuned: {'; '.join(label for label in RULES if label not in compared.GRIDS)}."
    assert tables.tuning(tuned, same) == f"{sentence} {untuned}"
    assert tables.tuning(study_of(None, tuned.config, "tuning"), other) == f"{sentence} {untuned}"
    chosen = ", ".join(f"{name} {value:g}" for name, value in best.items())
    note = f"Bop: {chosen} (but the comparison was run with b1 0.5, threshold None)."
    assert tables.tuning(tuned, other) == f"{sentence} {note} {untuned}"


def test_the_page_compares_settings_that_were_taken_over_with_the_tuning_that_they_are_from(evidence):
    (config, origin), *_ = TUNED_ON.items()
    part = render.page({**evidence, "tuning": {origin: evidence["tuning"][origin]}}, None, None)
    section = part.partition(f"### {config}\n")[2].partition("\n##")[0]
    assert f"The settings are those chosen on {origin} (see there). " in section
    assert f" {OURS}: growth" in section  # the made rows were run without one
    assert "growth None" in section
    assert "not run yet" not in section


def test_a_slow_config_shows_and_expects_its_few_rules_only(evidence):
    (config, labels), *_ = FEW.items()
    study = evidence["rivals"][config]
    rows = tables.rivals(study).splitlines()[2:]
    assert [row.split(" | ")[0][2:] for row in rows] == list(labels)
    assert "best of these rules" in tables.verdict(study)
    assert "are missing" not in tables.verdict(study)
    assert "best of all rules" in tables.verdict(evidence["rivals"]["digits"])
    lines = [line for line in paper.convergence({config: study}).splitlines() if line.startswith(f"| {config}")]
    assert len(lines) == 2
    cells = dict(zip((*paper.THROUGH_TIME, *paper.FLIPPING), lines[0].strip(" |").split(" | ")[2:], strict=True))
    assert {label for label, cell in cells.items() if cell == "-"} == set(cells) - set(labels)


def test_a_slow_config_does_not_count_among_those_where_ours_is_the_best_of_all_rules():
    (config, labels), *_ = FEW.items()
    level = dict.fromkeys(RULES, (0.5, 0.51, 0.52)) | {OURS: (0.94, 0.95, 0.96)}
    results = {
        config: study_of({label: made_row(label, level[label], config) for label in labels}, config),
        "digits": study_of({label: made_row(label, level[label]) for label in RULES}),
    }
    assert f"On 1 of 1 configs {OURS} is the best of all rules" in paper.claims(results)
    del results["digits"].rows["Bop"]
    assert f"On 0 of 1 configs {OURS}" in paper.claims(results)


def test_the_table_of_convergence_names_the_steps_that_turn_batches_into_updates():
    rows = {SLOW: made_row(SLOW), FAST: made_row(FAST)}
    text = paper.convergence({"digits": study_of(rows), "fashion-mnist": study_of(None, "fashion-mnist")})
    assert "| digits, T = 4 | training 95% |" in text
    assert "| fashion-mnist, T = 2 | not run yet" in text


def test_gaps_of_statistics_are_taken_seed_by_seed():
    runs = [made_run(seed, 0.8 + seed / 10, test_running=None, test_batch=0.81 + seed / 10) for seed in range(3)]
    gap = Row("", {}, runs).gap("test")
    assert gap.mean == pytest.approx(0.01)
    assert gap.deviation == pytest.approx(0, abs=1e-9)
    assert Row("", {}, runs).gap("test_running") is None
    row = tables.norms(study_of({"rule, kind": {"settings": {}, "runs": runs}}), ["rule, kind"])
    assert row.splitlines()[2] == "| rule | kind | - | 90.00 ± 10.00 | 91.00 ± 10.00 | - | 1.00 ± 0.00 |"


def test_every_ablation_stands_in_a_group_of_its_own_kind_and_new_ones_are_not_lost():
    labels = list(dict.fromkeys(job.label for job in studies.ablations(ABLATED)))
    text = tables.grouped(study_of(None, ABLATED, "ablations"), labels)
    assert "Others" not in text
    assert all(f"| {label} |" in text for label in labels)
    assert sum(label in text.partition("| Statistics")[0] for label in labels) == len(labels) - 2
    assert "| Others |" in tables.grouped(study_of(None, ABLATED, "ablations"), ["something new"])
    growths = text.partition("| Growth")[2].partition("\n\n")[0].splitlines()[2:]
    assert len(growths) == 1 + sum("growth" in label for label in labels)  # and the preset


def test_the_length_of_the_ablations_is_that_of_their_settings(evidence):
    length, full = studies.ABLATION_EPOCHS, CONFIGS[ABLATED][1].epochs
    sentence = f"Short runs: {length} epochs, against {full} in section 2."
    assert render.ablation_line(evidence["ablations"][ABLATED]) == sentence
    assert render.ablation_line(study_of(None, ABLATED, "ablations")) == sentence
    older = study_of({"calibrated, c = 0": made_row(OURS, config=ABLATED, changes={"epochs": 2})}, ABLATED, "ablations")
    assert render.ablation_line(older) == f"Short runs: 2 epochs, against {full} in section 2."


def test_the_papers_threshold_is_compared_with_none_and_stale_statistics_with_new_ones():
    levels = {
        "paper, threshold 0": 0.90,
        "paper, threshold 5e-07": 0.91,
        "T-BSO, paper, statistics not re-estimated": 0.7,
    }
    rows = {
        label: {"settings": {}, "runs": [made_run(seed, level + 0.02 * seed) for seed in range(3)]}
        for label, level in levels.items()
    }
    text = tables.grouped(study_of(rows, ABLATED, "ablations"), levels)
    assert (
        "From 'paper, threshold 0' to 'paper, threshold 5e-07': +1.00 points on the test set, within the larger "
        "standard deviation (2.00)." in text
    )
    assert (
        "From 'T-BSO, paper, statistics not re-estimated' to 'paper, threshold 5e-07': +21.00 points on the test set, "
        "more than the larger standard deviation (2.00)." in text
    )


def test_every_row_of_the_papers_table_has_a_command_that_trains_it():
    assert len(paper.rows()) == 19
    for row in paper.rows():
        for command in paper.commands(row):
            assert command.startswith("python -m experiments.train ")
            config = tyro.extras.overridable_config_cli(CONFIGS, args=command.split()[3:])
            assert config.preset == "paper"
        assert (config.num_steps, config.optimizer) == (int(row["T"]), {"BSO": "bso", "T-BSO": "t-bso"}[row["rule"]])
        module = importlib.import_module(f"experiments.configs.{row['config'].replace('-', '_')}")
        assert row["accuracy"] in module.__doc__


def test_our_figure_beside_the_papers_is_of_the_same_config_and_number_of_steps():
    rows = {label: made_row(label, config="cifar10-vgg11", changes={"num_steps": 4}) for label in (FAST, OURS)}
    lines = paper.beside_ours({"cifar10-vgg11": study_of(rows, "cifar10-vgg11")}).splitlines()
    ours = [line for line in lines if "400 epochs" in line]
    assert len(ours) == 1
    assert ours[0].startswith(
        "| CIFAR-10, VGG-11 | 4 | T-BSO | 94.86 | T-BSO, paper: 91.00 ± 1.00, 400 epochs; T-BSO, "
    )
    assert sum("not run here: needs" in line for line in lines) == 18


def test_without_results_the_page_holds_no_figure_of_ours_and_names_every_command(tmp_path):
    write(tmp_path, {})
    render.main(tmp_path)
    text = (tmp_path / "docs" / "RESULTS.md").read_text()
    assert text.count("not run here: needs") == 19
    for name, (_, configs) in PLAN.items():
        for config in configs:
            assert f"not run yet: `python -m experiments.evidence --only {name}:{config}`" in text
    assert "±" not in text.replace("mean ± standard deviation", "")
    assert "](pictures" not in text
    assert not list((tmp_path / "docs").glob("pictures/*"))


def test_a_missing_row_is_named_and_changes_no_other_row(evidence):
    study = evidence["rivals"]["digits"]
    whole = tables.rivals(study).splitlines()
    for label in RULES:
        rows = {name: row for name, row in study.content["rows"].items() if name != label}
        part = tables.rivals(study_of(rows)).splitlines()
        (place,) = (place for place, line in enumerate(part) if line.startswith(f"| {label} |"))
        assert part.pop(place).startswith(f"| {label} | {study.missing} |")
        before = whole[:place] + whole[place + 1 :]
        assert [re.sub(r"\*\*|≈ ", "", line) for line in part] == [re.sub(r"\*\*|≈ ", "", line) for line in before]


@pytest.mark.parametrize("study", ["norms", *rarely(*(name for name in PLAN if name != "norms"))])
def test_any_row_of_any_study_may_be_missing(evidence, study):
    for config, whole in evidence[study].items():
        for label in list(whole.rows)[::5]:
            rows = {name: row for name, row in whole.content["rows"].items() if name != label}
            part = {**evidence, study: {**evidence[study], config: study_of(rows, config, study)}}
            assert f"--only {study}:{config}" in render.page(part, None, None)
        break


def test_the_page_of_whole_studies_misses_nothing_and_ends_with_the_notes(evidence):
    text = render.page(evidence, None, "Annealing worked.")
    assert "evidence --only" not in text
    assert "nan" not in text
    assert text.endswith("## 8. What worked and what did not\n\nAnnealing worked.\n")


def test_the_pictures_and_files_that_a_page_names_are_there(evidence, tmp_path):
    part = {"rivals": "fashion-mnist-binary", "norms": "digits", "ablations": ABLATED}
    write(tmp_path, {name: {config: evidence[name][config]} for name, config in part.items()})
    render.main(tmp_path)
    text = (tmp_path / "docs" / "RESULTS.md").read_text()
    shown = {tmp_path / "docs" / path for path in re.findall(r"\]\((pictures/.*?)\)", text)}
    assert shown == set((tmp_path / "docs" / "pictures").iterdir())
    assert {path.name for path in shown} == {
        "rivals-fashion-mnist-binary.png",
        "overview.png",
        "bits.png",
        "norms.png",
        f"ablations-{ABLATED}.png",
    }
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in shown)
    links = re.findall(r"\]\((results/.*?)\)", text)
    assert len(links) >= 3
    assert all((tmp_path / "docs" / link).exists() for link in links)
    assert f"| {OURS} |" in (tmp_path / "README.md").read_text()


def test_the_readme_changes_between_its_marks_only_and_rendering_twice_changes_nothing(evidence):
    before = "top | x |\n<!-- digits -->\nold\n<!-- end -->\nbottom\\1\n"
    after = render.with_table(before, evidence["rivals"])
    assert after == f"top | x |\n<!-- digits -->\n{render.readme_table(evidence['rivals'])}\n<!-- end -->\nbottom\\1\n"
    assert render.with_table(after, evidence["rivals"]) == after
    spread = Spread.of(run["test"] for run in evidence["rivals"]["fashion-mnist-binary"].rows[OURS].runs)
    (line,) = (line for line in after.splitlines() if line.startswith(f"| {OURS} |"))
    assert line.split(" | ")[2] == spread.percent
    assert study_of(None).missing in render.with_table(before, {})


def test_every_compared_config_has_targets_between_chance_and_certainty():
    assert set(COMPARED) <= set(results.TARGETS)
    assert all(0.1 < target < 1 for targets in results.TARGETS.values() for target in targets.values())
    assert math.isnan(Spread.of([1.0]).deviation)


def test_the_committed_page_is_what_the_committed_results_say():
    notes = ROOT / "docs" / "notes" / "what-worked.md"
    regrets = json.loads((ROOT / "docs" / "results" / "regret.json").read_text())
    text = render.page(results.load(ROOT), regrets, notes.read_text().strip() if notes.exists() else None)
    committed = ROOT / "docs" / "RESULTS.md"
    assert committed.exists()
    assert committed.read_text() == text, "run `python -m experiments.evidence.render`"
