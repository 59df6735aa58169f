"""Computes and draws what docs/explanation shows: ``python -m experiments.explained [--draw]``.

Without the flag, everything is computed anew, in minutes, and written to docs/results/explained.json; with it, the
pictures are drawn from that file.
"""

import json
import sys
from pathlib import Path

from experiments.environment import environment
from experiments.explained import flips, gradients, pictures, training
from experiments.running.files import write_json

DOCS = Path(__file__).resolve().parents[2] / "docs"
RESULT = DOCS / "results" / "explained.json"


def main(arguments: list[str]) -> None:
    """The command line."""
    if arguments not in ([], ["--draw"]):
        sys.exit(f"python -m experiments.explained: takes --draw or nothing, got {' '.join(arguments)}")
    if not arguments:
        result = {
            "one weight": flips.one_weight(),
            "thresholds": flips.thresholds(),
            "windows": flips.windows(),
            "gradients": gradients.cosines(),
            "training": training.runs(),
        }
        write_json(RESULT, {**environment(), **result})
    for path in pictures.draw(DOCS / "pictures", json.loads(RESULT.read_text())):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
