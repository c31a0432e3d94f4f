"""The structure gate inside a transform: decisions per sample, written down on request."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import StructureGate
from nnunet_osasis.gate.audit import write_audit
from nnunet_osasis.runtime.storage import sha256_of_array
from nnunet_osasis.stylizer.gating import floor_gate, own_gate
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


class Gating:
    """Compares restyled samples with their sources by the stylizer's gate.

    Args:
        required: None gates in any case, by the package's floors if the stylizer has no thresholds for its read-out;
            True refuses such a stylizer; False leaves the gate out.
        audit: JSONL file of decisions. Workers may share it: every line is one write.

    Raises:
        OsasisError: an audit without a gate.
    """

    def __init__(self, required: bool | None, audit: str | Path | None) -> None:
        if required is False and audit is not None:
            raise OsasisError(
                "audit= records the gate's decisions", found="gate=False", remedy="Leave one of them out."
            )
        self.required, self.audit = required, None if audit is None else str(audit)

    def gate(self, stylizer: OSASISStylizer) -> StructureGate | None:
        """The stylizer's own gate, or that of the floors; None if it is left out.

        Raises ``OsasisError`` when the stylizer's own is required and it has none.
        """
        if self.required is False:
            return None
        own = own_gate(stylizer)
        if own is None and (self.required or self.audit is not None):
            raise OsasisError(
                "A gated transform needs a stylizer with thresholds for its read-out",
                found=f"none for {stylizer.config.readout}",
                remedy="Make the stylizer anew (with that --readout), or say gate=False.",
            )
        return own or floor_gate(stylizer)

    def __call__(
        self,
        stylizer: OSASISStylizer,
        arrays: Sequence[np.ndarray],
        changed: Sequence[np.ndarray],
        strengths: Sequence[float],
        names: Sequence[str],
        stored: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Hand out what passes; what fails is weakened, then left as it is.

        Args:
            stylizer: the stylizer, configured with the transform's read-out.
            arrays: samples in native units.
            changed: the same samples restyled.
            strengths: the strength of each.
            names: the name of each for the audit; empty takes the start of its digest.
            stored: turns a restyled sample into what is handed out: the gate judges that.
        """
        gate = self.gate(stylizer)
        if gate is None:
            return list(changed)
        results = []
        for array, image, strength, name in zip(arrays, changed, strengths, names, strict=True):
            result = gate(array, image, strength, stored=stored)
            if self.audit is not None and strength > 0:
                digest = sha256_of_array(array)
                write_audit(
                    self.audit, name or digest[:16], result.decision, source_sha256=digest,
                    result_sha256=sha256_of_array(result.image), stylizer=stylizer.fingerprint,
                )  # fmt: skip
            results.append(array if result.decision.strength == 0 else result.image)  # as it was, not even rounded
        return results
