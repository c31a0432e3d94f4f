"""``osasis-evaluate`` as a user types it: what it writes, and that it writes nothing half."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nnunet_osasis import OsasisError
from nnunet_osasis.evaluation.metrics import METRICS, charts, tables
from nnunet_osasis.evaluation.metrics.charts import GridRow, qualitative_grid, radar_chart
from nnunet_osasis.scripts import evaluate

ROOT = Path(__file__).parents[3]
FILES = {
    "cases.csv", "summary.json", "table.md", "table.tex", "radar.png", "radar.svg", "grid.png", "grid.svg",
    ".osasis.lock",
}  # fmt: skip
DIFFERENCES = {"differences.png", "differences.svg"}
"""Files of two methods or more."""


def command(study: Path, *more: str, output: str = "out") -> list[str]:
    methods = ["-p", f"plain={study / 'good'}", "-p", f"stylized={study / 'poor'}"]
    return [*methods, "-r", str(study / "truth"), "-o", str(study / output), "-np", "1", *more]


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_methods_become_tables_and_charts(study: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate.main(command(study, "--images", str(study / "images")))
    out = study / "out"
    assert {path.name for path in out.iterdir()} == FILES | DIFFERENCES
    rows = rows_of(out / "cases.csv")
    assert list(rows[0]) == ["method", "case", "class", *METRICS]
    assert len(rows) == 12 and rows[0]["wf"] == ""  # the empty case has none
    summary = json.loads((out / "summary.json").read_text())
    mean = summary["methods"]["plain"]["foreground"]["by_case"]["dice"]["mean"]
    assert mean == pytest.approx(np.mean([float(r["dice"]) for r in rows if r["method"] == "plain"]))
    assert summary["definitions"]["dice"]["text"] and summary["protocol"]["undefined"] is None
    table = (out / "table.md").read_text()
    assert f"**{mean:.3f}" in table and "Undefined" in table and table in capsys.readouterr().out + "\n"
    tex = (out / "table.tex").read_text()
    assert tex.count(r"\\") == 3 and r"\toprule" in tex
    for name in ("radar.png", "grid.png"):
        with Image.open(out / name) as picture:
            assert min(picture.size) > 500
            assert np.asarray(picture.convert("L")).std() > 10
    assert "stylized" in (out / "grid.svg").read_text()


def test_two_methods_are_compared_case_by_case_with_an_interval(study: Path, capsys: pytest.CaptureFixture) -> None:
    evaluate.main(command(study))
    rows, summary = rows_of(study / "out/cases.csv"), json.loads((study / "out/summary.json").read_text())
    plain, stylized = ({r["case"]: r["dice"] for r in rows if r["method"] == m} for m in ("plain", "stylized"))
    apart = np.array([float(stylized[case]) - float(plain[case]) for case in plain])
    found = summary["differences"]["stylized"]["dice"]
    assert summary["reference_method"] == "plain" and set(summary["differences"]) == {"stylized"}
    assert found["mean"] == pytest.approx(apart.mean()) and found["cases"] == len(apart)
    assert apart.min() <= found["low"] < apart.mean() < found["high"] <= apart.max()
    table = capsys.readouterr().out
    assert (
        "method minus plain" in table and f"{found['mean']:+.3f} ({found['low']:+.3f} to {found['high']:+.3f})" in table
    )
    with Image.open(study / "out/differences.png") as picture:
        assert min(picture.size) > 150 and np.asarray(picture.convert("L")).std() > 5
    weak = summary["differences"]["stylized"]["wf"]  # undefined in one case, which counts for neither side
    assert weak["cases"] == len(apart) - 1


def test_one_method_is_compared_with_none_and_an_old_comparison_goes(study: Path) -> None:
    evaluate.main(command(study))
    alone = ["-p", f"plain={study / 'good'}", "-r", str(study / "truth"), "-o", str(study / "out"), "-np", "1"]
    evaluate.main(alone)
    assert not {path.name for path in (study / "out").iterdir()} & DIFFERENCES
    assert json.loads((study / "out/summary.json").read_text())["differences"] == {}


def test_the_same_command_writes_the_same_bytes(study: Path) -> None:
    names = ["--metrics", "dice", "iou", "specificity", "mae"]
    evaluate.main(command(study, *names, output="one"))
    evaluate.main([*command(study, *names, output="two"), "-np", "2"])
    for path in (study / "one").iterdir():
        assert path.read_bytes() == (study / "two" / path.name).read_bytes(), path.name


def test_the_paper_protocol_is_labelled_as_what_it_is(study: Path) -> None:
    evaluate.main(command(study, "--protocol", "paper"))
    table = (study / "out/table.md").read_text()
    assert "Dice (threshold mean)" in table and "S_object (as S)" in table and "Protocol: paper" in table
    assert list(rows_of(study / "out/cases.csv")[0])[3:] == [
        n for n in METRICS if n in evaluate.PROTOCOLS["paper"].columns.values()
    ]


def test_volumes_and_classes_make_the_same_files(volumes: Path) -> None:
    options = ["--metrics", "dice", "iou", "mae", "-np", "1"]
    evaluate.main(
        ["-p", str(volumes / "predicted"), "-r", str(volumes / "truth"), "-o", str(volumes / "out"), *options]
    )
    assert {path.name for path in (volumes / "out").iterdir()} == FILES
    assert [r["class"] for r in rows_of(volumes / "out/cases.csv")[:3]] == ["1", "2", "mean"]
    assert rows_of(volumes / "out/cases.csv")[0]["method"] == "predicted"


def test_without_three_axes_there_is_no_radar_not_even_an_old_one(study: Path) -> None:
    evaluate.main(command(study, "--metrics", "dice", "iou", "mae"))
    assert (study / "out/radar.png").is_file()
    evaluate.main(command(study, "--metrics", "mae", "lesions"))
    assert {path.name for path in (study / "out").iterdir()} == FILES - {"radar.png", "radar.svg"}


def test_missing_cases_are_said_three_times(study: Path, capsys: pytest.CaptureFixture) -> None:
    (study / "poor/case 4.png").unlink()
    with pytest.raises(OsasisError, match=r"stylized: 1 without prediction \(case 4\)"):
        evaluate.main(command(study))
    assert not (study / "out").exists()
    evaluate.main(command(study, "--allow-missing", "--metrics", "dice", "iou", "mae"))
    assert "INCOMPLETE" in capsys.readouterr().err
    assert "INCOMPLETE" in (study / "out/table.md").read_text()
    assert json.loads((study / "out/summary.json").read_text())["left_out"] == {
        "stylized": {"without prediction": ["case 4"]}
    }


def test_a_bad_file_leaves_the_earlier_results_as_they_were(study: Path) -> None:
    options = ["--metrics", "dice", "iou", "mae"]
    evaluate.main(command(study, *options))
    before = {path.name: path.read_bytes() for path in (study / "out").iterdir()}
    broken = study / "poor/case 5.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(OsasisError, match="readable"):
        evaluate.main(command(study, *options))
    assert {path.name: path.read_bytes() for path in (study / "out").iterdir()} == before


def test_an_interrupted_chart_leaves_no_part_of_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    whole = FigureCanvasAgg.print_png

    def half(self: FigureCanvasAgg, target: object, **options: object) -> None:
        if not isinstance(target, str):  # matplotlib measures texts by printing into memory
            return whole(self, target, **options)
        Path(target).write_bytes(b"half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(FigureCanvasAgg, "print_png", half)
    with pytest.raises(OsasisError, match="room on the disk"):
        radar_chart({"a": {"x": 0.1, "y": 0.2, "z": 0.3}}, tmp_path / "radar.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (["-p", "plain=other"], "plain twice"),
        (["--classes", "a"], "labels above 0"),
        (["--metrics", "dise"], "dise"),
        (["--tolerance", "-1"], "at least 0"),
    ],
)
def test_wrong_options_are_named(study: Path, change: list[str], words: str) -> None:
    with pytest.raises(OsasisError, match=words):
        evaluate.main(command(study, *change))


def test_results_never_go_into_the_inputs(study: Path) -> None:
    with pytest.raises(OsasisError, match="another folder"):
        evaluate.main([*command(study), "-o", str(study / "poor")])


def test_images_are_needed_for_every_case(study: Path) -> None:
    (study / "images/case 1.png").rename(study / "images/case 1_0000.png")  # nnU-Net's name is as good
    evaluate.main(command(study, "--images", str(study / "images"), "--metrics", "dice"))
    (study / "images/case 1_0000.png").unlink()
    with pytest.raises(OsasisError, match="none for case 1"):
        evaluate.main(command(study, "--images", str(study / "images"), "--metrics", "dice"))


def test_a_folder_whose_name_holds_an_equals_sign_is_a_folder(study: Path) -> None:
    (study / "good").rename(study / "a=b")
    assert evaluate.named_folders([str(study / "a=b")]) == {"a=b": study / "a=b"}
    assert evaluate.named_folders(["x=y"]) == {"x": Path("y")}


def test_names_become_neither_formulas_nor_markup_nor_commands(study: Path) -> None:
    names = ["=1+1", "@SUM(A1)", "+1", "-2+3", "a|b_$"]
    for folder in ("good", "truth"):
        for i, name in enumerate(names):
            (study / folder / f"case {i}.png").rename(study / folder / f"{name}.png")
    methods = ["-p", f"<b>x</b>={study / 'good'}", "-p", f"![b](c)={study / 'good'}"]
    options = ["-r", str(study / "truth"), "-o", str(study / "out"), "-np", "1", "--metrics", "dice", "wf"]
    evaluate.main([*methods, *options])
    cells = {row["case"] for row in rows_of(study / "out/cases.csv")}
    assert cells == {"'=1+1", "'@SUM(A1)", "'+1", "'-2+3", "a|b_$", "case 5"}
    table = (study / "out/table.md").read_text()
    assert "&lt;b&gt;x&lt;/b&gt;" in table and r"!\[b\](c)" in table and "<b>" not in table and "![b]" not in table
    assert tables.latex_text("a_b 5 % $x$\n\\input{y}") == r"a\_b 5 \% \$x\$ \textbackslash{}input\{y\}"


def test_dollar_signs_in_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    row = GridRow("p$_{x$", [np.eye(8)], ["$_{y$"])
    page = qualitative_grid([row], ["$_{z$"], tmp_path / "g.svg").read_text()
    assert all(f"$_{{{name}$" in page for name in "xyz")
    series = {"a$_{$": {"x": 0.1, "y": 0.2, "z$_{$": 0.3}}
    assert radar_chart(series, tmp_path / "r.svg", title="$_{t$").read_text().count("$_{") == 3


def test_the_documented_commands_are_accepted() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if line.startswith("osasis-evaluate ")]
    assert lines
    for line in lines:
        evaluate.make_parser().parse_args(shlex.split(line, comments=True)[1:])


def test_the_documentation_lists_every_metric() -> None:
    page = (ROOT / "docs/evaluation.md").read_text(encoding="utf-8")
    assert set(METRICS) <= set(re.findall(r"`(\w+)`", page))


def test_a_radar_refuses_what_it_cannot_show(tmp_path: Path) -> None:
    axes = {"a": 0.5, "b": 0.5, "c": 1.0001, "d": float("nan")}
    assert radar_chart({"x": axes}, tmp_path / "r.svg").read_text().count("not shown (undefined): d") == 1
    for series in ({"x": {**axes, "a": 3.0}}, {"x": {"a": 1, "b": 1}}, {"x": axes, "y": {"a": 1}}, {}):
        with pytest.raises(OsasisError):
            radar_chart(series, tmp_path / "r.png")
    with pytest.raises(OsasisError, match=r"\.png or \.svg"):
        radar_chart({"x": axes}, tmp_path / "r.pdf")


def test_charts_do_not_depend_on_the_processs_matplotlib_settings(tmp_path: Path) -> None:
    import matplotlib

    row = GridRow("case", [np.eye(8), None], ["a"], np.eye(8, dtype=bool))
    first = qualitative_grid([row], ["truth", "none"], tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"figure.facecolor": "black", "font.size": 30}):
        assert qualitative_grid([row], ["truth", "none"], tmp_path / "b.png").read_bytes() == first
    with pytest.raises(OsasisError, match="one cell per column"):
        qualitative_grid([row], ["truth"], tmp_path / "c.png")
    assert len(set(charts.COLOURS)) == len(charts.COLOURS)
