"""The opening of RESULTS.md: differences, their standard errors, and the sentences that follow from them."""

import numpy as np
import pytest

from experiments.evidence import answer, compared
from experiments.evidence.results import Study

SETTINGS = {"optimizer": "t-bso", "num_steps": 4}
BITS = {"signs_packed": 1, "momentum": 0, "optimizer_other": 0, "latent_adam": 12 * 8}


def row(tests, bits=33.0):
    curve = [[100.0 * place, value] for place, value in enumerate((0.5, 0.9, 0.992, 0.993, 0.994), 1)]
    memory = BITS | {"signs_packed": bits}
    runs = [{"seed": seed, "test": test, "validation": curve, "memory": memory} for seed, test in enumerate(tests)]
    return {"settings": SETTINGS, "runs": runs}


def study(**tests):
    """A comparison on the digits: every rule at 90 %, but for those that are given."""
    rows = {label: row(tests.get(label.split(",")[0], (0.89, 0.90, 0.91))) for label in compared.RULES}
    return Study("rivals", "digits", {"rows": rows, "command": "", "versions": {"jax": "0"}, "device": "cpu"})


def test_a_difference_is_taken_over_the_seeds_that_both_rows_have():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.9, 0.01, 6), rng.normal(0.8, 0.02, 3)
    rows = Study("rivals", "digits", {"rows": {"a": row(one), "b": row(other)}}).rows
    apart, error = answer.difference(rows["a"], rows["b"])
    assert apart == pytest.approx(100 * (one[:3] - other).mean())
    assert error == pytest.approx(100 * np.sqrt((one[:3] - other).var(ddof=1) / 3))


@pytest.mark.parametrize(
    ("best", "said"),
    [
        ((0.95, 0.951, 0.952), "behind on digits, and level on none"),
        ((0.90, 0.91, 0.89), "behind on none, and level on digits"),
    ],
)
def test_the_verdict_names_the_side_on_which_a_config_stands(best, said):
    text = answer.answer({"rivals": {"digits": study(SLTT=best)}, "speed": {}})
    assert said in text
    assert ("Clearly above it: SLTT, latent" in text) == (best[0] == 0.95)
    assert text.count("not run yet: `python -m experiments.evidence --only rivals:") == len(compared.COMPARED) - 1


def test_fewest_bits_are_those_of_a_rule_that_loses_nothing():
    made = study()
    made.content["rows"]["counter, 5 bits"] = row((0.89, 0.90, 0.905), bits=5)
    made.content["rows"]["counter, 4 bits"] = row((0.80, 0.81, 0.805), bits=4)
    assert answer.fewest_bits(made) == "5 (counter, 5 bits)"


def test_sets_on_which_nothing_was_tuned_are_compared_apart():
    seeds = {
        "BPTT, latent, Adam": (0.49, 0.50, 0.51),
        "T-BSO, calibrated": (0.52, 0.53, 0.54),
        "counter, 6 bits": (0.5,),
    }
    rows = {label: row(tests) for label, tests in seeds.items()}
    one = {label: row(tests[:1]) for label, tests in seeds.items()}
    studies = {"digits": study()} | {
        config: Study("rivals", config, {"rows": held})
        for config, held in (("cifar10-small", rows), ("cifar10-medium", one))
    }
    text = answer.untuned(studies)
    assert "digits" not in text
    assert (
        "53.00 ± 1.00 | counter, 6 bits: 50.00 (one seed) | BPTT, latent, Adam: 50.00 ± 1.00 | +3.00 (0.00) |" in text
    )
    assert "+3.00 (one seed) |" in text
    assert answer.untuned({"digits": study()}) == ""
