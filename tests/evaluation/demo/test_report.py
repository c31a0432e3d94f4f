"""The report is whole, self-contained, and holds what was measured."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis.evaluation.demo.figures import typical_cases
from nnunet_osasis.evaluation.demo.methods import methods
from nnunet_osasis.evaluation.demo.pictures import before_after, dice_chart, style_sheet
from nnunet_osasis.evaluation.demo.report import write_texts
from nnunet_osasis.evaluation.demo.verdict import verdict
from nnunet_osasis.synthetic.phantoms import render_pair

FIGURES = {"none": 0.5, "histogram": 0.55, "reinhard": 0.6, "osasis": 0.7, "truth": 0.8}
VOID = {"meta", "img"}


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, format="PNG")
    return buffer.getvalue()


PICTURES = {name: _png() for name in ("before_after.png", "dice.png", "styles.png")}


class _Balance(HTMLParser):
    """Fails on tags that do not close in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(params=[False, True], ids=["phantom", "own"])
def texts(request, make_results):
    figures = {key: value for key, value in FIGURES.items() if not (request.param and key == "truth")}
    results = make_results(own=request.param, **figures)
    results["verdict"] = verdict(results)
    return request.param, results, *write_texts(results, PICTURES)


def test_html_is_well_formed_and_needs_no_other_file(texts):
    _, _, html, _ = texts
    parser = _Balance()
    parser.feed(html)
    assert parser.open == [] and len(parser.links) == 3
    assert all(link.startswith("data:image/png;base64,") for link in parser.links)
    assert "http" not in re.sub(r"base64,[^\"]*", "", html)
    assert "&lt;of&gt;" in html and "<of>" not in html


def test_both_forms_hold_verdict_numbers_commands_and_limits(texts):
    own, results, html, markdown = texts
    for text in (html, markdown):
        assert results["verdict"]["title"] in text
        assert "0.500" in text and "+0.200" in text
        assert "nnUNetv2_plan -d 501" in text
        assert "evidence of clinical benefit" in text
        assert ("gap closed" in text) == (not own) and ("CIEDE2000 to truth" in text) == (not own)


def test_typical_cases_are_the_quartiles(make_results):
    results = make_results(**FIGURES)
    first = [row for row in results["cases"] if row["training"] == 0]
    ranked = sorted((row["dice"], row["case"]) for row in first if (row["method"], row["domain"]) == ("none", "target"))
    assert typical_cases(first) == [ranked[i][1] for i in (6, 12, 17)]


def test_pictures_are_drawn(tmp_path, make_results):
    image_a, image_b, mask = render_pair(0, 48)
    row = {"pictures": [image_a, image_b, image_b], "target": image_b, "mask": mask, "before": 0 * mask, "after": mask}
    paths = [
        before_after([{**row, "caption": "Dice"}] * 2, ["a", "b", "c", "d"], tmp_path / "before_after.png"),
        style_sheet({"source": [image_a], "truth": [image_b]}, tmp_path / "styles.png"),
        dice_chart(
            make_results(**FIGURES)["summary"],
            {method.key: method.label for method in methods(own_images=False)},
            tmp_path / "dice.png",
        ),
    ]
    for path in paths:
        picture = np.array(Image.open(path))
        assert min(picture.shape[:2]) > 100 and picture[..., :3].std() > 5
