"""The house: rooms build on those below them alone, what users need has public names, and no room grows too large."""

import ast
import inspect
import pathlib
import typing

import pytest

import bsojax
import bsojax.nnx
import bsojax.plots

ROOT = pathlib.Path(bsojax.__file__).parent
LAYERS = (
    "_jax",
    "_validate",
    "xla_cpu",
    "signs",
    "nn",
    "optim",
    "losses",
    "encoders",
    "online",
    "inspect",
    "models",
    "deploy",
    "nnx",
    "plots",
)
"""The rooms of the library; each may import from those before it."""

SUBPACKAGES = (
    bsojax.signs,
    bsojax.nn,
    bsojax.optim,
    bsojax.losses,
    bsojax.encoders,
    bsojax.online,
    bsojax.inspect,
    bsojax.models,
    bsojax.deploy,
    bsojax.plots,
    bsojax.xla_cpu,
)
files = sorted(ROOT.rglob("*.py"))
each_file = pytest.mark.parametrize("path", files, ids=lambda path: str(path.relative_to(ROOT)))


def room_of(module):
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else None


def imported(path):
    """The modules of the library that a file imports, by full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("bsojax"))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bsojax"):
            assert node.level == 0
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if room_of(inner) and not room_of(node.module) else node.module


@each_file
def test_a_room_imports_from_rooms_below_it_alone_and_not_their_files(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    if parts == ("__init__",):
        return
    own = parts[0]
    assert own in LAYERS, f"{own} has no place among the layers"
    for module in imported(path):
        room = room_of(module)
        assert room is not None, f"{path.name} imports {module}: import from the room, not from the root"
        if room == own:
            continue
        assert LAYERS.index(room) < LAYERS.index(own), f"{own} imports {module}, which is above it"
        assert len(module.split(".")) == 2, f"{path.name} imports {module}: the files of other rooms are private"


@each_file
def test_files_and_functions_have_a_size_that_can_be_read(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno < 80, f"{path.name}: {node.name}"


@pytest.mark.parametrize("folder", ["experiments", "benchmarks"])
def test_what_stands_on_the_library_uses_its_public_names(folder):
    # They measure a room's own constants.
    allowed = {"benchmarks/speed.py": "bsojax.xla_cpu._rows", "benchmarks/popcount.py": "bsojax.xla_cpu._popcount"}
    for path in sorted((ROOT.parent / folder).rglob("*.py")):
        name = str(path.relative_to(ROOT.parent))
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("bsojax"):
                for alias in node.names:
                    full = f"{node.module}.{alias.name}"
                    assert "._" not in full or allowed.get(name) == full, f"{name} imports {full}"


def public_callables():
    for module in (bsojax, *SUBPACKAGES):
        for name, value in sorted(vars(module).items()):
            if not name.startswith("_") and callable(value) and getattr(value, "__module__", "").startswith("bsojax"):
                yield pytest.param(value, id=f"{module.__name__}.{name}")


def classes_in(hint):
    """The classes that an annotation names, however deep."""
    if inspect.isclass(hint) and not typing.get_args(hint):
        yield hint
    for part in typing.get_args(hint):
        yield from classes_in(part) if not isinstance(part, list) else [c for p in part for c in classes_in(p)]


@pytest.mark.parametrize("public", [*public_callables()])
def test_whatever_a_public_name_takes_or_returns_can_be_had_by_a_public_name(public):
    hints = typing.get_type_hints(public, localns={"ArrayTree": typing.Any})  # chex's is a name for itself
    known = {id(value) for module in (bsojax, *SUBPACKAGES) for value in vars(module).values()}
    for name, hint in hints.items():
        for kind in classes_in(hint):
            assert not kind.__module__.startswith("bsojax") or id(kind) in known, f"{name}: {kind} has no public name"


@pytest.mark.parametrize("public", [*public_callables()])
def test_public_names_are_documented(public):
    assert public.__doc__
    assert public.__doc__.strip().splitlines()[0].endswith((".", ":")), public.__doc__.splitlines()[0]
