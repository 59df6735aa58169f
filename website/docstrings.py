"""What the reference cannot read by itself: signatures of classes made of fields, and our way to write docstrings."""

import re
from collections.abc import Iterator
from typing import Any

import griffe

ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(?P<code>`+[^`]+`+)")
SHARED = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*(?:\n(?P=indent) +.*)*)", re.MULTILINE)


class Docstrings(griffe.Extension):
    """Makes docstrings readable, and gives classes the ``__init__`` that their fields make."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        for owner in within(pkg):
            if owner.docstring:
                owner.docstring.value = readable(owner.docstring.value)
            if isinstance(owner, griffe.Class) and "__init__" not in owner.members:
                parameters = griffe.Parameters(griffe.Parameter("self", kind=griffe.ParameterKind.positional_only))
                for field in fields(owner).values():
                    kind = griffe.ParameterKind.positional_or_keyword
                    parameters.add(
                        griffe.Parameter(field.name, annotation=field.annotation, kind=kind, default=field.value)
                    )
                if len(parameters) > 1:
                    owner.set_member("__init__", griffe.Function("__init__", parameters=parameters, parent=owner))


def readable(text: str) -> str:
    """A docstring as the reference reads it: roles as code, a line for each name that shares one, and plain heads."""
    text = ROLE.sub(lambda role: role["code"], text)
    text = SHARED.sub(
        lambda line: "\n".join(f"{line['indent']}{name}: {line['text']}" for name in line["names"].split(", ")), text
    )
    return re.sub(r"^Example:$", "Examples:", text, flags=re.MULTILINE)


def within(owner: griffe.Object) -> Iterator[griffe.Object]:
    """An object and everything in it."""
    yield owner
    for member in list(owner.members.values()):
        if not member.is_alias:
            yield from within(member)


def fields(owner: griffe.Class) -> dict[str, griffe.Attribute]:
    """The public fields of a class and of those of this library that it is derived from."""
    found: dict[str, griffe.Attribute] = {}
    for base in owner.resolved_bases:
        if isinstance(base := base.final_target if base.is_alias else base, griffe.Class):
            found |= fields(base)
    for name, member in owner.members.items():
        is_field = member.is_attribute and member.annotation and "property" not in member.labels
        if is_field and not name.startswith("_") and "ClassVar" not in str(member.annotation):
            found[name] = member
    return found
