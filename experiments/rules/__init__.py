"""What trains the signs: our optimizers and their rivals by their names on the command line, each with its settings.

Nothing here knows the config of an experiment; a rule of one's own is described in docs/EXTENDING.md.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

from experiments.rules.accumulated import Boat, Bold, Sgdat
from experiments.rules.flips import Bop, Bso, BsoReset, CalibratedBso, CalibratedBsoReset, CalibratedTBso, Counter, TBso
from experiments.rules.latent import BpttAdam, BpttSgd, Ndot, Ottt, Sltt
from experiments.rules.rule import Rule as Rule

OptimizerName = Literal[
    "bso",
    "bso-reset",
    "t-bso",
    "counter",
    "bop",
    "boat",
    "sgdat",
    "bold",
    "bptt-sgd",
    "bptt-adam",
    "ottt",
    "ndot",
    "sltt",
]
PresetName = Literal["paper", "calibrated"]

RULES: dict[OptimizerName, type[Rule]] = {
    "bso": Bso,
    "bso-reset": BsoReset,
    "t-bso": TBso,
    "counter": Counter,
    "bop": Bop,
    "boat": Boat,
    "sgdat": Sgdat,
    "bold": Bold,
    "bptt-sgd": BpttSgd,
    "bptt-adam": BpttAdam,
    "ottt": Ottt,
    "ndot": Ndot,
    "sltt": Sltt,
}
"""Every rule with its authors' settings, by its name."""

CALIBRATED: dict[OptimizerName, type[Rule]] = {
    "bso": CalibratedBso,
    "bso-reset": CalibratedBsoReset,
    "t-bso": CalibratedTBso,
}
"""Rules that also have our settings."""


def settings_of(kind: type[Rule]) -> dict[str, Any]:
    """Returns the settings of a kind of rule with their defaults."""
    return {field.name: field.default for field in dataclasses.fields(kind)}  # type: ignore[arg-type]


SETTINGS = tuple({name: None for kind in (*CALIBRATED.values(), *RULES.values()) for name in settings_of(kind)})
"""The settings of all rules."""

REFUSED = tuple({name: None for kind in RULES.values() for name in kind.refuses})
"""The settings that some rule refuses with its own reason."""


def kind_of(optimizer: OptimizerName, preset: PresetName) -> type[Rule]:
    """Returns the kind of rule; rules without our settings have only one."""
    return CALIBRATED.get(optimizer, RULES[optimizer]) if preset == "calibrated" else RULES[optimizer]


def make_rule(optimizer: OptimizerName, preset: PresetName, given: Mapping[str, Any]) -> Rule:
    """Returns a rule.

    Args:
      optimizer: its name.
      preset: whose settings it starts from.
      given: the settings that a user gives, by name, those in SETTINGS and REFUSED.

    Raises:
      ValueError: one of them is not a setting of this rule.
    """
    kind = kind_of(optimizer, preset)
    own, which = settings_of(kind), f" with --preset {preset}" if optimizer in CALIBRATED else ""
    for name in given:
        if name in kind.refuses:
            raise ValueError(f"{flag(name)}: '{optimizer}' {kind.refuses[name]}; omit the flag.")
        if name in SETTINGS and name not in own:
            has = ", ".join(map(flag, own))
            raise ValueError(f"{flag(name)}: '{optimizer}'{which} has no such setting; omit it. It has {has}.")
    return kind(**{name: value for name, value in given.items() if name in own})


def described() -> str:
    """Returns one line per rule with its settings, as a user types them."""
    lines = []
    for name in RULES:
        for preset in ("calibrated", "paper") if name in CALIBRATED else (None,):
            own = settings_of(kind_of(name, preset or "paper"))
            words = " ".join(f"{flag(setting)} {value}" for setting, value in own.items())
            lines.append(f"- {name}{f' --preset {preset}' if preset else ''}: {words}")
    return "\n".join(lines)


def flag(name: str) -> str:
    """A setting's name on the command line."""
    return f"--{name.replace('_', '-')}"
