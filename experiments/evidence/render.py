"""Renders the evidence: ``python -m experiments.evidence.render`` reads docs/results and writes docs/RESULTS.md.

It draws docs/pictures too, and replaces the table of the digits in the README. What has not been run is named with its
command; no figure stands on the page that is not in a file. The prose is in page.md beside this file.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from experiments import pages, presets, regret
from experiments.configs import CONFIGS
from experiments.evidence import paper, pictures, studies, tables
from experiments.evidence.measure import WINDOW
from experiments.evidence.plan import COMPARED, PLAN
from experiments.evidence.readings import OURS, TARGETS, Result, Results, rules_of, runs_of, tests, updates_per_batch
from experiments.evidence.studies import RULES, TUNED_ON
from experiments.evidence.tables import not_run, source
from experiments.pages import joined, picture

TEMPLATE = Path(__file__).with_name("page.md")
README_TABLE = re.compile(r"(<!-- digits -->\n).*?(\n<!-- end -->)", re.DOTALL)
REGRET = "python -m experiments.regret --output docs/results/regret.json --picture docs/pictures/regret.png"

Evidence = Mapping[str, Results]
"""The results of every study, by its name."""


def main(root: Path = Path()) -> None:
    """Renders the page, its pictures and the README's table.

    Args:
      root: the repository.
    """
    evidence = load(root)
    notes, curve = root / "docs" / "notes" / "what-worked.md", root / "docs" / "results" / "regret.json"
    regrets = json.loads(curve.read_text()) if curve.exists() else None
    pages.write(root / "docs" / "RESULTS.md", page(evidence, regrets, notes.read_text() if notes.exists() else None))
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
        paths = {config: root / studies.path_of(name, config) for config in dict.fromkeys((*configs, *CONFIGS))}
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
    rivals, norms = compared(evidence), evidence["norms"]
    papers = {experiment.config: evidence["rivals"].get(experiment.config) for experiment in paper.EXPERIMENTS}
    judged = paper.on_validation(paper.speeds(rivals))
    values = {
        "threshold": f"{presets.PAPER_THRESHOLD:g}",
        "b1": f"{presets.PAPER_B1:g}",
        "b2": f"{presets.PAPER_B2:g}",
        "window": f"{round(1 / (1 - presets.CALIBRATED_B1), 6):g}",
        "growth": f"{presets.CALIBRATED_GROWTH:g}",
        "c": f"{presets.CALIBRATED_C:g}",
        "averaged": str(WINDOW),
        "paper": joined(paper.beside_ours(papers), *(source("rivals", *found) for found in papers.items())),
        "claims": paper.claims(rivals),
        "overview": _picture("overview", rivals),
        "rivals": joined(*(_rivals(config, result, evidence["tuning"]) for config, result in rivals.items())),
        "convergence": joined(paper.convergence(rivals), paper.fastest(judged), paper.alone(rivals)),
        "norms": joined(_sections("norms", norms, _norms), _picture("norms", norms)),
        "ablations": _sections("ablations", evidence["ablations"], _ablations),
        "savings": _sections("savings", evidence["savings"], tables.savings),
        "regret": _regret(regrets),
        "notes": (notes or "Not written yet (docs/notes/what-worked.md).").strip(),
    }
    return pages.filled(TEMPLATE, values)


def compared(evidence: Evidence) -> Results:
    """The comparisons that the page shows: those of the plan, and others that have been run and have targets."""
    results = evidence["rivals"]
    return {config: results[config] for config in (*COMPARED, *results) if config in TARGETS}


def draw(folder: Path, evidence: Evidence) -> list[Path]:
    """Draws what there are runs for; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    rivals, norms, ablations = map(_existing, (compared(evidence), evidence["norms"], evidence["ablations"]))
    draws: dict[str, Callable[[Path], None]] = {
        f"{name}-{config}": functools.partial(draw_one, config=config, result=result)
        for name, draw_one, results in (
            ("rivals", pictures.convergence, rivals),
            ("ablations", pictures.ablations, ablations),
        )
        for config, result in results.items()
    }
    draws |= {"overview": functools.partial(pictures.overview, results=rivals)} if rivals else {}
    draws |= {"norms": functools.partial(pictures.norms, results=norms)} if norms else {}
    for name, draw_one in draws.items():
        draw_one(folder / f"{name}.png")
    return [folder / f"{name}.png" for name in draws]


def digits_table(results: Results) -> str:
    """The README's table: every rule on the digits, with real and with binary ends."""
    configs = {"digits": "digits, %", "fashion-mnist-binary": "Fashion-MNIST, every layer binary, %"}
    found = {config: tests(results.get(config), RULES) for config in configs}

    def cell(config: str, label: str) -> str:
        return found[config][label].percent if label in found[config] else not_run("rivals", config)

    return pages.table(
        ("rule", *configs.values()), [(label, *(cell(config, label) for config in configs)) for label in RULES]
    )


def with_table(readme: str, results: Results) -> str:
    """The README with today's table of the digits."""
    return README_TABLE.sub(lambda found: found[1] + digits_table(results) + found[2], readme)


def setting_line(result: Result) -> str:
    """What all rules of a comparison share."""
    row = result["rows"].get(OURS) or next(iter(result["rows"].values()))
    settings, (run, *_) = row["settings"], row["runs"] or [None]
    network = {"vgg": "SpikingVGG", "mlp": "SpikingMLP"}.get(settings["network"], settings["network"])
    width = "-".join(map(str, settings["channels"]))
    ends = "every layer binary" if settings["binary_ends"] else "first and last layer real"
    line = f"{network} {width}, {ends}, norm {settings['norm']}; T = {settings['num_steps']}, "
    line += f"batch {settings['batch_size']}, {settings['epochs']} epochs"
    if run is not None:
        batches = run["validation"][-1][0] / updates_per_batch(settings)
        examples = batches / settings["epochs"] * settings["batch_size"]
        line += f" of {examples:,.0f} training examples ({batches:,.0f} batches)"
    skipped = sum(run["skipped"] for row in result["rows"].values() for run in row["runs"])
    lost = f" {skipped:,} updates were skipped, their gradients not finite." if skipped else ""
    return f"{line}; real parameters by SGD from {settings['learning_rate']:g}.{lost}"


def ablation_line(config: str, result: Result | None) -> str:
    """How long the ablations are, from their settings."""
    made = [job.config.epochs for job in studies.ablations(config)]
    epochs = set(made if result is None else (row["settings"]["epochs"] for row in result["rows"].values()))
    lengths = " or ".join(map(str, sorted(epochs)))
    return f"Short runs: {lengths} epochs, where section 2 has {CONFIGS[config][1].epochs}."


def _sections(
    study: str, results: Results, body: Callable[[str, Result | None, Sequence[str]], str]
) -> str:
    """A heading, what a study says, and its file, for each config."""
    jobs = {name: jobs for name, jobs, _ in PLAN}[study]
    parts = []
    for config, result in results.items():
        labels = list(dict.fromkeys(job.label for job in jobs(config)))
        drawn = _picture(f"{study}-{config}", {config: result}) if study == "ablations" else ""
        parts += [f"### {config}", body(config, result, labels), source(study, config, result), drawn]
    return joined(*parts)


def _rivals(config: str, result: Result | None, tuned: Results) -> str:
    labels = rules_of(config)
    parts = [f"### {config}", CONFIGS[config][0]]
    parts += [] if set(labels) == set(RULES) else ["Slow here: only these of the rules are run."]
    parts += [tables.rivals(config, result), source("rivals", config, result)]
    if result is not None and any(runs_of(result, label) for label in labels):
        parts += [setting_line(result), tables.verdict(config, result), picture(f"rivals-{config}")]
    chosen = tables.tuning(config, tuned.get(TUNED_ON.get(config, config)), result)
    return joined(*parts, "<details><summary>How the settings were chosen</summary>", chosen, "</details>")


def _norms(config: str, result: Result | None, labels: Sequence[str]) -> str:
    return joined(tables.norms(config, result, labels), tables.remaining_gaps(result, labels))


def _ablations(config: str, result: Result | None, labels: Sequence[str]) -> str:
    return joined(tables.ablations(config, result, labels), ablation_line(config, result))


def _regret(regrets: dict[str, Any] | None) -> str:
    if regrets is None:
        return f"not run yet: `{REGRET}`"
    return joined(regret.markdown(regrets), pages.source("results/regret.json", regrets), picture("regret"))


def _picture(name: str, results: Results) -> str:
    return picture(name) if _existing(results) else ""


def _existing(results: Results) -> dict[str, Result]:
    """Those that have runs."""
    return {
        config: result
        for config, result in results.items()
        if result is not None and any(row["runs"] for row in result["rows"].values())
    }


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.evidence.render")
