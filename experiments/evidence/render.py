"""Renders the evidence: ``python -m experiments.evidence.render`` reads docs/results and writes docs/RESULTS.md.

It draws docs/pictures too, and replaces the table of the digits in the README. What has not been run is named with its
command; no figure stands on the page that is not in a file.
"""

import functools
import json
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments import regret
from experiments.configs import CONFIGS
from experiments.evidence import paper, pictures, readings, studies, tables
from experiments.evidence.measure import WINDOW, Job
from experiments.evidence.plan import COMPARED, PLAN
from experiments.evidence.readings import OURS, Result, Results, runs_of, updates_per_batch
from experiments.evidence.studies import GRIDS, RULES
from experiments.evidence.tables import not_run, table

STUDIES = tuple(name for name, *_ in PLAN)
README_TABLE = re.compile(r"(<!-- digits -->\n).*?(\n<!-- end -->)", re.DOTALL)

Evidence = Mapping[str, Results]
"""The results of every study, by its name."""


def main(root: Path = Path()) -> None:
    """Renders the page, its pictures and the README's table.

    Args:
      root: the repository.
    """
    evidence = load(root)
    notes, curve = root / "docs" / "notes" / "what-worked.md", root / "docs" / "results" / "regret.json"
    text = page(
        evidence,
        json.loads(curve.read_text()) if curve.exists() else None,
        notes.read_text().strip() if notes.exists() else None,
    )
    (root / "docs" / "RESULTS.md").write_text(text)
    for path in draw(root / "docs" / "pictures", evidence):
        print(path)
    readme = root / "README.md"
    if README_TABLE.search(readme.read_text()):
        readme.write_text(with_table(readme.read_text(), evidence["rivals"]))
    else:
        print(f"{readme}: no table between `<!-- digits -->` and `<!-- end -->`; nothing was replaced there.")


def load(root: Path) -> Evidence:
    """Reads every study on every config; None where the plan has it and its file is missing."""
    evidence: dict[str, dict[str, Result | None]] = {}
    for name, _, configs in PLAN:
        more = [config for config in CONFIGS if config not in configs]
        paths = {config: root / studies.path_of(name, config) for config in (*configs, *more)}
        evidence[name] = {
            config: json.loads(path.read_text()) if path.exists() else None
            for config, path in paths.items()
            if config in configs or path.exists()
        }
    return evidence


def page(evidence: Evidence, regrets: dict[str, Any] | None, notes: str | None) -> str:
    """docs/RESULTS.md.

    Args:
      evidence: what load returns.
      regrets: what experiments.regret writes.
      notes: what worked and what did not, in Markdown.
    """
    rivals = compared(evidence)
    parts = ["# Results", INTRODUCTION, "## 1. The paper's table, beside ours", PAPER, *_of_paper(evidence)]
    parts += ["## 2. All rules on the same networks, data and batches", RIVALS, *_picture("overview", rivals)]
    for config, result in rivals.items():
        parts += [f"### {config}", CONFIGS[config][0], *_compared(config, result, evidence["tuning"].get(config))]
    parts += ["## 3. Convergence", CONVERGENCE, paper.convergence(rivals), paper.fastest(paper.speeds(rivals))]
    parts.append(paper.alone(rivals))
    parts += ["From the files of section 2.", "## 4. Normalisation under flips", NORMS]
    for config, result in evidence["norms"].items():
        labels = _labels(studies.norms(config))
        parts += [f"### {config}", tables.norms(config, result, labels), tables.remaining_gaps(result, labels)]
        parts += _source("norms", config, result)
    parts += [*_picture("norms", evidence["norms"]), "## 5. Ablations", ABLATIONS]
    for config, result in evidence["ablations"].items():
        parts += [f"### {config}", tables.ablations(config, result, _labels(studies.ablations(config)))]
        parts += [*_source("ablations", config, result), *_picture(f"ablations-{config}", {config: result})]
    parts += ["## 6. Regret", *_regret(regrets), "## 7. What worked and what did not"]
    parts.append(notes or "Not written yet (docs/notes/what-worked.md).")
    return "\n\n".join(parts) + "\n"


def compared(evidence: Evidence) -> Results:
    """The comparisons that the page shows: those of the plan, and others that have been run and have targets."""
    results = evidence["rivals"]
    return {config: results[config] for config in (*COMPARED, *results) if config in readings.TARGETS}


def draw(folder: Path, evidence: Evidence) -> list[Path]:
    """Draws what there are runs for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rivals = _existing(compared(evidence))
    norms, ablations = _existing(evidence["norms"]), _existing(evidence["ablations"])
    draws = {f"rivals-{key}": functools.partial(pictures.convergence, config=key, result=rivals[key]) for key in rivals}
    draws |= {"overview": functools.partial(pictures.overview, results=rivals)} if rivals else {}
    draws |= {"norms": functools.partial(pictures.norms, results=norms)} if norms else {}
    for config, result in ablations.items():
        draws[f"ablations-{config}"] = functools.partial(pictures.ablations, config=config, result=result)
    paths = {folder / f"{name}.png": function for name, function in draws.items()}
    for path, function in paths.items():
        function(path)
    return list(paths)


def digits_table(results: Results) -> str:
    """The README's table: every rule on the digits, with real and with binary ends."""
    configs = {"digits": "test accuracy, %", "digits-binary": "every layer binary, %"}
    found = {config: readings.tests(results.get(config), RULES) for config in configs}
    rows = [
        (label, *(str(found[config].get(label, not_run("rivals", config))) for config in configs)) for label in RULES
    ]
    return table(("rule", *configs.values()), rows)


def with_table(readme: str, results: Results) -> str:
    """The README with today's table of the digits."""
    return README_TABLE.sub(lambda found: found[1] + digits_table(results) + found[2], readme)


def setting_line(result: Result) -> str:
    """What all rules of a comparison share."""
    row = result["rows"].get(OURS) or next(iter(result["rows"].values()))
    settings, (run, *_) = row["settings"], row["runs"] or [None]
    width = "-".join(map(str, settings["channels"]))
    network = {"vgg": "SpikingVGG", "mlp": "SpikingMLP"}.get(settings["network"], settings["network"])
    ends = "every layer binary" if settings["binary_ends"] else "first and last layer real"
    line = f"{network} {width}, {ends}, norm {settings['norm']}; T = {settings['num_steps']}, "
    line += f"batch {settings['batch_size']}, {settings['epochs']} epochs"
    if run is not None:
        batches = run["validation"][-1][0] / updates_per_batch(settings)
        line += f" of {batches / settings['epochs'] * settings['batch_size']:,.0f} training examples"
        line += f" ({batches:,.0f} batches)"
    skipped = sum(run["skipped"] for row in result["rows"].values() for run in row["runs"])
    lost = f" {skipped:,} updates were skipped, their gradients not finite." if skipped else ""
    return f"{line}; real parameters by SGD from {settings['learning_rate']:g}.{lost}"


def tuning(config: str, result: Result | None, compared: Result | None) -> str:
    """The grids, and the point of each that was best on validation data.

    Args:
      config: the config's name.
      result: of the study tuning.
      compared: of the study rivals; where its row was run with another point, that is said.
    """
    if result is None:
        return f"Tuning: {not_run('tuning', config)}."
    rows = []
    for label, grid in GRIDS.items():
        scores = {
            point.removeprefix(f"{label}, "): runs_of(result, point)[0]["validation"][-1][1]
            for point in result["rows"]
            if point.startswith(f"{label}, ") and runs_of(result, point)
        }
        if not scores:
            rows.append((label, not_run("tuning", config), ""))
            continue
        complete = len(scores) == math.prod(map(len, grid.values()))
        best = max(scores, key=lambda point: scores[point])
        chosen = best if complete else f"{not_run('tuning', config)} (incomplete)"
        if complete:
            chosen += _edge(best, grid) + _mismatch(best, compared, label)
        rows.append((label, "; ".join(f"{point}: {100 * score:.2f}" for point, score in scores.items()), chosen))
    untuned = "; ".join(label for label in RULES if label not in GRIDS)
    return (
        table(("rule", "tried, and its validation accuracy at the end, %", "chosen"), rows)
        + f"\n\nNot tuned: {untuned}. {tables.source('tuning', config, result)}"
    )


INTRODUCTION = """\
Written by `python -m experiments.evidence.render` from the files in [results](results), each of which holds the
command, versions, device, settings and every run with its seed. Accuracy is that of the last epoch, not of the best,
given in per cent as mean ± standard deviation over seeds; nothing was chosen by the test set."""

PAPER = """\
The paper gives one seed and the best test epoch. `python -m experiments.prepare NAME` prepares the data sets."""

RIVALS = """\
A config's rows share network, examples, batches and the real parameters' optimizer; four fifths of the training
examples are trained on, and the rest is the validation set. Every rule ends with binary weights; "latent" keeps a
float32 weight behind each sign while training, the others keep none. **Bold**: the highest mean. ≈: within the
pooled standard deviation of it. With three seeds a standard deviation is itself only known to a factor of about two.

- Batches to a target, not updates: an online rule updates T times a batch. Linear between evaluations; mean of the
  seeds that reached it; "≤" where it was there at the first measurement. Training accuracy is averaged over
  {window} batches.
- State: signs (a byte each in training) + momentum + other optimizer state (latent weights and their moments)
  + neurons. Compiled step: arguments + temporaries. Both are XLA's figures for the device named in the file.
- Flips a weight: over the whole training. Frozen signs are the control, in which the real parameters alone learn."""
RIVALS = RIVALS.format(window=WINDOW)

CONVERGENCE = """\
Batches to the targets of section 2, and their ratio: BPTT with latent weights over the flip rule, so that above 1 the
flip rule is the faster. The paper claims up to 1.8. No ratio (-) where a seed never reached the target, or where both
were there at the first measurement. Learning rates were tuned for the accuracy at the end, not for speed."""

NORMS = """\
Test accuracy for the same weights with three kinds of statistics: running averages from training, re-estimated from
training batches at the end, and those of the test batch itself, which no user has. The gap is taken seed by seed."""

ABLATIONS = "One setting at a time; choose by validation accuracy."


def _of_paper(evidence: Evidence) -> list[str]:
    rivals = evidence["rivals"]
    measured = {config: rivals.get(config) for config in dict.fromkeys(row.config for row in paper.EXPERIMENTS)}
    files = [line for config, result in measured.items() for line in _source("rivals", config, result)]
    return [paper.beside_ours(rivals), *files, paper.claims(compared(evidence)), "Claims: from the files of section 2."]


def _compared(config: str, result: Result | None, tuned: Result | None) -> list[str]:
    parts = [tables.rivals(config, result), *_source("rivals", config, result)]
    if result is not None and any(runs_of(result, label) for label in RULES):
        parts += [setting_line(result), tables.verdict(result), *_picture(f"rivals-{config}", {config: result})]
    details = "<details><summary>How the settings were chosen</summary>"
    return [*parts, details, tuning(config, tuned, result), "</details>"]


def _regret(regrets: dict[str, Any] | None) -> list[str]:
    if regrets is None:
        command = "python -m experiments.regret --output docs/results/regret.json --picture docs/pictures/regret.png"
        return [f"not run yet: `{command}`"]
    origin = f"From [results/regret.json](results/regret.json), written by `{regrets['command']}`."
    return [regret.markdown(regrets), origin, "![regret](pictures/regret.png)"]


def _labels(jobs: Iterable[Job]) -> list[str]:
    return list(dict.fromkeys(job.label for job in jobs))


def _source(study: str, config: str, result: Result | None) -> list[str]:
    return [] if result is None else [tables.source(study, config, result)]


def _picture(name: str, results: Results) -> list[str]:
    return [f"![{name}](pictures/{name}.png)"] if _existing(results) else []


def _existing(results: Results) -> dict[str, Result]:
    """Those that have runs."""
    return {
        config: result
        for config, result in results.items()
        if result is not None and any(row["runs"] for row in result["rows"].values())
    }


def _edge(point: str, grid: Mapping[str, tuple[float, ...]]) -> str:
    """Whether a chosen point lies at the end of a grid of more than two values."""
    chosen = dict(setting.split(" ") for setting in point.split(", "))
    ends = [
        name
        for name, values in grid.items()
        if len(values) > 2 and chosen.get(name) in (f"{min(values):g}", f"{max(values):g}")
    ]
    return f" (an end of the grid: {', '.join(ends)})" if ends else ""


def _mismatch(point: str, compared: Result | None, label: str) -> str:
    row = None if compared is None else compared["rows"].get(label)
    if row is None:
        return ""
    chosen = dict(setting.split(" ") for setting in point.split(", "))
    used = {name: f"{row['settings'][name]:g}" if row["settings"][name] is not None else "None" for name in chosen}
    if used == chosen:
        return ""
    return f" (but the comparison was run with {', '.join(f'{name} {value}' for name, value in used.items())})"


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.evidence.render")
