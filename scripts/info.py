"""``osasis-info``: what a stylizer is, or what is installed here."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.command import command_parser, run_command
from nnunet_osasis.runtime.provenance import machine

if TYPE_CHECKING:
    from nnunet_osasis.stylizer.stylizer import OSASISStylizer

EXAMPLES = """examples:
  osasis-info
  osasis-info stylizer                 what it is worth; with --json everything that is recorded
  osasis-info --audit site_a_as_b
  osasis-info --caches                 nnU-Net's caches of stylized cases; with --prune they can be deleted"""


def make_parser() -> argparse.ArgumentParser:
    """All options of the command."""
    parser = command_parser("osasis-info", __doc__.split(": ", 1)[1], EXAMPLES)
    parser.add_argument("stylizer", nargs="?", help="a stylizer folder; its files are checked against their checksums")
    parser.add_argument(
        "--audit", metavar="DIR",
        help="summarise the structure gate's decisions in an output of osasis-stylize or a cache of stylized cases",
    )  # fmt: skip
    parser.add_argument(
        "--caches", action="store_true",
        help="list the caches of stylized cases in nnUNet_preprocessed: size, last use, and whether the stylizer (or "
        "those that lie with the datasets) can use them",
    )  # fmt: skip
    parser.add_argument(
        "--prune", action="store_true",
        help="with --caches: ask for each cache that is not in use whether to delete it; cases are made again",
    )  # fmt: skip
    parser.add_argument("--yes", action="store_true", help="with --prune: delete all of them without asking")
    parser.add_argument("--json", action="store_true", help="everything that a stylizer's folder records, as JSON")
    return parser


def main(argv: list[str] | None = None) -> None:
    """Print what a stylizer is worth; or its whole card, an audit's summary, or what is installed, as JSON."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.stylizer and args.audit:
        parser.error("give a stylizer or --audit, not both")
    if args.caches + bool(args.audit) > 1 or args.prune > args.caches or args.yes > args.prune:
        parser.error("--prune needs --caches, --yes needs --prune, and --audit is another question")
    facts: Any
    if args.caches:
        facts = list_caches(args.stylizer, prune=args.prune, ask=not args.yes)
    elif args.audit:
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


def list_caches(stylizer: str | None, *, prune: bool, ask: bool) -> list[dict[str, Any]]:
    """Return facts on every cache; with ``prune`` delete those that are not in use, each if the user says so."""
    from nnunet_osasis.nnunet.caches import delete_cache, find_caches, preprocessed_root
    from nnunet_osasis.stylizer.serialization import StylizerState, is_stylizer_folder

    root = preprocessed_root()
    folders = [Path(stylizer)] if stylizer else [path for path in root.glob("Dataset*/osasis/*") if path.is_dir()]
    known: dict[str, list[Path]] = {}
    for folder in folders:
        if stylizer or is_stylizer_folder(folder):
            try:
                known.setdefault(StylizerState.read(folder).fingerprint(), []).append(folder)
            except OsasisError as error:
                if stylizer:
                    raise
                print(f"{folder} is left out: {error}", file=sys.stderr)
    rows = []
    for cache in find_caches(root, known):
        row = cache.to_json()
        if prune and not cache.in_use:
            text = f"Delete {cache.folder} ({cache.megabytes:.1f} MB, last used {cache.last_used})? [y/N] "
            if not ask or _says_yes(text):
                delete_cache(Path(cache.folder))
                row["deleted"] = True
        rows.append(row)
    return rows


def _says_yes(question: str) -> bool:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def in_words(stylizer: OSASISStylizer) -> str:
    """Return a few lines on what a stylizer is, and the paragraph on what it is worth."""
    from nnunet_osasis.maps.field_of_view import NO_FRAME
    from nnunet_osasis.stylizer.advice import advice
    from nnunet_osasis.stylizer.one_pass import one_pass_facts

    parts = [name for name in ("autoencoder", "decoder", "spn", "calibrator", "student") if name in stylizer.networks]
    one_pass = ", ".join(one_pass_facts(stylizer.state)["readouts"]) or "none"
    size = "any size" if stylizer.size is None else f"networks of {stylizer.size} px"
    return (
        f"Stylizer {stylizer.fingerprint[:16]}: {stylizer.in_channels} channel(s), {size} "
        f"({', '.join(parts) or 'maps alone'})\n"
        f"Default read-out: {stylizer.config.readout}. Read-outs in one pass: {one_pass}.\n"
        f"Frame: {stylizer.frame or NO_FRAME}.\n"
        f"Its files are whole. Everything that is recorded: --json.\n\n{advice(stylizer.state)}"
    )


def entry() -> None:
    """Console entry point."""
    run_command(main)


if __name__ == "__main__":
    entry()
