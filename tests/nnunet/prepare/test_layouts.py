"""Every published layout is found, paired, grouped and read as its publishers made it."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.prepare import reading
from nnunet_osasis.nnunet.prepare.labels import LabelRule
from nnunet_osasis.nnunet.prepare.layouts import LAYOUTS
from nnunet_osasis.nnunet.prepare.pairs import find_folder_cases, find_layout_cases
from nnunet_osasis.nnunet.prepare.reading import read_any

from . import trees

# layout, tree, cases, groups, the first case
KNOWN = [
    ("clinicdb", trees.clinicdb, 8, 5, "1"),
    ("clinicdb", trees.clinicdb_kaggle, 8, 5, "1"),
    ("colondb", trees.colondb, 7, 7, "1"),
    ("etis", trees.etis, 7, 7, "1"),
    ("kvasir", trees.kvasir, 7, 7, "cju00"),
    ("isic", trees.isic, 8, 4, "ISIC_000000"),
    ("drive", trees.drive, 9, 9, "01_test"),
    ("stare", trees.stare, 7, 7, "im0001"),
    ("chase", trees.chase, 12, 6, "Image_01L"),
]


@pytest.mark.parametrize(("name", "build", "count", "groups", "first"), KNOWN, ids=lambda v: getattr(v, "__name__", ""))
def test_published_layouts_are_found_grouped_and_read(tmp_path, name, build, count, groups, first):
    build(tmp_path)
    cases = find_layout_cases(tmp_path, LAYOUTS[name])
    assert len(cases) == count and cases[0].key == first
    assert len({case.group for case in cases}) == groups
    for case in cases:
        image, mask = read_any(case.image).array, read_any(case.mask).array
        assert image.dtype == np.uint8 and image.shape[0] == 3 and image.shape[1:] == mask.shape[1:]
        labels = LabelRule(threshold=LAYOUTS[name].threshold).convert(mask)
        assert labels.dtype == np.uint8 and set(np.unique(labels)) == {0, 1}
    nested = tmp_path.with_name(tmp_path.name + "-outer")
    nested.mkdir()
    tmp_path.rename(nested / "unpacked")  # the folder may be named by its parent too
    assert len(find_layout_cases(nested, LAYOUTS[name])) == count


def test_every_layout_is_tried():
    assert {name for name, *_ in KNOWN} == set(LAYOUTS)


@pytest.mark.parametrize("name", ["clinicdb", "colondb", "etis", "kvasir"])
def test_copies_in_images_and_masks_are_found_too(tmp_path, name):
    trees.pairs(tmp_path, "images/{}.png", "masks/{}.png", [1, 2, 10])
    assert [case.key for case in find_layout_cases(tmp_path, LAYOUTS[name])] == ["1", "2", "10"]


def test_shadow_files_of_archives_are_no_cases(tmp_path):
    trees.kvasir(tmp_path)
    for shadow in ("__MACOSX/Kvasir-SEG/images/._cju00.jpg", "Kvasir-SEG/masks/._cju00.jpg"):
        (tmp_path / shadow).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / shadow).write_bytes(b"shadow")
    assert len(find_layout_cases(tmp_path, LAYOUTS["kvasir"])) == 7


def test_isic_copies_without_the_suffix_are_found_too(tmp_path):
    trees.pairs(tmp_path, "images/ISIC_{}.jpg", "masks/ISIC_{}.png", [1, 2])
    assert len(find_layout_cases(tmp_path, LAYOUTS["isic"])) == 2


def test_clinicdb_frames_of_a_sequence_are_one_group(tmp_path):
    trees.clinicdb(tmp_path)
    groups = {case.key: case.group for case in find_layout_cases(tmp_path, LAYOUTS["clinicdb"])}
    assert groups["1"] == groups["25"] == "sequence 1" and groups["26"] == "sequence 2"
    assert groups["51"] == groups["52"] != groups["68"] and groups["612"] == "sequence 29"


def test_drive_keeps_its_own_test_set_and_fields_of_view(tmp_path):
    trees.drive(tmp_path)
    cases = find_layout_cases(tmp_path, LAYOUTS["drive"])
    assert [case.key for case in cases if case.test] == ["01_test", "02_test", "03_test"]
    rule = LabelRule("vessel", ignore_outside=True)
    assert rule.names() == {"background": 0, "vessel": 1, "ignore": 2}
    assert cases[0].field is not None
    found = rule.convert(read_any(cases[0].mask).array, read_any(cases[0].field).array)
    assert (found[:, -2:] == 2).all() and set(np.unique(found[:, :-2])) == {0, 1}
    with pytest.raises(OsasisError, match="field of view"):
        rule.convert(read_any(cases[0].mask).array)


def test_drive_numbers_may_repeat_between_its_parts(tmp_path):
    for part in ("training", "test"):
        trees.save(tmp_path / f"{part}/images/01_{part}.tif", trees.picture())
        trees.save(tmp_path / f"{part}/1st_manual/01_manual1.gif", trees.mask())
    cases = find_layout_cases(tmp_path, LAYOUTS["drive"])
    assert len({case.group for case in cases}) == 2


def test_a_table_of_groups_goes_before_the_layouts_rule(tmp_path):
    trees.clinicdb(tmp_path / "data")
    table = tmp_path / "groups.csv"
    table.write_text("case,group\n" + "\n".join(f"{n},patient {n % 2}" for n in (1, 2, 25, 26, 51, 52, 68, 612)))
    cases = find_layout_cases(tmp_path / "data", LAYOUTS["clinicdb"], table)
    assert {case.group for case in cases} == {"patient 0", "patient 1"}
    table.write_text("case,group\n1,a")
    with pytest.raises(OsasisError, match="row"):
        find_layout_cases(tmp_path / "data", LAYOUTS["clinicdb"], table)
    table.write_text("name,patient\n1,a")
    with pytest.raises(OsasisError, match="columns case and group"):
        find_layout_cases(tmp_path / "data", LAYOUTS["clinicdb"], table)


def test_folders_are_paired_by_stem_and_grouped_by_pattern(tmp_path):
    trees.pairs(tmp_path, "a/{}.jpg", "b/{}_seg.png", ["p1_1", "p1_2", "p2_1"])
    trees.save(tmp_path / "b/p1_1_other.png", trees.mask())
    cases = find_folder_cases(tmp_path / "a", tmp_path / "b", suffix="_seg", pattern=r"^(p\d+)")
    assert [(case.key, case.group) for case in cases] == [("p1_1", "p1"), ("p1_2", "p1"), ("p2_1", "p2")]
    for pattern in ("^(q)", "p1", "("):
        with pytest.raises(OsasisError, match="pattern"):
            find_folder_cases(tmp_path / "a", tmp_path / "b", suffix="_seg", pattern=pattern)


def test_missing_partners_twins_and_wrong_folders_are_named(tmp_path: Path):
    trees.pairs(tmp_path, "images/{}.png", "masks/{}.png", [1, 2])
    with pytest.raises(OsasisError, match="DRIVE as it is published"):
        find_layout_cases(tmp_path, LAYOUTS["drive"])
    with pytest.raises(OsasisError, match="must exist"):
        find_layout_cases(tmp_path / "nowhere", LAYOUTS["drive"])
    trees.save(tmp_path / "images/3.png", trees.picture())
    for find in (
        lambda: find_layout_cases(tmp_path, LAYOUTS["colondb"]),
        lambda: find_folder_cases(tmp_path / "images", tmp_path / "masks"),
    ):
        with pytest.raises(OsasisError, match=r"1 without a partner, .*3\.png"):
            find()
    trees.save(tmp_path / "copy/images/1.png", trees.picture())
    with pytest.raises(OsasisError, match="one file"):
        find_layout_cases(tmp_path, LAYOUTS["colondb"])


def test_broken_old_files_are_named(tmp_path):
    for name in ("a.gif", "b.ppm.gz", "c.ppm"):
        (tmp_path / name).write_bytes(b"broken")
        with pytest.raises(OsasisError, match="readable"):
            read_any(tmp_path / name)


def test_damaged_and_oversized_old_files_are_named(tmp_path, monkeypatch):
    content = b"P6 40 40 255\n" + np.random.default_rng(0).bytes(4800)
    packed = gzip.compress(content)
    files = {
        "damaged.ppm.gz": packed[:40] + b"\xff" * 40 + packed[80:],
        "cut.ppm.gz": packed[: len(packed) // 2],
        "huge.ppm": b"P6 20000 20000 255\n",
        "huge.PPM.GZ": gzip.compress(b"P6 20000 20000 255\n"),
    }
    for name, stored in files.items():
        (tmp_path / name).write_bytes(stored)
        with pytest.raises(OsasisError, match=f"readable; got .*{name}"):
            read_any(tmp_path / name)
    (tmp_path / "whole.ppm.gz").write_bytes(packed)
    monkeypatch.setattr(reading, "MAX_BYTES", len(content))
    assert read_any(tmp_path / "whole.ppm.gz").array.shape == (3, 40, 40)
    monkeypatch.setattr(reading, "MAX_BYTES", len(content) - 1)
    with pytest.raises(OsasisError, match="MiB when unpacked"):
        read_any(tmp_path / "whole.ppm.gz")
