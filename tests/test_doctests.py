"""The examples in public docstrings run and give what they say."""

import doctest
import importlib
import inspect
import pkgutil

import jax
import pytest

import bsojax

ROOMS = [
    importlib.import_module(f"bsojax.{room.name}")
    for room in pkgutil.iter_modules(bsojax.__path__)
    if not room.name.startswith("_")
]
MAIN = """
BatchNorm BinaryConv BinaryDense LIF bso calibrated counter freeze init load_model make_eval_step make_train_step
memory_report noise_threshold pack_signs predict record save_model split_optimizer summarize t_bso value_and_grad
"""


def examples():
    """Each public docstring with an example, once, by one of its names."""
    found = {}
    for module in (bsojax, *ROOMS):
        for name, value in vars(module).items():
            text = inspect.getdoc(value) if callable(value) and not name.startswith("_") else None
            if text and ">>>" in text and value.__module__.startswith("bsojax"):
                found.setdefault(id(value), (f"{module.__name__}.{name}", text))
    return dict(sorted(found.values()))


@pytest.mark.parametrize("name", examples())
def test_an_example_gives_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    test = doctest.DocTestParser().get_doctest(examples()[name], {}, name, None, None)
    told = []
    # Examples are written as users write: with jax's default of promoting ranks.
    with jax.numpy_rank_promotion("allow"):
        doctest.DocTestRunner().run(test, out=told.append)
    assert not told, "".join(told)
    assert test.examples


@pytest.mark.parametrize("name", MAIN.split())
def test_the_main_names_have_an_example(name):
    assert ">>>" in getattr(bsojax, name).__doc__
