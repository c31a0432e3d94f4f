"""The one exception a user is meant to read."""

from __future__ import annotations

from functools import partial


class OsasisError(ValueError):
    """A rule the input broke: what the rule is, what was found, and what to do about it.

    Commands print its text and exit with status 1; library callers catch it as a ``ValueError``.
    """

    def __init__(self, rule: str, *, found: object = None, remedy: str | None = None) -> None:
        self.rule, self.found, self.remedy = rule, found, remedy
        parts = [rule.rstrip(".")]
        if found is not None:
            parts.append(f"got {found}")
        message = "; ".join(parts) + "."
        super().__init__(message if remedy is None else f"{message} {remedy}")

    def __reduce__(self) -> tuple:  # worker processes send it; an exception's own pickle keeps the message alone
        found = None if self.found is None else str(self.found)
        return partial(OsasisError, self.rule, found=found, remedy=self.remedy), ()
