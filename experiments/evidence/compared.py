"""What the studies compare: the rules, the grids of their settings, the seeds."""

from typing import Any

COMPARED = ("digits", "fashion-mnist-binary", "spoken-digits", "fashion-mnist", "n-mnist")
"""The configs on which all rules are compared."""

SEEDS = (0, 1, 2)
"""The seeds of every row."""

MORE_SEEDS = (3, 4, 5)
"""Further seeds of the best rows of a comparison, once all rows have been run with the seeds above."""

MOST = 3
"""The number of best rows, at the least."""

LEVEL = 0.005
"""Rows within this validation accuracy of the best are among the best too: three seeds do not tell them apart."""

TUNING_SEED = 100
"""Settings are chosen with a seed that no comparison uses."""

RULES: dict[str, dict[str, Any]] = {
    "BPTT, latent, SGD": {"optimizer": "bptt-sgd"},
    "BPTT, latent, SGD without momentum": {"optimizer": "bptt-sgd", "latent_momentum": 0.0},
    "BPTT, latent, Adam": {"optimizer": "bptt-adam"},
    "BPTT, latent, Adam, read at an average": {"optimizer": "bptt-adam"},
    "OTTT, latent": {"optimizer": "ottt"},
    "NDOT, latent": {"optimizer": "ndot"},
    "SLTT, latent": {"optimizer": "sltt"},
    "SLTT, latent, read at an average": {"optimizer": "sltt"},
    "Bop": {"optimizer": "bop"},
    "BOAT": {"optimizer": "boat"},
    "SGDAT": {"optimizer": "sgdat"},
    "BOLD": {"optimizer": "bold"},
    "BSO, paper": {"optimizer": "bso", "preset": "paper"},
    "BSO with reset, paper": {"optimizer": "bso-reset", "preset": "paper"},
    "T-BSO, paper": {"optimizer": "t-bso", "preset": "paper"},
    "T-BSO, first recipe": {"optimizer": "t-bso", "anneal": "cosine", "deploy_c": 0.0},
    "T-BSO, calibrated": {"optimizer": "t-bso"},
    "T-BSO, calibrated, deployed as trained": {"optimizer": "t-bso", "deploy_c": 0.0},
    "T-BSO, calibrated, int8": {"optimizer": "t-bso", "momentum_dtype": "int8", "packed": True},
    "counter, 8 bits": {"optimizer": "counter", "bits": 8, "deploy_c": 0.0, "packed": True},
    "counter, 6 bits": {"optimizer": "counter", "bits": 6, "deploy_c": 0.0, "packed": True},
    "counter, 6 bits and a deployed one": {"optimizer": "counter", "bits": 6, "packed": True},
    "counter, 5 bits": {"optimizer": "counter", "bits": 5, "deploy_c": 0.0, "packed": True},
    "counter, 4 bits": {"optimizer": "counter", "bits": 4, "deploy_c": 0.0, "packed": True},
    "frozen signs": {"frozen": True},
}
"""The rows of every comparison: what each changes in the config."""

OURS = "T-BSO, calibrated"
"""Our row."""

LATENT_FREE = tuple(label for label in RULES if "latent" not in label and label != "frozen signs")
"""Rows that keep no latent weight."""

GRIDS: dict[str, dict[str, tuple[float, ...]]] = {
    "BPTT, latent, SGD": {"latent_learning_rate": (1.0, 10.0, 100.0)},
    "BPTT, latent, SGD without momentum": {"latent_learning_rate": (10.0, 100.0, 1000.0)},
    "BPTT, latent, Adam": {"latent_learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    "BPTT, latent, Adam, read at an average": {"average": (0.9, 0.97, 0.99)},
    "OTTT, latent": {"latent_learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    "NDOT, latent": {"latent_learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    "SLTT, latent": {"latent_learning_rate": (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)},
    "SLTT, latent, read at an average": {"average": (0.95, 0.985, 0.995)},
    "Bop": {"b1": (0.99, 0.999), "threshold": (1e-6, 1e-5)},
    "BOAT": {"threshold": (0.5, 1.0, 1.5, 3.0)},
    "SGDAT": {"threshold": (1.0, 3.0, 10.0, 30.0)},
    "BOLD": {"threshold": (1.0, 3.0, 10.0, 30.0)},
    "T-BSO, first recipe": {"growth": (0.1, 0.5), "threshold": (0.1, 0.3)},
    "T-BSO, calibrated": {"growth": (0.25, 0.5, 1.0, 2.0)},
    "counter, 8 bits": {"rho": (1.0, 2.5, 5.0)},
    "counter, 6 bits": {"rho": (1.0, 2.5, 5.0)},
    "counter, 5 bits": {"rho": (1.0, 2.5, 5.0)},
    "counter, 4 bits": {"rho": (1.0, 2.5, 5.0)},
}
"""What is tuned, on validation data and with a separate seed. The paper's presets are not tuned."""

SETTINGS_OF = {
    "BPTT, latent, Adam, read at an average": "BPTT, latent, Adam",
    "SLTT, latent, read at an average": "SLTT, latent",
    "T-BSO, calibrated, deployed as trained": "T-BSO, calibrated",
    "T-BSO, calibrated, int8": "T-BSO, calibrated",
    "counter, 6 bits and a deployed one": "counter, 6 bits",
}
"""Rows that take over settings chosen for another row, in addition to those from their own grid."""

TUNED_ON = {
    "cifar10-small": "fashion-mnist",
    "cifar10-medium": "fashion-mnist",
    "speech-commands-mini": "spoken-digits",
}
"""Configs on which nothing is tuned, and the config whose chosen settings they take over."""

FEW = {
    "cifar10-small": (
        "BPTT, latent, Adam",
        "NDOT, latent",
        "SLTT, latent",
        "BOAT",
        "T-BSO, paper",
        "T-BSO, first recipe",
        "T-BSO, calibrated",
        "counter, 6 bits",
        "frozen signs",
    ),
    "cifar10-medium": ("BPTT, latent, Adam", "T-BSO, calibrated", "counter, 8 bits", "T-BSO, paper"),
    "speech-commands-mini": (
        "BPTT, latent, Adam",
        "BPTT, latent, Adam, read at an average",
        "SLTT, latent",
        "BOLD",
        "T-BSO, paper",
        "T-BSO, calibrated",
        "T-BSO, calibrated, deployed as trained",
        "counter, 8 bits",
        "counter, 6 bits",
        "frozen signs",
    ),
}
"""Configs on which only some rules are run, and their rows."""

SEEDS_OF = {"cifar10-medium": (0,), "speech-commands-mini": (0, 1, 2, 3, 4, 5)}
"""Configs with other seeds than SEEDS."""

LONG = {"fashion-mnist-binary": (10, 30)}
"""The epochs of longer runs, by config."""

LASTING = ("BPTT, latent, Adam", "SLTT, latent", "T-BSO, paper", "T-BSO, calibrated", "counter, 8 bits")
"""The rows of longer runs."""

WINDOWS = {"fashion-mnist-binary": (1, 3, 10), "fashion-mnist": (4, 12)}
"""The epochs at which the growth of the momentum's window is studied, by config."""

FAST = (
    "BPTT, latent, Adam",
    "BPTT, latent, Adam, read at an average",
    "SLTT, latent",
    "T-BSO, calibrated",
    "T-BSO, calibrated, deployed as trained",
    "counter, 6 bits and a deployed one",
)
"""The rows of the study of speed."""

SPEED_EVALUATIONS = {"digits": 2, "fashion-mnist-binary": 30, "spoken-digits": 3, "fashion-mnist": 6, "n-mnist": 1}
"""Evaluations per epoch in the study of speed: about one every 25 batches."""
