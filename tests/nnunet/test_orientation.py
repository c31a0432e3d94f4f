"""A scan is restyled as it lies in the patient, whatever voxel order its file and nnU-Net's plans have."""

from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from specimens import draw

from nnunet_osasis import OSASISStylizer
from nnunet_osasis.maps.parametric import ParametricMap, feature_count
from nnunet_osasis.nnunet.restyle import cut_of_case, restyle_with
from nnunet_osasis.stylizer.archive.run import stylize_folder
from nnunet_osasis.stylizer.config import StylizerConfig

PLAIN = SimpleNamespace(normalization_schemes=["ZScoreNormalization"], use_mask_for_norm=[False])


def sloping() -> OSASISStylizer:
    """A stylizer whose map brightens from left to right, and more from top to bottom."""
    row = [0.0] * feature_count(1, ("field",))
    row[2], row[4] = 0.1, 0.3
    change = ParametricMap([row], ("field",), [-1.0], [1.0])
    return OSASISStylizer(
        reference=np.zeros((1, 8, 8)), maps={"moments": change}, config=StylizerConfig(readout="moments")
    )


def store(path: Path, scan: np.ndarray, code: str) -> str:
    """Write a scan ``(Z, Y, X)`` that lies as ITK's identity says in another voxel order."""
    image = nibabel.Nifti1Image(scan.transpose(2, 1, 0), np.diag([-1.0, -1.0, 3.0, 1.0]))
    start = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(tuple(code)))
    nibabel.save(image.as_reoriented(turn), path)
    return str(path)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
@pytest.mark.parametrize("reader", [SimpleITKIO, NibabelIO, NibabelIOWithReorient])
def test_nnunet_restyles_a_case_as_the_folder_command_does(tmp_path: Path, reader: type, order: tuple) -> None:
    scan = np.stack([draw(i, channels=1, size=40)[0, :30] for i in range(5)]).astype(np.float32)
    (tmp_path / "in").mkdir()
    stylizer = sloping()
    for code in ("LPS", "RAS", "PIR"):
        store(tmp_path / "in" / f"{code}.nii.gz", scan, code)
    stylize_folder(stylizer, tmp_path / "in", tmp_path / "out", gated=False, progress=False)
    for code in ("LPS", "RAS", "PIR"):
        data, properties = reader().read_images([str(tmp_path / "in" / f"{code}.nii.gz")])
        expected, _ = reader().read_images([str(tmp_path / "out" / f"{code}.nii.gz")])
        turned = np.ascontiguousarray(data.transpose(0, *(axis + 1 for axis in order)))
        cut = cut_of_case(properties, order, turned.shape[1:])
        result = restyle_with(stylizer, 1.0)(turned.copy(), np.zeros((1, *turned.shape[1:])), PLAIN, cut)
        assert np.abs(result - turned).max() > 1
        np.testing.assert_allclose(result, expected.transpose(0, *(axis + 1 for axis in order)), atol=1e-4)


def test_pictures_are_as_they_are() -> None:
    picture, seg = draw(1, channels=1)[:, None].astype(np.float32), np.zeros((1, 1, 32, 32))
    cut = cut_of_case({"spacing": (999, 1, 1)}, (0, 1, 2), picture.shape[1:])
    stylizer = sloping()
    result = restyle_with(stylizer, 1.0)(picture.copy(), seg, PLAIN, cut)
    np.testing.assert_array_equal(result, stylizer.stylize_array(picture))
