"""Cases recovered from preprocessed files, where nnU-Net's normalization can be undone exactly.

Only needed where ``nnUNet_raw`` is not at hand, for example on a compute node that was sent the preprocessed data.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration
from nnunet_osasis.nnunet.restyle import Restyle, restyling_preprocessor

INVERTIBLE = ("CTNormalization", "NoNormalization", "RGBTo01Normalization")


class PreprocessedCases:
    """Training cases of a dataset, from its preprocessed folder.

    Raises ``OsasisError`` when a channel's normalization kept no record of what it subtracted and divided by
    (z-score, rescaling to [0, 1]). CT intensities come back clipped to the plans' percentiles 0.5 and 99.5: what
    lies beyond was lost in preprocessing.
    """

    route = "preprocessed"

    def __init__(self, setup: NnunetConfiguration) -> None:
        lost = sorted({scheme for scheme in setup.manager.normalization_schemes if scheme not in INVERTIBLE})
        if lost:
            raise _needs_raw(setup, f"{', '.join(lost)} keeps no record of the original intensities")
        self._setup = setup
        folder = setup.preprocessed_folder / setup.manager.data_identifier
        if not folder.is_dir():
            raise _needs_raw(setup, f"there is no preprocessed folder {folder} either")
        self._cases = infer_dataset_class(str(folder))(str(folder))

    @property
    def keys(self) -> list[str]:
        """All training cases, sorted."""
        return sorted(self._cases.identifiers)

    def source_files(self, key: str) -> list[Path]:
        """The file the stylized case depends on."""
        ending = next(e for e in (".b2nd", ".npz") if (Path(self._cases.source_folder) / f"{key}{e}").is_file())
        return [Path(self._cases.source_folder) / f"{key}{ending}"]

    def label_files(self, key: str) -> list[Path]:
        """The file that says where the case's lesions are, if it is not the image's own (.npz holds both)."""
        found = Path(self._cases.source_folder) / f"{key}_seg.b2nd"
        return [found] if found.is_file() else []

    def unnormalized(self, key: str) -> np.ndarray:
        """The case in native units: ``(C, Z, Y, X)`` float32, transposed, cropped."""
        return self.native(key)[0]

    def preprocessed(self, key: str, restyle: Restyle | None = None) -> np.ndarray:
        """The case, stylized and normalized again: ``(C, Z, Y, X)`` float32."""
        data, seg = self.native(key)
        properties = self._setup.plans.foreground_intensity_properties_per_channel
        preprocessor = restyling_preprocessor(self._setup.manager, restyle)
        return np.asarray(preprocessor._normalize(data, seg, self._setup.manager, properties), dtype=np.float32)

    def require_same_as_preprocessed(self, key: str) -> None:
        """Nothing to compare: the preprocessed file is the source here."""

    def native(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """Image in native units and segmentation, ``(C, Z, Y, X)`` and ``(1, Z, Y, X)``."""
        stored, seg, _, properties = self._cases.load_case(key)
        data = np.array(stored[:], dtype=np.float32)
        if tuple(properties["shape_after_cropping_and_before_resampling"]) != data.shape[1:]:
            raise _needs_raw(self._setup, f"case {key} was resampled, so its own pixels are not there any more")
        intensities = self._setup.plans.foreground_intensity_properties_per_channel
        for channel, scheme in enumerate(self._setup.manager.normalization_schemes):
            if scheme == "CTNormalization":
                data[channel] *= max(intensities[str(channel)]["std"], 1e-8)
                data[channel] += intensities[str(channel)]["mean"]
            elif scheme == "RGBTo01Normalization":
                data[channel] *= 255
                whole = np.rint(data[channel])
                if np.abs(whole - data[channel]).max() < 1e-3:  # 8-bit images come back exactly
                    data[channel] = whole
        return data, np.asarray(seg[:])


def _needs_raw(setup: NnunetConfiguration, reason: str) -> OsasisError:
    return OsasisError(
        f"The original images of {setup.dataset} are needed to stylize them in their own units",
        found=f"no folder {setup.dataset} in nnUNet_raw, and {reason}",
        remedy="Set the environment variable nnUNet_raw to the folder that holds it (training only reads from there).",
    )
