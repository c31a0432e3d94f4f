"""``osasis-info``: what a stylizer is, or what is installed here."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from nnunet_osasis.runtime.command import command_parser, run_command
from nnunet_osasis.runtime.provenance import machine

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

EXAMPLES = """examples:
  osasis-info
  osasis-info stylizer                 what it is worth; with --json everything that is recorded
  osasis-info --audit site_a_as_b"""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-info", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("stylizer", nargs="?", help="a stylizer folder; its files are checked against their checksums")
    parser.add_argument(
        "--audit", metavar="DIR",
        help="summarise the structure gate's decisions in an output of osasis-stylize or a cache of stylized cases",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="everything that a stylizer's folder records, as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Print what a stylizer is worth; or its whole card, an audit's summary, or what is installed, as JSON."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.stylizer and args.audit:
        parser.error("give a stylizer or --audit, not both")
    facts: dict[str, Any]
    if args.audit:
        from nnunet_osasis.gate.audit import find_audit, read_audit, summarize

        facts = summarize(read_audit(find_audit(args.audit)))
    elif args.stylizer:
        from nnunet_osasis.maps.field_of_view import NO_FRAME
        from nnunet_osasis.runtime.records import as_json
        from nnunet_osasis.stylizer.one_pass import one_pass_facts
        from nnunet_osasis.stylizer.stylizer import OSASISStylizer

        stylizer = OSASISStylizer.from_pretrained(args.stylizer).load_networks()
        if not args.json:
            print(in_words(stylizer))
            return
        facts = {
            "fingerprint": stylizer.fingerprint,
            "channels": stylizer.in_channels,
            "size": stylizer.size,
            "config": as_json(stylizer.config),
            "card": stylizer.card,
            "findings": stylizer.findings,
            "frame": stylizer.frame.to_json() if stylizer.frame else NO_FRAME,
            "one_pass": one_pass_facts(stylizer.state),
            "gate": stylizer.gate.to_json() if stylizer.gate else "none: measured when needed",
        }
    else:
        facts = machine()
        facts["nnUNet_extTrainer"] = os.environ.get("nnUNet_extTrainer", "not set: nnU-Net will not find our trainers")
    print(json.dumps(facts, indent=2))


def in_words(stylizer: OSASISStylizer) -> str:
    """Return a few lines on what a stylizer is, and the paragraph on what it is worth."""
    from nnunet_osasis.stylizer.advice import advice
    from nnunet_osasis.stylizer.one_pass import one_pass_facts

    parts = [name for name in ("autoencoder", "decoder", "spn", "calibrator", "student") if name in stylizer.networks]
    one_pass = ", ".join(one_pass_facts(stylizer.state)["readouts"]) or "none"
    size = "any size" if stylizer.size is None else f"networks of {stylizer.size} px"
    return (
        f"Stylizer {stylizer.fingerprint[:16]}: {stylizer.in_channels} channel(s), {size} "
        f"({', '.join(parts) or 'maps alone'})\n"
        f"Default read-out: {stylizer.config.readout}. Read-outs in one pass: {one_pass}.\n"
        f"Its files are whole. Everything that is recorded: --json.\n\n{advice(stylizer.state)}"
    )


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
