"""The table of docs/reliability.md from the raw results: python benchmarks/gate/table.py"""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
WORLDS = (
    ("clinicdb", "stylized", "ClinicDB 409-612, stylized"),
    ("bowel", "true_second_scanner", "bowel phantom, the true second camera"),
    ("mr", "stylized", "MR-like phantom, stylized"),
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
    print("\ntrue pictures of the second MR-like scanner:", cell("mr", "true_second_scanner, undamaged"))


if __name__ == "__main__":
    main()
