"""The cases of an nnU-Net dataset as a stylizer sees them: native units, nnU-Net's own order of axes.

Cases come from ``nnUNet_raw``, which is exact for every normalization and every resampling. On a machine that was sent
only preprocessed data, they are recovered from there if nnU-Net's normalization can be undone exactly.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from nnunetv2.preprocessing.cropping.cropping import crop_to_nonzero
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.nnunet.configuration import NnunetConfiguration, preprocessed_folder
from nnunet_osasis.nnunet.restyle import Restyle, restyling_preprocessor
from nnunet_osasis.runtime.records import read_json, read_json_value

PLANS = "nnUNetPlans"
"""Name of nnU-Net's default plans."""

INVERTIBLE = ("CTNormalization", "NoNormalization", "RGBTo01Normalization")
"""Normalizations that can be undone with the numbers in the plans; a z-score per image cannot."""


def open_cases(setup: NnunetConfiguration) -> Cases:
    """The cases from ``nnUNet_raw`` if it holds the dataset, else from preprocessed files.

    Raises:
        OsasisError: when the raw images are missing and the normalization cannot be undone.
    """
    return PreprocessedCases(setup) if setup.raw_folder is None else RawCases(setup)


class RawCases:
    """Training cases of a dataset, from their image files.

    Args:
        setup: the configuration; its ``raw_folder`` exists.
    """

    route = "raw"

    def __init__(self, setup: NnunetConfiguration) -> None:
        self._setup = setup
        # nnU-Net expands paths inside the dictionary it is given.
        self._files = get_filenames_of_train_images_and_targets(str(setup.raw_folder), deepcopy(setup.dataset_json))

    @property
    def keys(self) -> list[str]:
        """All training cases, sorted."""
        return sorted(self._files)

    def source_files(self, key: str) -> list[Path]:
        """The files a stylized case depends on: the images, and the labels where nnU-Net normalizes within a mask."""
        images = [Path(path) for path in self._case(key)["images"]]
        return [*images, *self.label_files(key)] if any(self._setup.manager.use_mask_for_norm) else images

    def label_files(self, key: str) -> list[Path]:
        """The file with the case's labels, if it exists."""
        label = Path(self._case(key)["label"])
        return [label] if label.is_file() else []

    def unnormalized(self, key: str) -> np.ndarray:
        """The case as nnU-Net is about to normalize it: ``(C, Z, Y, X)`` float32, native units, transposed, cropped."""
        return _read_image(self._setup, self._case(key)["images"])

    def native(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """The image as in :meth:`unnormalized`, and ``(1, Z, Y, X)`` labels, -1 outside the mask."""
        labels = None
        if self.label_files(key):
            reader = self._setup.plans.image_reader_writer_class()
            labels = self._setup.transposed(reader.read_seg(self._case(key)["label"])[0])
        data, labels, _ = crop_to_nonzero(_read_uncropped(self._setup, self._case(key)["images"]), labels)
        return np.ascontiguousarray(data), labels

    def preprocessed(self, key: str, restyle: Restyle | None = None) -> np.ndarray:
        """The case as nnU-Net would have preprocessed it, had the output of ``restyle`` been the raw image."""
        setup, label = self._setup, next(map(str, self.label_files(key)), None)
        preprocessor = restyling_preprocessor(setup.manager, restyle)
        data, _, _ = preprocessor.run_case(
            self._case(key)["images"], label, setup.plans, setup.manager, setup.dataset_json
        )
        return np.asarray(data, dtype=np.float32)

    def require_same_as_preprocessed(self, key: str) -> None:
        """Raise ``OsasisError`` unless the raw images and the plans still give the preprocessed file of ``key``."""
        folder = str(self._setup.data_folder)
        stored = np.asarray(infer_dataset_class(folder)(folder, [key]).load_case(key)[0][:])
        fresh = self.preprocessed(key)
        if stored.shape != fresh.shape:
            difference = f"shape {fresh.shape} instead of {stored.shape}"
        elif not np.allclose(stored, fresh, rtol=1e-3, atol=1e-3):
            difference = f"largest difference {np.abs(stored - fresh).max():.3g}"
        else:
            return
        raise OsasisError(
            "Preprocessed data must come from the images in nnUNet_raw and from these plans",
            found=f"another result for case {key} ({difference})",
            remedy=f"Run: nnUNetv2_preprocess -d {self._setup.dataset_id} -plans_name "
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


class PreprocessedCases:
    """Training cases of a dataset, recovered from its preprocessed folder.

    CT intensities come back clipped to the plans' percentiles 0.5 and 99.5: preprocessing lost what lies beyond.

    Args:
        setup: the configuration.

    Raises:
        OsasisError: when a channel's normalization kept no record of what it subtracted and divided by (z-score,
            rescaling to [0, 1]).
    """

    route = "preprocessed"

    def __init__(self, setup: NnunetConfiguration) -> None:
        lost = sorted({scheme for scheme in setup.manager.normalization_schemes if scheme not in INVERTIBLE})
        if lost:
            raise _raw_images_needed(setup, f"{', '.join(lost)} keeps no record of the original intensities")
        self._setup = setup
        self._folder = setup.data_folder
        if not self._folder.is_dir():
            raise _raw_images_needed(setup, f"there is no preprocessed folder {self._folder} either")
        self._cases = infer_dataset_class(str(self._folder))(str(self._folder))

    @property
    def keys(self) -> list[str]:
        """All training cases, sorted."""
        return sorted(self._cases.identifiers)

    def source_files(self, key: str) -> list[Path]:
        """The file a stylized case depends on."""
        return [next(path for e in (".b2nd", ".npz") if (path := self._folder / f"{key}{e}").is_file())]

    def label_files(self, key: str) -> list[Path]:
        """The file with the case's labels, if it is not the image's own (an .npz holds both)."""
        path = self._folder / f"{key}_seg.b2nd"
        return [path] if path.is_file() else []

    def unnormalized(self, key: str) -> np.ndarray:
        """The case in native units: ``(C, Z, Y, X)`` float32, transposed, cropped."""
        return self.native(key)[0]

    def native(self, key: str) -> tuple[np.ndarray, np.ndarray]:
        """The image as in :meth:`unnormalized`, and ``(1, Z, Y, X)`` labels, -1 outside the mask."""
        stored, labels, _, properties = self._cases.load_case(key)
        data = np.array(stored[:], dtype=np.float32)
        if tuple(properties["shape_after_cropping_and_before_resampling"]) != data.shape[1:]:
            raise _raw_images_needed(self._setup, f"case {key} was resampled, so its own pixels are not there any more")
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
        return data, np.asarray(labels[:])

    def preprocessed(self, key: str, restyle: Restyle | None = None) -> np.ndarray:
        """The case, restyled and normalized again: ``(C, Z, Y, X)`` float32."""
        data, labels = self.native(key)
        intensities = self._setup.plans.foreground_intensity_properties_per_channel
        preprocessor = restyling_preprocessor(self._setup.manager, restyle)
        return np.asarray(preprocessor._normalize(data, labels, self._setup.manager, intensities), dtype=np.float32)

    def require_same_as_preprocessed(self, key: str) -> None:
        """Do nothing: the preprocessed file is the source."""


Cases = RawCases | PreprocessedCases


def _raw_images_needed(setup: NnunetConfiguration, reason: str) -> OsasisError:
    return OsasisError(
        f"The original images of {setup.dataset} are needed to stylize them in their own units",
        found=f"no folder {setup.dataset} in nnUNet_raw, and {reason}",
        remedy="Set the environment variable nnUNet_raw to the folder that holds it (training only reads from there).",
    )


def unnormalized_cases(
    dataset: int | str, configuration: str, plans_identifier: str = PLANS, keys: Iterable[str] | None = None
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield ``(key, image)``: images ``(C, Z, Y, X)`` float32, native units, transposed and cropped, 2D with ``Z = 1``.

    ``keys`` defaults to every case of the dataset; pass :func:`training_keys` to keep validation cases out.
    """
    cases = open_cases(NnunetConfiguration.load(dataset, configuration, plans_identifier))
    for key in cases.keys if keys is None else keys:
        yield key, cases.unnormalized(key)


def training_keys(dataset: int | str, fold: int | str) -> list[str]:
    """The cases ``nnUNetv2_train`` trains on in this fold ("all" or a number), before or after it made its splits.

    Follows nnU-Net's ``do_split``: ``splits_final.json`` where it exists, else the five folds nnU-Net would make,
    and a seeded 80:20 split for a fold beyond them. Writes nothing.
    """
    folder = preprocessed_folder(dataset)
    ending = str(read_json(folder / "dataset.json", what="dataset.json").get("file_ending"))
    keys = sorted(path.name[: -len(ending)] for path in (folder / "gt_segmentations").glob(f"*{ending}"))
    if fold == "all":
        return keys
    try:
        fold = int(fold)
    except ValueError:
        raise OsasisError('The fold must be a number or "all"', found=repr(fold)) from None
    if (folder / "splits_final.json").is_file():
        splits = read_json_value(folder / "splits_final.json", list, what="The splits of nnU-Net")
    elif len(keys) < 5:
        raise OsasisError(
            "Five folds need five cases",
            found=f"{len(keys)} in {folder / 'gt_segmentations'}",
            remedy='Use the fold "all", or write a splits_final.json.',
        )
    else:
        splits = generate_crossval_split(keys, seed=12345, n_splits=5)
    if fold < len(splits):
        try:
            return sorted(map(str, splits[fold]["train"]))
        except (KeyError, TypeError) as error:
            raise OsasisError(
                "Every split needs a list of training cases",
                found=f"another split {fold} in {folder / 'splits_final.json'}",
                remedy="Delete the file: nnU-Net then makes its own splits.",
            ) from error
    chosen = np.random.RandomState(seed=12345 + fold).choice(len(keys), int(len(keys) * 0.8), replace=False)
    return sorted(keys[i] for i in chosen)


@dataclass(frozen=True)
class ChannelHint:
    """What the plans know about one channel.

    Attributes:
        name: of the channel, such as ``T1``.
        scheme: class name of the normalization in nnU-Net, such as ``ZScoreNormalization``.
        percentile_00_5: percentile 0.5 of the intensities inside the foreground, native units.
        percentile_99_5: percentile 99.5 of them.
    """

    name: str
    scheme: str
    percentile_00_5: float
    percentile_99_5: float


def intensity_hints(dataset: int | str, configuration: str, plans_identifier: str = PLANS) -> list[ChannelHint]:
    """Normalization and foreground intensities of every channel, from the plans."""
    setup = NnunetConfiguration.load(dataset, configuration, plans_identifier)
    known = setup.plans.foreground_intensity_properties_per_channel
    return [
        ChannelHint(name, scheme, known[str(channel)]["percentile_00_5"], known[str(channel)]["percentile_99_5"])
        for channel, (name, scheme) in enumerate(
            zip(setup.channel_names, setup.manager.normalization_schemes, strict=True)
        )
    ]


def read_reference(
    path: str | Path, dataset: int | str, configuration: str, plans_identifier: str = PLANS
) -> np.ndarray:
    """:func:`read_like_dataset` for a configuration that is given by its name."""
    return read_like_dataset(Path(path), NnunetConfiguration.load(dataset, configuration, plans_identifier))


def read_like_dataset(path: Path, setup: NnunetConfiguration) -> np.ndarray:
    """Read a target-style image as the dataset's reader would: ``(C, Z, Y, X)`` float32, native units.

    Args:
        path: the image; where the dataset keeps one file per channel, the first of them (``..._0000.nii.gz``), with
            the others beside it.
        setup: the configuration.

    Raises:
        OsasisError: when the image is missing, unreadable, or has other channels than the dataset.
    """
    if not path.is_file():
        raise OsasisError("The reference image must exist", found=f"no file {path}")
    ending, names = setup.dataset_json["file_ending"], setup.channel_names
    files = [path]
    if path.name.endswith(f"_0000{ending}"):
        stem = str(path).removesuffix(f"_0000{ending}")
        channels = [Path(f"{stem}_{channel:04d}{ending}") for channel in range(len(names))]
        files = [file for file in channels if file.is_file()]
    try:
        image = _read_image(setup, [str(file) for file in files])
    except Exception as error:  # readers raise whatever their library raises
        raise OsasisError(
            f"The reference image must be readable by the dataset's {setup.plans.image_reader_writer_class.__name__}",
            found=f"{type(error).__name__}: {error}",
            remedy=f"Save it in the dataset's own format ({ending}).",
        ) from error
    if image.shape[0] != len(names):
        raise OsasisError(
            f"The reference image must have the dataset's {len(names)} channel(s) ({', '.join(names)})",
            found=f"{image.shape[0]} in {', '.join(map(str, files))}",
            remedy=f"Give an image of the same kind, channels in files ending in _0000{ending}, _0001{ending}, ...",
        )
    return image


def _read_image(setup: NnunetConfiguration, images: list[str]) -> np.ndarray:
    """Read, transpose and crop one image (one file per channel) as nnU-Net does: ``(C, Z, Y, X)`` float32."""
    return np.ascontiguousarray(crop_to_nonzero(_read_uncropped(setup, images))[0])


def _read_uncropped(setup: NnunetConfiguration, images: list[str]) -> np.ndarray:
    data, _ = setup.plans.image_reader_writer_class().read_images(images)
    return setup.transposed(np.asarray(data, dtype=np.float32))
