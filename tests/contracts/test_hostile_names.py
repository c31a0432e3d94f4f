"""Names never become code: whatever files, methods, classes and cards are called, each output shows it as text."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.evaluation.metrics.charts import GridRow, forest_plot, qualitative_grid, radar_chart
from nnunet_osasis.evaluation.report.document import Code, Heading, Picture, Table, Text, to_html, to_markdown
from nnunet_osasis.evaluation.report.report import rows_csv
from nnunet_osasis.images.grids import save_grid
from nnunet_osasis.runtime.escaping import csv_text, html_text, label_text, latex_text, markdown_text
from nnunet_osasis.scripts import evaluate, info
from nnunet_osasis.stylizer.serialization import model_card

NOT_TEXT = os.fsdecode(b"a\xff")  # a file name need not be text
NAMES = [
    '=HYPERLINK("x","y")', "+1", "-2+3", "@SUM(A1)", "\t=1", "\r=1", "＝1", " =1", "<script>alert(1)</script>",
    "![b](http:c)", "[x](javascript:1)", "a|b", "`x`", "```", "$_{x$", "\\input{x}", "# head", "1. one", "- item",
    "~~gone~~", "*em* _em_", "https://evil.example", "www.evil.example", "a\x1b[31mb", "a\nb", NOT_TEXT, "&amp;",
    "é" * 99,
]  # fmt: skip
FORMULAS = ("=", "+", "-", "@", "\t", "\r", "＝")
MARKUP = ("<script", "![b](", "[x](", "https://", " www.", "\x1b")


def is_plain_markdown(text: str) -> bool:
    return not any(part in text for part in MARKUP)


@pytest.mark.parametrize("name", NAMES)
def test_every_medium_shows_a_name_as_text_that_can_be_written(name: str) -> None:
    for escape in (csv_text, html_text, label_text, latex_text, markdown_text):
        escape(name).encode()  # surrogates and control characters are made visible
        assert "\x1b" not in escape(name)
    assert not csv_text(name).lstrip(" ").startswith(FORMULAS)
    assert is_plain_markdown(f" {markdown_text(name)}") and "\n" not in markdown_text(name)
    assert not markdown_text(name).startswith(("#", "- ", "1. ", "=", "+", "```"))
    assert "<" not in html_text(name) and "<" not in markdown_text(name)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``osasis-evaluate`` writes for two methods and cases with such names, as far as a file can have them."""
    root = tmp_path_factory.mktemp("hostile")
    files = [name for name in NAMES if "/" not in name and name != NOT_TEXT]  # those are refused when they are read
    for folder, shift in (("r", 0), ("p", 1), ("q", 2)):
        (root / folder).mkdir()
        for seed, name in enumerate(files):
            mask = np.zeros((24, 24), np.uint8)
            mask[6 + shift : 16, 5 : 12 + seed % 3] = 255
            Image.fromarray(mask).save(root / folder / f"{name}.png")
    methods = [f"@a<script>alert(1)</script>={root / 'p'}", f"![b](http:c) $_{{x$={root / 'q'}"]
    options = [word for method in methods for word in ("-p", method)]
    evaluate.main(
        [*options, "-r", str(root / "r"), "-o", str(root / "o"), "-np", "1", "--metrics", "dice", "iou", "specificity"]
    )
    return root / "o"


def test_evaluate_writes_no_formula_markup_or_link(scored: Path) -> None:
    with open(scored / "cases.csv", newline="", encoding="utf-8") as stream:
        cells = [cell for row in csv.reader(stream) for cell in row[:3]]
    assert cells and not [cell for cell in cells if cell.lstrip(" ").startswith(FORMULAS)]
    assert is_plain_markdown((scored / "table.md").read_text())
    assert r"\input" not in (scored / "table.tex").read_text()
    for name in ("grid.svg", "radar.svg", "differences.svg"):
        text = (scored / name).read_text()
        ElementTree.fromstring(text)  # noqa: S314 (our own file): whole, and no element but the chart's
        assert "<script" not in text


def test_the_report_is_text_in_html_markdown_and_csv() -> None:
    rows = [
        {"network": "unet", "method": "none", "style": None, "seed": 0, "test": "b", "case": n, "dice": 0.5}
        for n in NAMES
    ]
    cells = [row["case"] for row in csv.DictReader(rows_csv(rows).splitlines(keepends=True))]
    assert len(cells) == len(NAMES) and not [c for c in cells if c.lstrip(" ").startswith(FORMULAS)]
    for name in NAMES:
        blocks = [
            Heading(name), Text(name), Text(name, strong=True), Table(pd.DataFrame({"case": [name]})),
            Picture("pictures/p.png", b"png", name), Code((f"osasis-report '{name}'",)),
        ]  # fmt: skip
        page, text = to_html(name, blocks), to_markdown(name, blocks)
        assert "<script" not in page
        page.encode(), text.encode()
        outside = text.split("osasis-report")[0]  # the last block is code, in a fence that its content cannot close
        assert "<script" not in text.replace(text[text.rindex("osasis-report") :], "")
        assert is_plain_markdown(outside), outside
        fence = text.splitlines()[-1]
        assert set(fence) == {"`"} and len(fence) >= 3 and fence not in text.splitlines()[-2]


def test_pictures_are_drawn_whatever_they_show_is_called(tmp_path: Path) -> None:
    series = {name: {"Dice": 0.5, "IoU": 0.4, "S": 0.6} for name in NAMES[:6] + NAMES[-6:]}
    apart = {name: {"mean": 0.1, "low": 0.0, "high": 0.2} for name in NAMES}
    picture = np.zeros((8, 8), np.uint8)
    for suffix in (".png", ".svg"):
        radar_chart(series, tmp_path / f"radar{suffix}", title=NOT_TEXT)
        forest_plot({NAMES[-1]: apart}, tmp_path / f"forest{suffix}", xlabel="$x$")
        qualitative_grid(
            [GridRow(NAMES[14], [picture], [NAMES[14]])], [NOT_TEXT], tmp_path / f"grid{suffix}", title="a\x01"
        )
    for path in tmp_path.glob("*.svg"):
        ElementTree.parse(path)  # noqa: S314 (our own file)
    save_grid(tmp_path / "g.png", [(name, [torch.zeros(3, 8, 8)]) for name in NAMES[:3]], title="; ".join(NAMES))
    assert all(Image.open(path).size[0] > 50 for path in tmp_path.glob("*.png"))


def test_a_stylizers_readme_and_its_description_hold_no_markup(
    stylizer: OSASISStylizer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stylizer.card = {**stylizer.card, **{f"k{i}": name for i, name in enumerate(NAMES)}, "<script>": "x"}
    card = model_card(stylizer.state)
    card.encode()
    assert is_plain_markdown(card) and "\n# head" not in card
    info.main([str(stylizer.save_pretrained(tmp_path / "s"))])
    assert is_plain_markdown(capsys.readouterr().out)
