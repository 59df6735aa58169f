"""Which study is run on which configs, in the order of their importance."""

from collections.abc import Sequence

from experiments.evidence import studies

COMPARED = ("digits", "fashion-mnist-binary", "spoken-digits", "fashion-mnist", "n-mnist")
"""The configs on which all rules are compared."""

PLAN: Sequence[tuple[str, studies.Study, Sequence[str]]] = (
    ("tuning", studies.tuning, COMPARED),
    ("rivals", studies.rivals, (*COMPARED, *studies.FEW)),
    ("norms", studies.norms, ("digits", "spoken-digits")),
    ("savings", studies.savings, ("digits", "fashion-mnist")),
    ("ablations", studies.ablations, ("fashion-mnist-binary",)),
)
"""A study's name, its jobs, and the configs that it is run on."""
