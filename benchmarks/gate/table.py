"""The table of docs/reliability.md from the raw results: python benchmarks/gate/table.py"""

from __future__ import annotations

import json
from pathlib import Path

from damage import share_of_lesions

RESULTS = Path(__file__).parent / "results"
WORLDS = (
    ("clinicdb", "stylized", "ClinicDB 409-612, stylized"),
    ("bowel", "true_second_scanner", "bowel phantom, the true second camera"),
)
KINDS = {
    "undamaged": "**undamaged** (false alarms)",
    "erased": "lesion erased",
    "erased_textured": "lesion erased, place as noisy as its surroundings",
    "moved_3px": "lesion moved by 3 px",
    "moved_5px": "lesion moved by 5 px",
    "shrunk": "lesion shrunk to 80 %",
    "inverted": "contrast of the lesion turned over",
    "painted": "faint texture painted in",
    "shifted": "whole picture shifted by 2 px",
    "blurred": "whole picture blurred by 2 px",
    "negative": "whole picture turned over, dark for bright",
    "checkerboard": "checkerboard of 1 px, 8 levels",
    "striped": "stripes of 1 px, 8 levels",
    "grid": "faint grid: lines of 1 px every 16 px, 6 levels",
    "rim": "rim of 2 px around lesions, 24 levels",
    "contour": "jagged step through dark tissue, 10 levels",
}


def main() -> None:
    """Print Markdown."""
    shares = {name: json.loads((RESULTS / f"{name}.json").read_text())["shares"] for name, _, _ in WORLDS}

    def cell(name: str, key: str) -> str:
        row = shares[name][key]
        return f"{100 * row['fail_without_mask']:.1f} / {100 * row['fail_with_mask']:.1f} %"

    titles = [f"{title} ({shares[name][f'{version}, undamaged']['images']})" for name, version, title in WORLDS]
    print("| share that fails, without / with the mask | " + " | ".join(titles) + " |\n|---|---|---|---|")
    for kind, label in KINDS.items():
        print(f"| {label} | " + " | ".join(cell(name, f"{version}, {kind}") for name, version, _ in WORLDS) + " |")
    harsh = [cell(name, "random_camera, undamaged") for name, _, _ in WORLDS]
    print("| source through a harsh random camera, nothing else | " + " | ".join(harsh) + " |")
    known = cell("clinicdb", "known_camera, undamaged")
    print(f"| source through a camera model with noise, sharpening and JPEG | {known} | |")
    small_lesions()


def small_lesions() -> None:
    """Print Markdown for the lesions drawn into both sets."""
    sets = {name: json.loads((RESULTS / f"small_lesions{name}.json").read_text()) for name in ("", "_colondb")}
    groups = share_of_lesions([row for found in sets.values() for row in found["rows"]])
    groups |= {
        f"all, {title}": sets[name]["shares"]["all"] for name, title in (("", "ClinicDB"), ("_colondb", "ColonDB"))
    }
    print("\n| lesions | shown by the source | found with the mask | without | false alarms with / without |")
    print("|---|---|---|---|---|")
    for title, row in groups.items():
        found, alone, alarms, quiet = (
            f"{100 * row[name]:.1f} %"
            for name in ("found", "found_without_mask", "false_alarms", "false_alarms_without_mask")
        )
        print(f"| {title} | {row['shown']} of {row['lesions']} | {found} | {alone} | {alarms} / {quiet} |")


if __name__ == "__main__":
    main()
