"""Checks settings from outside (plans, experiment files, indices) with pydantic and refuses them as ``OsasisError``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from nnunet_osasis.errors import OsasisError

T = TypeVar("T")

STRICT_KEYS = ConfigDict(extra="forbid")
"""Configuration of every dataclass that is read from outside: a misspelled key is an error."""


def validated(
    kind: type[T], values: object, *, what: str, remedy: str | None = None, context: Mapping[str, Any] | None = None
) -> T:
    """Make a pydantic dataclass of plain values, as JSON gives them.

    A field's ``description`` completes the sentence "KEY must be ..."; without it pydantic's own words are used. A
    validator may raise ``OsasisError``: its rule, value and remedy are kept.

    Args:
        kind: the dataclass, with the configuration ``STRICT_KEYS``.
        values: a mapping, or anything else, which is refused.
        what: names the source at the beginning of messages, such as ``"The experiment file"``.
        remedy: what to do about a wrong value.
        context: handed on to the validators, as ``info.context``.

    Raises:
        OsasisError: the key, the value, and what is allowed there.

    >>> from pydantic.dataclasses import dataclass
    >>> @dataclass(config=STRICT_KEYS)
    ... class Color:
    ...     red: int
    >>> validated(Color, {"red": 3}, what="The color")
    Color(red=3)
    """
    try:
        result: T = TypeAdapter(kind).validate_python(values, context=dict(context or {}))
        return result
    except ValidationError as error:
        raise as_osasis_error(error, kind, what=what, remedy=remedy) from error


def as_osasis_error(error: ValidationError, kind: Any, *, what: str, remedy: str | None = None) -> OsasisError:
    """The most specific of pydantic's complaints about a ``kind``, as one sentence."""
    detail = max(error.errors(include_url=False), key=lambda item: len(item["loc"]))
    raised = detail.get("ctx", {}).get("error")
    if isinstance(raised, OsasisError):
        return OsasisError(f"{what}: {raised.rule}", found=raised.found, remedy=raised.remedy or remedy)
    keys: list[str] = []
    model, field = kind, None
    for item in detail["loc"]:
        fields = _fields(model)
        if item in fields:
            field = fields[item]
            model = _dataclass_in(field.annotation)
        if item in fields or isinstance(item, int):  # other items name a branch of a union
            keys.append(str(item))
    name = ".".join(keys)
    if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        place = f"the keys of {name}" if name else "the keys"
        rule = f"{place} must be among {', '.join(_fields(model))}"
        return OsasisError(f"{what}: {rule}", found=repr(detail["loc"][-1]), remedy=remedy)
    if detail["type"] == "missing":
        return OsasisError(f"{what}: {name} must be given", found=f"no {name}", remedy=remedy)
    return OsasisError(f"{what}: {name or 'the value'} must be {_allowed(detail, field)}", found=shown(detail["input"]),
                       remedy=remedy)  # fmt: skip


def shown(value: object) -> str:
    """A value in at most about 200 characters; integers of thousands of digits cannot be printed at all."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a value of type {type(value).__name__}, too large to print"
    return text if len(text) <= 200 else f"{text[:200]}..."


def _allowed(detail: Any, field: Any) -> str:
    if detail["type"] in ("dataclass_type", "model_type", "dict_type"):
        return "an object"  # also where the description is that of the list that holds it
    if field is not None and field.description:
        return str(field.description)
    if detail["type"].startswith("bool_"):
        return "true or false"
    return str(detail["msg"]).removeprefix("Input should be ")


def _fields(model: Any) -> dict[Any, Any]:
    """Fields of a pydantic dataclass by the key they have in a file."""
    return {field.alias or name: field for name, field in getattr(model, "__pydantic_fields__", {}).items()}


def _dataclass_in(annotation: Any) -> Any:
    """The pydantic dataclass within an annotation such as ``tuple[Target, ...] | None``, if there is one."""
    if hasattr(annotation, "__pydantic_fields__"):
        return annotation
    return next((found for part in get_args(annotation) if (found := _dataclass_in(part)) is not None), None)
