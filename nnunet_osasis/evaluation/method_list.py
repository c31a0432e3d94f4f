"""The methods an experiment may compare: their names, kinds and parameters, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from nnunet_osasis.errors import OsasisError


@dataclass(frozen=True)
class Kind:
    """What a kind of method is.

    Attributes:
        label: for people.
        role: ``baseline``, ``check`` (its answer is known beforehand), ``control`` (free) or ``stylizer``.
        reference: whether it sees the target's one reference image, and so exists once per target.
        parameters: names it takes besides its name.
    """

    label: str
    role: str
    reference: bool
    parameters: tuple[str, ...] = ()


LOSSES = ("osasis", "paper")

KINDS: dict[str, Kind] = {
    "none": Kind("no style transfer", "baseline", False),
    "identity": Kind("identity (must change nothing)", "check", False),
    "truth": Kind("true target rendering (upper bound)", "check", True),
    "histogram_matching": Kind("histogram matching", "control", True, ("strength",)),
    "reinhard": Kind("Reinhard per image", "control", True, ("strength",)),
    "pooled_reinhard": Kind("pooled Reinhard", "control", True, ("strength",)),
    "fda": Kind("FDA", "control", True, ("beta", "strength")),
    "gin": Kind("GIN", "control", False),
    "colour_jitter": Kind("colour jitter", "control", False),
    "histogram_shift": Kind("random histogram shift", "control", False),
    "da5": Kind("nnU-Net's DA5", "control", False),
    "osasis": Kind("OSASIS", "stylizer", True, ("losses", "readout", "strength")),
}


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """One method of an experiment: a unique ``name``, its ``kind``, and parameters such as ``strength``."""

    name: str
    kind: str
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def role(self) -> str:
        """``baseline``, ``check``, ``control`` or ``stylizer``."""
        return KINDS[self.kind].role

    @property
    def needs_reference(self) -> bool:
        """Whether it is made anew for every target."""
        return KINDS[self.kind].reference

    @property
    def label(self) -> str:
        """For people: the kind's label, with the parameters where there are any."""
        shown = ", ".join(f"{key} {value}" for key, value in self.parameters.items())
        return f"{KINDS[self.kind].label} ({shown})" if shown else KINDS[self.kind].label

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> MethodSpec:
        """From ``{"name": ..., "kind": ..., parameters...}``; without ``kind`` the name is the kind.

        Raises ``OsasisError`` for an unknown kind or parameter.
        """
        if not isinstance(values, Mapping) or not isinstance(values.get("name"), str):
            raise OsasisError("A method needs a name", found=repr(values)[:80])
        given = dict(values)
        name = given.pop("name")
        kind = given.pop("kind", name)
        if not isinstance(kind, str) or kind not in KINDS:
            raise OsasisError("The kind of a method must be known", found=kind, remedy=f"Known: {', '.join(KINDS)}.")
        named = given.pop("parameters", {})
        if not isinstance(named, Mapping):
            raise OsasisError(f"The parameters of the method {name} must be a JSON object", found=repr(named)[:80])
        given = {**named, **given}
        if unknown := sorted(set(given) - set(KINDS[kind].parameters)):
            raise OsasisError(
                f"The method {name} has unknown parameters",
                found=", ".join(unknown),
                remedy=f"Known for {kind}: {', '.join(KINDS[kind].parameters) or 'none'}.",
            )
        for key, value in given.items():
            _check_parameter(name, key, value)
        return cls(name=name, kind=kind, parameters=given)


def _check_parameter(method: str, key: str, value: Any) -> None:
    if key in ("strength", "beta"):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not 0 <= value <= (1 if key == "strength" else 0.5):
            raise OsasisError(f"{key} of the method {method} must be a number in its range", found=repr(value))
        return
    from nnunet_osasis.stylizer.readouts import READOUTS

    known = READOUTS if key == "readout" else LOSSES
    if value not in known:
        raise OsasisError(f"{key} of the method {method} must be one of {', '.join(known)}", found=repr(value))
