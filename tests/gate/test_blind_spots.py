"""What the gate once overlooked."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from specimens import draw

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.gate import calibrate_gate, score_structure
from nnunet_osasis.gate.audit import find_audit, path_in, read_audit
from nnunet_osasis.gate.damage import KINDS, fill
from nnunet_osasis.gate.scores import StructureScores
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.stylizer import OSASISStylizer


def tumour_in_an_organ() -> tuple[np.ndarray, np.ndarray]:
    """A picture ``(1, 80, 80)`` and labels: 1 the organ, 2 the tumour inside it."""
    y, x = np.mgrid[:80, :80]
    organ = (y - 40) ** 2 + (x - 40) ** 2 < 900
    tumour = (y - 40) ** 2 + (x - 44) ** 2 < 49
    noise = 0.02 * np.random.default_rng(0).standard_normal((80, 80))
    image = (-0.6 + 0.4 * organ + 0.5 * tumour + noise)[None].astype(np.float32)
    return image, organ.astype(np.uint8) + tumour


def test_a_tumour_inside_an_organ_is_a_lesion_of_its_own() -> None:
    image, labels = tumour_in_an_organ()
    gone = fill(image, labels == 2).astype(np.float32)
    whole, found = score_structure(image, image, labels), score_structure(image, gone, labels)
    assert whole.lesions == 2
    assert whole.lesion_contrast == pytest.approx(1, abs=1e-3)
    assert found.lesion_contrast is not None
    assert found.lesion_contrast < 0.4


def test_a_dim_image_is_perfect_beside_itself_too() -> None:
    for scale in (1.0, 0.1, 0.01):
        dim = scale * (draw(3, size=64).astype(np.float32) / 127.5 - 1)
        found = score_structure(dim, 0.5 * dim)
        assert min(found.structure_kept, found.structure_not_invented) > 0.99


@pytest.mark.parametrize("width", [61, 62, 63, 64])
def test_damage_at_the_very_edge_is_seen(width: int) -> None:
    image = draw(5, size=64).astype(np.float32)[..., :width] / 127.5 - 1
    harmed = image.copy()
    harmed[..., -3:] = -harmed[..., -3:]
    scores = score_structure(image, harmed)
    assert min(scores.structure_kept, scores.structure_not_invented) < 0.9


def test_one_empty_frame_among_the_sources_does_not_loosen_the_thresholds() -> None:
    scenes = [draw(seed, size=64).astype(np.float32) / 127.5 - 1 for seed in range(4)]
    empty = np.full((3, 64, 64), -0.9, np.float32) + 0.01 * np.random.default_rng(0).standard_normal((3, 64, 64))
    assert calibrate_gate([*scenes, empty.astype(np.float32)]).scores == calibrate_gate(scenes).scores


def test_a_score_that_is_no_number_fails() -> None:
    scores = StructureScores(boundaries=float("nan"), structure_kept=1, structure_not_invented=1)
    assert scores.failures({"boundaries": 0.5}).keys() == {"boundaries"}


@pytest.mark.parametrize("kind", KINDS)
def test_damage_of_a_lesion_that_fills_the_picture_is_finite(kind: str) -> None:
    image, mask = draw(1, size=40).astype(np.float64) / 127.5 - 1, np.ones((40, 40), bool)
    assert np.isfinite(KINDS[kind](image, mask, np.random.default_rng(0))).all()


def test_a_corrected_mask_is_looked_at_again(stylizer: OSASISStylizer, image_folder: Path, tmp_path: Path) -> None:
    masks, output = tmp_path / "masks", tmp_path / "out"
    masks.mkdir()
    for path in (image_folder / "masks").iterdir():
        (masks / path.name).write_bytes(path.read_bytes())
    assert stylize_folder(stylizer, image_folder / "images", output, masks=masks) == 6
    assert stylize_folder(stylizer, image_folder / "images", output, masks=masks) == 0
    corrected = np.zeros((40, 40), np.uint8)
    corrected[10:20, 10:20] = 255
    Image.fromarray(corrected).save(masks / "case 2.png")
    assert stylize_folder(stylizer, image_folder / "images", output, masks=masks) == 1
    assert len(read_audit(path_in(output))) == 6


def test_a_mask_with_a_soft_rim_is_one_lesion(stylizer: OSASISStylizer, tmp_path: Path) -> None:
    from scipy.ndimage import gaussian_filter

    for part in ("images", "masks"):
        (tmp_path / part).mkdir()
    picture, labels = tumour_in_an_organ()
    colour = np.repeat(np.moveaxis((picture + 1) * 127.5, 0, -1), 3, axis=2).astype(np.uint8)
    Image.fromarray(colour).save(tmp_path / "images" / "a.png")
    soft = gaussian_filter((labels == 2) * 255.0, 2)
    Image.fromarray((soft / soft.max() * 255).astype(np.uint8)).save(tmp_path / "masks" / "a.png")
    stylize_folder(stylizer, tmp_path / "images", tmp_path / "out", masks=tmp_path / "masks")
    assert read_audit(path_in(tmp_path / "out"))[0]["lesions"] == 1


def test_the_present_folder_can_be_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OsasisError, match="audit trail"):
        find_audit(".")
