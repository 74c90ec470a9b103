"""Training methods: what a method adds to the loop, one small module each.

A module of this package that defines a `Method` with a name is found by itself: adding a method touches one file.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from functools import cache
from typing import Any

from robustdistill.errors import InputError, unknown
from robustdistill.methods.base import Card, Context, Method

__all__ = ["Card", "Context", "Method", "get", "known", "text_of"]


@cache
def known() -> dict[str, type[Method]]:
    """Every method by its name."""
    found: dict[str, type[Method]] = {}
    for module in pkgutil.iter_modules(__path__):
        members = vars(importlib.import_module(f"{__name__}.{module.name}")).values()
        found |= {
            member.name: member
            for member in members
            if isinstance(member, type) and issubclass(member, Method) and vars(member).get("name")
        }
    return dict(sorted(found.items()))


def get(text: str) -> Method:
    """The method that "name" or "name:setting=value,setting=value" means, with its state at the start.

    Raises:
        InputError: the method or a setting is unknown (the nearest is suggested), or a value is of the wrong kind.
    """
    name, _, settings = text.partition(":")
    if name not in known():
        raise unknown("method", name, known())
    method = known()[name]
    fields = {field.name: field for field in dataclasses.fields(method) if field.init}
    values: dict[str, Any] = {}
    for part in settings.split(",") if settings else []:
        key, equals, value = part.partition("=")
        if key not in fields or not equals:
            raise unknown(f"setting of method {name}", part, [f"{field}=..." for field in fields] or ["none"])
        if key in values:
            raise InputError(f"method {name}: setting {key} is given twice")
        values[key] = _read(fields[key], value, name)
    return method(**values)


def text_of(method: Method) -> str:
    """The shortest string that `get` reads back: settings that have their default are left out."""
    settings = []
    for field in dataclasses.fields(method):
        value = getattr(method, field.name) if field.init else None
        if field.init and value != field.default:
            # In the default's kind, so that 1 and 1.0 are one run.
            kind: Any = type(field.default)
            settings.append(f"{field.name}={kind(value)}")
    return method.name + (":" + ",".join(settings) if settings else "")


def _read(field: dataclasses.Field[Any], value: str, method: str) -> Any:
    """A setting's value, of the kind of its default."""
    kind: Any = type(field.default)
    try:
        return {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
    except (KeyError, ValueError):
        raise InputError(f"method {method}: {field.name} must be of kind {kind.__name__}, got {value!r}") from None
