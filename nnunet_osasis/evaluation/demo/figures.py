"""Which cases the report's pictures show, and the pictures themselves."""

from __future__ import annotations

from typing import Any

from nnunet_osasis.evaluation.demo.methods import NONE, OSASIS, methods
from nnunet_osasis.evaluation.demo.pictures import before_after, dice_chart, style_sheet
from nnunet_osasis.evaluation.demo.scoring import styled_pictures
from nnunet_osasis.evaluation.demo.settings import DemoSettings
from nnunet_osasis.evaluation.demo.workspace import Workspace
from nnunet_osasis.nnunet.raw_dataset import read_images, read_masks

SHOWN_STYLES = 4

QUANTILES = (0.25, 0.5, 0.75)


def draw_figures(results: dict[str, Any], settings: DemoSettings, workspace: Workspace) -> dict[str, bytes]:
    """Write ``before_after.png``, ``dice.png`` and ``styles.png`` into the output folder; their bytes by name."""
    root = workspace.root
    rows, columns = _comparison(results, settings, workspace)
    labels = {method.key: method.label for method in methods(own_images=False)}
    labels["truth"] = "true second-scanner\nimages (upper bound)"
    paths = [
        before_after(rows, columns, root / "before_after.png"),
        dice_chart(results["summary"], labels, root / "dice.png"),
        style_sheet(_styles(labels, settings, workspace), root / "styles.png"),
    ]
    return {path.name: path.read_bytes() for path in paths}


def typical_cases(cases: list[dict[str, Any]]) -> list[str]:
    """Target cases at the quartiles of Dice without style transfer: chosen by rule, not by eye."""
    ranked = sorted(
        (row["dice"], row["case"]) for row in cases if row["method"] == "none" and row["domain"] == "target"
    )
    return list(dict.fromkeys(ranked[round(q * (len(ranked) - 1))][1] for q in QUANTILES))


def _styles(labels: dict[str, str], settings: DemoSettings, workspace: Workspace) -> dict[str, list]:
    styled = styled_pictures(settings, workspace)
    cases = list(styled["none"])[:SHOWN_STYLES]
    columns = {
        ("source" if name == "none" else labels[name]): [p[case] for case in cases] for name, p in styled.items()
    }
    if not settings.own_images:
        truths = read_images(workspace.truth)
        columns["true second scanner"] = [truths[case] for case in cases]
    return columns


def _comparison(
    results: dict[str, Any], settings: DemoSettings, workspace: Workspace
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows and column titles of the before-and-after picture."""
    targets, masks = read_images(workspace.test_images), read_masks(workspace.test_masks)
    stylized = read_images(workspace.stylized)
    outlines = {method.key: read_masks(workspace.predictions(method.key, 0)) for method in (NONE, OSASIS)}
    first = [row for row in results["cases"] if row["training"] == 0]
    dice = {(row["method"], row["case"]): row["dice"] for row in first}
    if settings.own_images:
        # No scene was photographed by both scanners: what stands beside a target image is another patient's.
        originals = read_images(workspace.training_images)
        columns = ["source image", "stylized", "target image (another case)"]
    else:
        originals = read_images(workspace.source_views)
        columns = ["first scanner", "stylized", "second scanner (truth)"]
    rows = []
    for position, case in enumerate(typical_cases(first)):
        shown = sorted(stylized)[position] if settings.own_images else case
        rows.append(
            {
                "pictures": [originals[shown], stylized[shown], targets[case]],
                "target": targets[case],
                "mask": masks[case],
                "before": outlines["none"][case],
                "after": outlines["osasis"][case],
                "caption": f"Dice {dice['none', case]:.2f} without, {dice['osasis', case]:.2f} with OSASIS",
            }
        )
    return rows, [*columns, "masks on second scanner"]
