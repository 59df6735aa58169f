"""Renders the evidence: ``python -m experiments.evidence.render`` reads docs/results and writes docs/RESULTS.md.

It draws docs/pictures too, and replaces the table of the digits in the README. What has not been run is named with its
command; no figure stands on the page that is not in a file.
"""

import functools
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments import presets, regret
from experiments.configs import CONFIGS
from experiments.evidence import paper, pictures, readings, studies, tables
from experiments.evidence.measure import WINDOW, Job
from experiments.evidence.plan import COMPARED, PLAN
from experiments.evidence.readings import OURS, Result, Results, runs_of, updates_per_batch
from experiments.evidence.studies import RULES, TUNED_ON
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
        tuned = evidence["tuning"].get(TUNED_ON.get(config, config))
        parts += [f"### {config}", CONFIGS[config][0], *_compared(config, result, tuned)]
    judged = paper.on_validation(paper.speeds(rivals))
    parts += ["## 3. Convergence", CONVERGENCE, paper.convergence(rivals), paper.fastest(judged)]
    parts.append(paper.alone(rivals))
    parts += ["From the files of section 2.", "## 4. Normalisation under flips", NORMS]
    for config, result in evidence["norms"].items():
        labels = _labels(studies.norms(config))
        parts += [f"### {config}", tables.norms(config, result, labels), tables.remaining_gaps(result, labels)]
        parts += _source("norms", config, result)
    parts += [*_picture("norms", evidence["norms"]), "## 5. Ablations", ABLATIONS]
    for config, result in evidence["ablations"].items():
        parts += [f"### {config}", tables.ablations(config, result, _labels(studies.ablations(config)))]
        parts += [ablation_line(config, result), *_source("ablations", config, result)]
        parts += _picture(f"ablations-{config}", {config: result})
    parts += ["## 6. Smaller states, fewer backward passes", SAVINGS]
    for config, result in evidence["savings"].items():
        parts += [f"### {config}", tables.savings(config, result, _labels(studies.savings(config)))]
        parts += _source("savings", config, result)
    parts += ["## 7. Regret", *_regret(regrets), "## 8. What worked and what did not"]
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
    configs = {"digits": "digits, %", "fashion-mnist-binary": "Fashion-MNIST, every layer binary, %"}
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


def ablation_line(config: str, result: Result | None) -> str:
    """How long the ablations are, from their settings."""
    made = [job.config.epochs for job in studies.ablations(config)]
    epochs = set(made if result is None else (row["settings"]["epochs"] for row in result["rows"].values()))
    lengths = " or ".join(map(str, sorted(epochs)))
    return f"Short runs: {lengths} epochs, where section 2 has {CONFIGS[config][1].epochs}."


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
pooled standard deviation of it. With three seeds a standard deviation is itself only known to a factor of about two,
and how well the test set, which the seeds share, stands for others is not in it.

- Paper: the paper's constants, threshold {paper_threshold:g}, b1 = {paper_b1:g} and for T-BSO b2 = {paper_b2:g},
  whatever the length of the run. Calibrated: gradients are brought to one size a channel, divided by their root mean
  square; the momentum's window 1 / (1 - b1) starts at {window:g} updates and grows by "growth" updates an update; a
  cosine takes 1 - b1 to 0 at the end, so that flips die out; the threshold is c times the momentum's noise, and falls
  with it. The preset has growth {growth:g} and c = {c:g}; here both are chosen on validation data (c under the name of
  threshold).
- Batches to a target: a rule that differentiates through time (BPTT, Bop) updates once a batch, an online rule T times
  (updates = batches x T). Linear between evaluations; mean of the seeds that reached it; "≤" where it was there at the
  first measurement. Training accuracy is averaged over {batches} batches.
- State: signs (a byte each in training) + momentum + other optimizer state (latent weights and their moments)
  + neurons. Compiled step: arguments + temporaries. Both are XLA's figures for the device named in the file.
- Flips a weight: over the whole training. Frozen signs are the control, in which the real parameters alone learn."""
RIVALS = RIVALS.format(
    paper_threshold=presets.PAPER_THRESHOLD,
    paper_b1=presets.PAPER_B1,
    paper_b2=presets.PAPER_B2,
    window=round(1 / (1 - presets.CALIBRATED_B1), 6),
    growth=presets.CALIBRATED_GROWTH,
    c=presets.CALIBRATED_C,
    batches=WINDOW,
)

CONVERGENCE = """\
Batches to the targets of section 2, and their ratio: BPTT with latent weights over the flip rule, so that above 1 the
flip rule is the faster. The paper claims up to 1.8. No ratio (-) where a seed never reached the target, or where both
were there at the first measurement. BPTT updates once a batch, so these are its updates too; a flip rule's updates are
its batches times T, and the ratio in updates is the one shown divided by T. Settings were tuned for the accuracy at the
end, not for speed; the targets are round numbers, those of the two Fashion-MNIST configs set when runs were in.

The training target flatters online rules: a batch's accuracy is that of its logits summed over time, and from the
second time step on these come from weights that were already updated on the same batch. The sentences below, and the
claims above, are therefore of the validation target alone."""

NORMS = """\
Test accuracy for the same weights with three kinds of statistics: running averages from training, re-estimated from
training batches at the end, and those of the test batch itself, which no user has. The gap is taken seed by seed.
Flip settings are the presets', not those tuned in section 2."""

SAVINGS = """\
What it costs in accuracy to keep the momentum in fewer bits, signs packed in all but the first row of a table, and to
backpropagate at some of the time steps only. All other settings are the presets', as in section 5. What it saves is in
BENCHMARKS.md."""

ABLATIONS = """\
One setting at a time, all others as in the preset (section 2 says what they are); choose by validation accuracy."""


def _of_paper(evidence: Evidence) -> list[str]:
    rivals = evidence["rivals"]
    measured = {config: rivals.get(config) for config in dict.fromkeys(row.config for row in paper.EXPERIMENTS)}
    files = [line for config, result in measured.items() for line in _source("rivals", config, result)]
    return [paper.beside_ours(rivals), *files, paper.claims(compared(evidence)), "Claims: from the files of section 2."]


def _compared(config: str, result: Result | None, tuned: Result | None) -> list[str]:
    labels = readings.rules_of(config)
    parts = [] if set(labels) == set(RULES) else ["Slow here: only these of the rules are run."]
    parts += [tables.rivals(config, result), *_source("rivals", config, result)]
    if result is not None and any(runs_of(result, label) for label in labels):
        parts += [setting_line(result), tables.verdict(config, result), *_picture(f"rivals-{config}", {config: result})]
    details = "<details><summary>How the settings were chosen</summary>"
    return [*parts, details, tables.tuning(config, tuned, result), "</details>"]


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


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.evidence.render")
