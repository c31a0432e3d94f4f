"""The README.md of a stylizer folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nnunet_osasis.readout_names import DECODED

if TYPE_CHECKING:
    from nnunet_osasis.stylizer import OSASISStylizer


def model_card(stylizer: OSASISStylizer) -> str:
    """Markdown with the front matter that model hubs read."""
    lines = [
        "---",
        "library_name: nnunet-osasis",
        "tags: [medical-imaging, style-transfer, domain-shift]",
        "---",
        "# OSASIS stylizer",
        "",
        "Restyles source-domain images to look like one reference image. For research; not a medical device.",
        "It holds a model of its training images and the reference itself: share it only as their terms allow.",
        "",
        f"- channels {stylizer.in_channels}, networks work at {stylizer.size} px, read-out `{stylizer.config.readout}`",
        f"- intensities: {stylizer.config.intensity}",
    ]
    if stylizer.student is not None:
        found = stylizer.findings.get("student", {})
        lines.append(
            f"- one-pass student of `{stylizer.student.config.teacher}`, "
            f"{sum(p.numel() for p in stylizer.student.parameters())} weights; on source images it was not trained on, "
            f"beside its teacher: {found.get('source_to_target', 'not measured')}"
        )
    elif stylizer.config.readout not in DECODED:
        lines.append(f"- one pass: `{stylizer.config.readout}` is a map and needs no student; ONNX with osasis-export")
    if stylizer.gate is not None:
        lines.append(
            f"- structure gate: least scores {stylizer.gate.scores}, measured on {stylizer.gate.views} views of source "
            f"images; {100 * stylizer.gate.false_alarms:.1f} % of them fail; damage found: {stylizer.gate.detection}"
        )
    lines += [f"- {key.replace('_', ' ')}: {value}" for key, value in sorted(stylizer.card.items())]
    return "\n".join(lines) + "\n"
