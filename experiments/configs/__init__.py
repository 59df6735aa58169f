"""The configs, one file per result."""

import importlib
import pkgutil

from experiments.config import Config

CONFIGS: dict[str, tuple[str, Config]] = {}
"""Every config by its name on the command line, with a line of help: the first of its docstring."""

for _module in pkgutil.iter_modules(__path__):
    _config = importlib.import_module(f"{__name__}.{_module.name}")
    CONFIGS[_module.name.replace("_", "-")] = ((_config.__doc__ or "").partition("\n")[0], _config.CONFIG)
