"""``osasis-info``: what a stylizer is, or what is installed here."""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from nnunet_osasis.runtime.command import command_parser, run_command
from nnunet_osasis.runtime.provenance import machine

EXAMPLES = "examples:\n  osasis-info\n  osasis-info stylizer\n  osasis-info --audit site_a_as_b"


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-info", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("stylizer", nargs="?", help="a stylizer folder; its files are checked against their checksums")
    parser.add_argument(
        "--audit", metavar="DIR",
        help="summarise the structure gate's decisions in an output of osasis-stylize or a cache of stylized cases",
    )  # fmt: skip
    return parser


def main(argv: list[str] | None = None) -> None:
    """Print a stylizer's card, an audit's summary, or versions and the trainer folder, as JSON."""
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


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
