"""Renders the evidence: ``python -m experiments.evidence.render`` reads docs/results and writes docs/RESULTS.md.

It also draws docs/pictures and replaces the README's table. The page names the command of every study that has not been
run; every figure on it is in a file. The prose is in page.md beside this file.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tyro

from experiments import pages, regret
from experiments.configs import CONFIGS
from experiments.evidence import answer, paper, pictures, studies, tables
from experiments.evidence.compared import OURS, TUNED_ON
from experiments.evidence.measure import WINDOW
from experiments.evidence.results import TARGETS, Studies, Study, load
from experiments.evidence.studies import labels_of
from experiments.pages import joined, picture
from experiments.rules.flips import CalibratedTBso, TBso

TEMPLATE = Path(__file__).with_name("page.md")
README_TABLE = re.compile(r"(<!-- digits -->\n).*?(\n<!-- end -->)", re.DOTALL)
REGRET = "python -m experiments.regret --output docs/results/regret.json --picture docs/pictures/regret.png"

IN_README = (
    "BPTT, latent, Adam",
    "SLTT, latent",
    "T-BSO, paper",
    "T-BSO, calibrated",
    "counter, 8 bits",
    "counter, 6 bits",
    "frozen signs",
)
"""The rows of the README's table."""

Evidence = Mapping[str, Studies]
"""Every study, by name."""


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


def page(evidence: Evidence, regrets: dict[str, Any] | None, notes: str | None) -> str:
    """docs/RESULTS.md.

    Args:
      evidence: what load returns.
      regrets: what experiments.regret writes.
      notes: what worked and what did not, in Markdown.
    """
    rivals, norms = compared(evidence), evidence["norms"]
    papers = [study for study in evidence["rivals"].values() if study.config in {row["config"] for row in paper.rows()}]
    judged = paper.on_validation(paper.speeds(rivals))
    values = {
        "threshold": f"{TBso.threshold:g}",
        "b1": f"{TBso.b1:g}",
        "b2": f"{TBso.b2:g}",
        "growth": f"{CalibratedTBso.growth:g}",
        "window": f"{1 / (1 - CalibratedTBso.b1):.6g}",
        "averaged": str(WINDOW),
        "answer": answer.answer(evidence),
        "paper": joined(paper.beside_ours(evidence["rivals"]), *(study.source for study in papers)),
        "claims": paper.claims(rivals),
        "overview": _picture("overview", rivals.values()),
        "bits": _picture("bits", _measured(rivals)),
        "speed": joined(*(_speed(study) for study in evidence["speed"].values())),
        "rivals": joined(*(_rivals(study, evidence["tuning"]) for study in rivals.values())),
        "convergence": joined(paper.convergence(rivals), paper.fastest(judged), paper.alone(rivals)),
        "norms": joined(*map(_section, norms.values()), _picture("norms", norms.values())),
        "ablations": joined(*map(_section, evidence["ablations"].values())),
        "longer": joined(*map(_section, evidence["longer"].values())),
        "windows": joined(*map(_section, evidence["windows"].values())),
        "savings": joined(*map(_section, evidence["savings"].values())),
        "regret": _regret(regrets) if regrets else f"not run yet: `{REGRET}`",
        "notes": (notes or "Not written yet (docs/notes/what-worked.md).").strip(),
    }
    return pages.filled(TEMPLATE, values)


def compared(evidence: Evidence) -> Studies:
    """The comparisons that the page shows: those that have targets."""
    return {config: study for config, study in evidence["rivals"].items() if config in TARGETS}


def draw(folder: Path, evidence: Evidence) -> list[Path]:
    """Draws the pictures for which there are runs; returns the files."""
    rivals, norms, ablations = map(_run, (compared(evidence), evidence["norms"], evidence["ablations"]))
    drawn = {f"rivals-{study.config}": pictures.convergence(study) for study in rivals}
    drawn |= {f"ablations-{study.config}": pictures.ablations(study) for study in ablations}
    drawn |= {"overview": pictures.overview(rivals)} if rivals else {}
    drawn |= {"bits": pictures.bits(measured)} if (measured := _measured(compared(evidence))) else {}
    drawn |= {"norms": pictures.norms(norms)} if norms else {}
    return [pages.save_picture(folder / f"{name}.png", drawing) for name, drawing in drawn.items()]


def readme_table(rivals: Studies) -> str:
    """The README's table: some rules on three sets, and the bits per weight that each keeps in training."""
    heads = {
        "fashion-mnist-binary": "Fashion-MNIST, every layer binary, %",
        "spoken-digits": "spoken digits, %",
        "digits": "digits, %",
    }
    shown = [rivals.get(config, Study("rivals", config)) for config in heads]
    rows = []
    for label in IN_README:
        found = (study.rows[label].bits for study in shown if label in study.rows and label != "frozen signs")
        bits = next((f"{count:.0f}" for count in found if count is not None), "-")
        accuracies = (study.rows[label].test.percent if label in study.rows else study.missing for study in shown)
        rows.append((label, bits, *accuracies))
    return pages.table(("rule", "bits per weight in training", *heads.values()), rows)


def with_table(readme: str, rivals: Studies) -> str:
    """The README with the current table."""
    return README_TABLE.sub(lambda found: found[1] + readme_table(rivals) + found[2], readme)


def setting_line(study: Study) -> str:
    """The settings that all rules of a comparison share."""
    row = study.rows.get(OURS) or next(iter(study.rows.values()))
    settings = row.settings
    network = {"vgg": "SpikingVGG", "mlp": "SpikingMLP"}.get(settings["network"], settings["network"])
    width = "-".join(map(str, settings["channels"]))
    ends = "every layer binary" if settings["binary_ends"] else "first and last layer real"
    batches = row.runs[0]["validation"][-1][0] / row.updates_per_batch
    examples = batches / settings["epochs"] * settings["batch_size"]
    skipped = sum(run["skipped"] for row in study.rows.values() for run in row.runs)
    lost = f" {skipped:,} updates were skipped because their gradients were not finite." if skipped else ""
    return (
        f"{network} {width}, {ends}, norm {settings['norm']}; T = {settings['num_steps']}, batch "
        f"{settings['batch_size']}, {settings['epochs']} epochs of {examples:,.0f} training examples ({batches:,.0f} "
        f"batches); real parameters trained by SGD from a rate of {settings['learning_rate']:g}.{lost}"
    )


def ablation_line(study: Study) -> str:
    """How long the ablations are, from their settings."""
    made = {job.config.epochs for job in studies.ablations(study.config)}
    epochs = {row.settings["epochs"] for row in study.rows.values()} or made
    lengths = " or ".join(map(str, sorted(epochs)))
    return f"Short runs: {lengths} epochs, against {CONFIGS[study.config][1].epochs} in section 2."


def _rivals(study: Study, tunings: Studies) -> str:
    origin = TUNED_ON.get(study.config, study.config)
    some = f"Only these rules are run, with the settings chosen on {origin}." if study.config in TUNED_ON else ""
    below = [setting_line(study), tables.verdict(study), picture(f"rivals-{study.config}")] if study.rows else []
    return joined(
        f"### {study.config}",
        CONFIGS[study.config][0],
        some,
        tables.rivals(study),
        study.source,
        *below,
        "<details><summary>How the settings were chosen</summary>",
        tables.tuning(tunings.get(origin, Study("tuning", origin)), study),
        "</details>",
    )


def _section(study: Study) -> str:
    """The results of a study on a config, and its file."""
    tell = tables.norms if study.name == "norms" else tables.grouped
    ablated = study.name == "ablations"
    return joined(
        f"### {study.config}",
        tell(study, labels_of(study.name, study.config)),
        ablation_line(study) if ablated else "",
        study.source,
        _picture(f"ablations-{study.config}", [study]) if ablated else "",
    )


def _measured(rivals: Studies) -> list[Study]:
    """Comparisons in which memory was measured."""
    return [study for study in rivals.values() if any(row.bits is not None for row in study.rows.values())]


def _speed(study: Study) -> str:
    return joined(f"#### {study.config}", tables.speed(study), study.source)


def _regret(regrets: dict[str, Any]) -> str:
    return joined(regret.markdown(regrets), pages.source("results/regret.json", regrets), picture("regret"))


def _picture(name: str, shown: Iterable[Study]) -> str:
    return picture(name) if any(study.rows for study in shown) else ""


def _run(shown: Studies) -> list[Study]:
    """Those that have runs."""
    return [study for study in shown.values() if study.rows]


if __name__ == "__main__":
    tyro.cli(main, prog="python -m experiments.evidence.render")
