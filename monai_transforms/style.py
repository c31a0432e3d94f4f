"""The array transforms for any style transfer: ``StyleTransform`` and ``RandStyleTransform``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
import torch
from monai.config.type_definitions import NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms.transform import RandomizableTransform, Transform
from monai.utils.enums import TransformBackends
from monai.utils.type_conversion import convert_to_dst_type, convert_to_numpy

from monai_transforms.layout import arrange, check_axes, check_axis, permutation
from nnunet_osasis.controls import RandomControl
from nnunet_osasis.errors import OsasisError
from nnunet_osasis.images.image import to_dtype
from nnunet_osasis.transfer import StyleTransfer, check_strength, is_number


class StyleTransform(Transform):
    """Change a channel-first image ``(C, H, W)`` or volume ``(C, H, W, D)`` in native units by a style transfer.

    Deterministic, hence cached by MONAI's datasets; the pickle holds the transfer, so that with
    ``hash_transform=pickle_hashing`` another transfer is another cache entry. Kind, dtype, device and MetaTensor
    metadata of the input are kept. Neither lazy nor invertible.

    Args:
        transfer: any ``nnunet_osasis.transfer.StyleTransfer``, such as those of ``nnunet_osasis.controls``.
        strength: in [0, 1]; None takes the transfer's own.
        slice_axis: as in :py:class:`monai_transforms.OSASISStylize`.
        axes: as in :py:class:`monai_transforms.OSASISStylize`.
        batched: as in :py:class:`monai_transforms.OSASISStylize`.

    Raises:
        OsasisError: no style transfer, unknown options; on use: what the transfer refuses, boolean images, a batch
            without ``batched``.
    """

    backend = [TransformBackends.TORCH, TransformBackends.NUMPY]  # noqa: RUF012 (MONAI's own form)

    def __init__(
        self,
        transfer: StyleTransfer,
        strength: float | None = None,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        batched: bool = False,
    ) -> None:
        if isinstance(transfer, type) or not isinstance(transfer, StyleTransfer):
            raise OsasisError(
                "transfer= takes a style transfer",
                found=type(transfer).__name__,
                remedy="Give an object of nnunet_osasis.controls, or use OSASISStylize for a stylizer's folder.",
            )
        self.transfer = transfer
        self._set_options(strength, slice_axis, axes, batched)

    def _set_options(self, strength: float | None, slice_axis: int | str, axes: str, batched: bool) -> None:
        self.strength = strength if strength is None else check_strength(strength)
        if not isinstance(batched, bool):
            raise OsasisError(
                "batched must be True or False", found=f"{batched!r:.60}", remedy="True for (B, C, H, W[, D])."
            )
        self.slice_axis, self.axes, self.batched = check_axis(slice_axis), check_axes(axes), batched

    @property
    def draws(self) -> bool:
        """Whether the transfer itself can be drawn afresh."""
        return isinstance(self.transfer, RandomControl)

    def _default_strength(self) -> float | None:
        return self.strength

    def check(self, img: NdarrayOrTensor) -> None:
        """Refuse what the transfer could not restyle, for random transforms that leave an image as it is."""

    def _restyle(
        self,
        arrays: list[np.ndarray],
        strengths: list[float | None],
        seeds: Sequence[int] | None,
        names: Sequence[str],
        stored: Callable[[np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Images ``(C, H, W)`` or volumes ``(C, D, H, W)``, native units; ``seeds`` for a transfer that draws.

        ``stored`` turns a result into what is handed out of it.
        """
        if seeds is not None and isinstance(self.transfer, RandomControl):
            return [
                self.transfer.augment(array, np.random.default_rng(seed), strength=strength)
                for array, strength, seed in zip(arrays, strengths, seeds, strict=True)
            ]
        return [self.transfer.stylize_array(a, strength=s) for a, s in zip(arrays, strengths, strict=True)]

    def __call__(
        self,
        img: NdarrayOrTensor,
        strength: float | Sequence[float] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Any:
        """Restyle an image.

        Args:
            img: the image, or a batch of them.
            strength: overrides the constructor's; one number, or one per sample.
            seeds: one per sample, for a transfer that draws.

        Returns:
            Same shape, dtype and kind as ``img``.
        """
        strength = self._default_strength() if strength is None else strength
        array = self._as_numpy(img)
        samples = list(array) if self.batched else [array]
        several = isinstance(strength, Sequence) and not isinstance(strength, str)
        amounts: Sequence[Any] = strength if several else [strength] * len(samples)  # type: ignore[assignment]
        _check_counts(len(samples), amounts, seeds)
        strengths = [None if amount is None else check_strength(amount) for amount in amounts]
        orders = [
            permutation(img, sample.shape[1:], self.axes, self.slice_axis, i) if sample.ndim in (3, 4) else ()
            for i, sample in enumerate(samples)
        ]
        arranged = [arrange(sample, order) if order else sample for sample, order in zip(samples, orders, strict=True)]
        coarse = isinstance(img, torch.Tensor) and img.dtype == torch.bfloat16
        stored = partial(_stored, dtype=array.dtype, coarse=coarse)
        restyled = self._restyle(arranged, strengths, seeds, file_names(img, len(samples)), stored)
        results = []
        for sample, image, order, amount in zip(samples, restyled, orders, strengths, strict=True):
            if amount == 0:
                results.append(sample.copy())
            else:
                results.append(to_dtype(arrange(image, np.argsort(order).tolist()), array.dtype))
        result = torch.from_numpy(np.stack(results) if self.batched else results[0])
        return convert_to_dst_type(result, img, dtype=img.dtype)[0]

    def _as_numpy(self, img: NdarrayOrTensor) -> np.ndarray:
        if not isinstance(img, np.ndarray | torch.Tensor) or img.ndim < 1:
            raise OsasisError(
                "An image must be an array or a tensor", found=type(img).__name__, remedy="Load it first."
            )
        if isinstance(img, np.ma.MaskedArray):  # MONAI would drop the mask
            raise OsasisError("An image must be a plain array", found="a masked one", remedy="Use array.filled(value).")
        if isinstance(img, torch.Tensor) and (img.layout != torch.strided or img.device.type == "meta"):
            raise OsasisError(
                "A tensor must hold its values",
                found=f"{img.layout} on {img.device}",
                remedy="Give a dense tensor on a device.",
            )
        if isinstance(img, MetaTensor) and img.is_batch and not self.batched:
            raise OsasisError(
                "The transform takes one sample at a time",
                found=f"a batch {tuple(img.shape)}",
                remedy="Say batched=True.",
            )
        if len(img) == 0 and self.batched:
            raise OsasisError("A batch must hold samples", found=f"shape {tuple(img.shape)}", remedy="Skip empty ones.")
        if isinstance(img, torch.Tensor) and img.dtype == torch.bfloat16:  # numpy has no such type
            img = img.float()
        array = np.asarray(convert_to_numpy(img))
        if array.dtype == bool:
            raise OsasisError(
                "An image must hold intensities", found="dtype bool", remedy="Leave labels out of the keys."
            )
        if array.dtype.kind not in "uif" or array.dtype.itemsize > 8:
            raise OsasisError(
                "An image must hold numbers of 64 bits at most", found=f"dtype {array.dtype}", remedy="Use float32."
            )
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def _stored(image: np.ndarray, dtype: np.dtype, coarse: bool) -> np.ndarray:
    """What is handed out of a result: cast to ``dtype``, and as exact as bfloat16 if ``coarse``."""
    exact = to_dtype(image, dtype)
    return torch.from_numpy(exact).to(torch.bfloat16).float().numpy() if coarse else exact


def file_names(img: NdarrayOrTensor, count: int) -> list[str]:
    """The files that the samples of a MetaTensor were read from; empty without such an entry."""
    source = img.meta.get("filename_or_obj", "") if isinstance(img, MetaTensor) else ""
    names = [str(name) for name in source] if isinstance(source, list | tuple) else [str(source)]
    return names if len(names) == count else [""] * count


def _check_counts(samples: int, strengths: Sequence[float | None], seeds: Sequence[int] | None) -> None:
    """Raise ``OsasisError`` unless there is one strength, and if any one seed, for every sample."""
    if len(strengths) != samples or (seeds is not None and len(seeds) != samples):
        raise OsasisError(
            "Every sample needs a strength (and a seed)",
            found=f"{len(strengths)} for {samples}",
            remedy="Give one number, or one per sample.",
        )
    if seeds is not None and not all(isinstance(seed, Integral) and seed >= 0 for seed in seeds):
        raise OsasisError(
            "Seeds must be whole numbers of at least 0",
            found=f"{list(seeds)!r:.60}",
            remedy="Give one such number per sample.",
        )


class RandStyle(RandomizableTransform):
    """What the random transforms share: ``stylize`` with probability ``prob``, at a random strength."""

    backend = StyleTransform.backend

    def __init__(self, stylize: StyleTransform, prob: float, strength: float | tuple[float, float]) -> None:
        if not is_number(prob) or not 0 <= prob <= 1:
            raise OsasisError("prob must lie in [0, 1]", found=prob, remedy="0.5 restyles every other image.")
        super().__init__(prob)
        limits = strength if isinstance(strength, Sequence) else (strength, strength)
        if len(limits) != 2:
            raise OsasisError(
                "A strength is one number, or an interval", found=f"{strength!r:.60}", remedy="Give 0.5, or (0.5, 1.0)."
            )
        low, high = limits
        if check_strength(low) > check_strength(high):
            raise OsasisError("The strength's interval must rise", found=strength, remedy="Give (lowest, highest).")
        self.interval = (float(low), float(high))
        self.stylize = stylize
        self.strengths: list[float] = []
        self.seeds: list[int] | None = None

    def randomize(self, data: Any | None = None) -> None:
        """Draw whether, how strongly and, if the transfer draws, how; for a batch ``data``, once per sample."""
        count = len(data) if self.stylize.batched and data is not None else 1
        self.strengths = []
        for _ in range(count):
            super().randomize(None)
            self.strengths.append(float(self.R.uniform(*self.interval)) if self._do_transform else 0.0)
        self._do_transform: bool = any(self.strengths)
        self.seeds = self.R.randint(2**31, size=count).tolist() if self.stylize.draws else None

    def __call__(self, img: NdarrayOrTensor, randomize: bool = True) -> Any:
        """Same shape, dtype and kind as ``img``; ``randomize=False`` repeats the last draw."""
        if randomize:
            self.randomize(img)
        if not self.strengths:
            raise OsasisError(
                "There must be a draw to repeat", found="randomize=False at first use", remedy="Call randomize() first."
            )
        if self.interval[1] > 0 and not all(self.strengths):
            self.stylize.check(img)  # wrong units are found at the first image, whatever was drawn for it
        return self.stylize(img, strength=self.strengths, seeds=self.seeds) if self._do_transform else img


class RandStyleTransform(RandStyle):
    """Change an image by a style transfer with probability ``prob``; the random controls are drawn afresh each time.

    Args:
        transfer: as in :py:class:`StyleTransform`.
        prob: probability in [0, 1].
        strength: a number, or the interval to draw from uniformly.
        slice_axis: as in :py:class:`StyleTransform`.
        axes: as in :py:class:`StyleTransform`.
        batched: as in :py:class:`StyleTransform`; every sample has its own draw.

    Raises:
        OsasisError: as :py:class:`StyleTransform`; a probability outside [0, 1]; an interval that falls.
    """

    def __init__(
        self,
        transfer: StyleTransfer,
        prob: float = 0.5,
        strength: float | tuple[float, float] = 1.0,
        slice_axis: int | str = "auto",
        axes: str = "auto",
        batched: bool = False,
    ) -> None:
        super().__init__(StyleTransform(transfer, None, slice_axis, axes, batched), prob, strength)
