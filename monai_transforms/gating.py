"""The structure gate inside a transform: decisions per sample, written down on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import write_audit
from nnunet_osasis.runtime.storage import sha256_of_array
from nnunet_osasis.stylizer.gating import own_gate
from nnunet_osasis.stylizer.stylizer import OSASISStylizer

Stylize = Callable[[Sequence[np.ndarray], Sequence[float]], list[np.ndarray]]


class Gating:
    """Stylizes samples and hands out what passes the stylizer's gate.

    Args:
        wanted: None gates where the stylizer has thresholds for its read-out; True refuses a stylizer without.
        audit: JSONL file of decisions. Workers may share it: every line is one write.

    Raises ``OsasisError`` for an audit without a gate.
    """

    def __init__(self, wanted: bool | None, audit: str | Path | None) -> None:
        if wanted is False and audit is not None:
            raise OsasisError(
                "audit= records the gate's decisions", found="gate=False", remedy="Leave one of them out."
            )
        self.wanted, self.audit = wanted, None if audit is None else str(audit)

    def gate(self, stylizer: OSASISStylizer, readout: str | None) -> StructureGate | None:
        """The stylizer's own gate, or None. Raises ``OsasisError`` when it is wanted and the stylizer has none."""
        own = own_gate(stylizer, readout=readout)
        if self.wanted is False or (own is None and self.wanted is None and self.audit is None):
            return None
        if own is None:
            raise OsasisError(
                "A gated transform needs a stylizer with thresholds for its read-out",
                found=f"none for {readout or stylizer.config.readout}",
                remedy="Make the stylizer anew (with that --readout), or say gate=False.",
            )
        return own

    def __call__(
        self,
        stylizer: OSASISStylizer,
        readout: str | None,
        stylize: Stylize,
        arrays: Sequence[np.ndarray],
        strengths: Sequence[float],
        names: Sequence[str],
    ) -> list[np.ndarray]:
        """Samples in native units, float32; what fails is tried weaker, then left as it is."""
        full = stylize(arrays, strengths)
        gate = self.gate(stylizer, readout)
        if gate is None:
            return full
        results = []
        for array, image, strength, name in zip(arrays, full, strengths, names, strict=True):

            def restyled(
                amount: float, array: np.ndarray = array, image: np.ndarray = image, wanted: float = strength
            ) -> np.ndarray:
                return image if amount == wanted else stylize([array], [amount])[0]

            found = gate(array, restyled, strength)
            if self.audit is not None and strength > 0:
                digest = sha256_of_array(array)
                write_audit(
                    self.audit, name or digest[:16], found.decision, source_sha256=digest,
                    result_sha256=sha256_of_array(found.image), stylizer=stylizer.fingerprint,
                )  # fmt: skip
            results.append(array if found.decision.strength == 0 else found.image)  # as it was, not even rounded
        return results
