"""Cases read from ``nnUNet_raw``: the way that is exact for every normalization and every resampling."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import Restyle, restyling_preprocessor


class RawCases:
    """Training cases of a dataset, from their image files."""

    route = "raw"

    def __init__(self, setup: NnunetConfiguration) -> None:
        if setup.raw_folder is None:
            raise OsasisError("The dataset must be in nnUNet_raw", found=f"no folder for {setup.dataset}")
        self._setup = setup
        # nnU-Net expands paths inside the dictionary it is given.
        self._files = get_filenames_of_train_images_and_targets(str(setup.raw_folder), deepcopy(setup.dataset_json))

    @property
    def keys(self) -> list[str]:
        """All training cases, sorted."""
        return sorted(self._files)

    def source_files(self, key: str) -> list[Path]:
        """The files the stylized case depends on: the images, and the labels where they shape the mask."""
        images = [Path(path) for path in self._case(key)["images"]]
        label = Path(self._case(key)["label"])
        return [*images, label] if any(self._setup.manager.use_mask_for_norm) and label.is_file() else images

    def label_files(self, key: str) -> list[Path]:
        """The file that says where the case's lesions are, if there is one."""
        label = Path(self._case(key)["label"])
        return [label] if label.is_file() else []

    def unnormalized(self, key: str) -> np.ndarray:
        """The case as nnU-Net is about to normalize it: ``(C, Z, Y, X)`` float32, native units, transposed, cropped."""
        return read_unnormalized(self._setup, self._case(key)["images"])

    def native(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """What nnU-Net normalizes: the image as in :meth:`unnormalized`, and ``(1, Z, Y, X)`` labels, -1 outside."""
        case, forward = self._case(key), [axis + 1 for axis in self._setup.plans.transpose_forward]
        reader = self._setup.plans.image_reader_writer_class()
        data = np.asarray(reader.read_images(case["images"])[0], dtype=np.float32).transpose(0, *forward)
        seg = reader.read_seg(case["label"])[0].transpose(0, *forward) if Path(case["label"]).is_file() else None
        data, seg, _ = crop_to_nonzero(data, seg)
        return np.ascontiguousarray(data), seg

    def preprocessed(self, key: str, restyle: Restyle | None = None) -> np.ndarray:
        """The case as nnU-Net would have preprocessed it, had ``restyle``'s output been the raw image."""
        case = self._case(key)
        label = case["label"] if Path(case["label"]).is_file() else None
        data, _, _ = restyling_preprocessor(self._setup.manager, restyle).run_case(
            case["images"], label, self._setup.plans, self._setup.manager, self._setup.dataset_json
        )
        return np.asarray(data, dtype=np.float32)

    def require_same_as_preprocessed(self, key: str) -> None:
        """Raise ``OsasisError`` unless the raw images and the plans still give the preprocessed file of ``key``."""
        folder = str(self._setup.preprocessed_folder / self._setup.manager.data_identifier)
        stored = np.asarray(infer_dataset_class(folder)(folder, [key]).load_case(key)[0][:])
        fresh = self.preprocessed(key)
        if stored.shape == fresh.shape and np.allclose(stored, fresh, rtol=1e-3, atol=1e-3):
            return
        difference = (
            f"largest difference {np.abs(stored - fresh).max():.3g}"
            if stored.shape == fresh.shape
            else f"shape {fresh.shape} instead of {stored.shape}"
        )
        raise OsasisError(
            "Preprocessed data must come from the images in nnUNet_raw and from these plans",
            found=f"another result for case {key} ({difference})",
            remedy=f"Run: nnUNetv2_preprocess -d {int(self._setup.dataset[7:10])} -plans_name "
            f"{self._setup.plans.plans_name} -c {self._setup.name}",
        )

    def _case(self, key: str) -> dict:
        if key not in self._files:
            raise OsasisError(
                "Every training case must have its images in nnUNet_raw",
                found=f"none for {key} in {self._setup.raw_folder}",
                remedy="Put the images back, or take the case out of splits_final.json.",
            )
        return self._files[key]


def read_unnormalized(setup: NnunetConfiguration, images: list[str]) -> np.ndarray:
    """Read, transpose and crop one image (one file per channel) as nnU-Net does: ``(C, Z, Y, X)`` float32."""
    data, _ = setup.plans.image_reader_writer_class().read_images(images)
    data = np.asarray(data, dtype=np.float32).transpose(0, *(axis + 1 for axis in setup.plans.transpose_forward))
    data, _, _ = crop_to_nonzero(data)
    return np.ascontiguousarray(data)
