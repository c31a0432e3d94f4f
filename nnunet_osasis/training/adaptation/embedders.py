"""Style embedders: frozen maps from images to vectors, in which the directional losses are taken.

``clip`` is open_clip's image tower, from a local folder or the user's cache, never downloaded. ``semantic`` works
everywhere: the pretrained semantic encoder's ``z`` and the statistics of its feature maps.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

import torch
from torch import nn
from torch.nn import functional as F

from nnunet_osasis.diffusion.autoencoder import SemanticEncoder
from nnunet_osasis.errors import OsasisError

logger = logging.getLogger(__name__)


class StyleEmbedder(Protocol):
    """A frozen embedder; gradients flow to the images, not to its weights."""

    name: str

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images ``(B, C, H, W)`` in [-1, 1] to embeddings ``(B, E)``."""
        ...

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Feature maps for the perceptual term, each ``(B, F, h, w)`` with unit norm over channels."""
        ...

    def with_features(self, images: torch.Tensor, featured: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Return the embeddings of all images and the feature maps of the first ``featured``, in one pass."""
        ...


def _unit(maps: list[torch.Tensor]) -> list[torch.Tensor]:
    return [F.normalize(m, dim=1) for m in maps]


class SemanticEmbedder(nn.Module):
    """``[z, per-level channel means, per-level channel deviations]`` of the frozen semantic encoder.

    Each part is divided by its typical size on ``calibration`` images, so that no level drowns the others.
    """

    name = "semantic"

    def __init__(self, encoder: SemanticEncoder, calibration: torch.Tensor) -> None:
        super().__init__()
        self.encoder = encoder
        self.scales: list[torch.Tensor] = []
        with torch.no_grad():
            parts = self._parts(*encoder.features(calibration))
        self.scales = [p.std(dim=0).mean().clamp(min=1e-6) * p.shape[1] ** 0.5 for p in parts]

    @staticmethod
    def _parts(z: torch.Tensor, maps: list[torch.Tensor]) -> list[torch.Tensor]:
        return [z] + [stat for m in maps for stat in (m.mean(dim=(2, 3)), m.flatten(2).std(dim=2))]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.with_features(images, 0)[0]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return _unit(self.encoder.features(images)[1])

    def with_features(self, images: torch.Tensor, featured: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        z, maps = self.encoder.features(images)
        scaled = [p / s for p, s in zip(self._parts(z, maps), self.scales, strict=True)]
        return torch.cat(scaled, dim=1), _unit([m[:featured] for m in maps]) if featured else []


class ClipEmbedder(nn.Module):
    """open_clip's image tower with its own size and normalization; gray images are repeated to three channels.

    The perceptual term comes from the semantic encoder: CLIP has no spatial maps to speak of at this size.
    """

    name = "clip"

    def __init__(
        self, model: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: int, encoder: SemanticEncoder
    ):
        super().__init__()
        self.model, self.size, self.encoder = model.eval().requires_grad_(False), size, encoder
        self.register_buffer("mean", torch.tensor(mean)[None, :, None, None])
        self.register_buffer("std", torch.tensor(std)[None, :, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] == 1:
            images = images.expand(-1, 3, -1, -1)
        pixels = F.interpolate((images + 1) / 2, (self.size, self.size), mode="bicubic", antialias=True)
        return self.model.encode_image((pixels.clamp(0, 1) - self.mean) / self.std, normalize=True)  # type: ignore[operator]

    def features(self, images: torch.Tensor) -> list[torch.Tensor]:
        return _unit(self.encoder.features(images)[1])

    def with_features(self, images: torch.Tensor, featured: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        return self(images), self.features(images[:featured]) if featured else []


def _cached_weights(name: str, tag: str) -> str | None:
    """Return the file of ``MODEL:TAG`` if open_clip or the hub library cached it; never uses the network."""
    import open_clip
    from huggingface_hub import try_to_load_from_cache

    config = open_clip.pretrained.get_pretrained_cfg(name, tag)
    if not config:
        raise OsasisError(
            "A CLIP model must be a folder or a MODEL:TAG that open_clip knows",
            found=f"{name}:{tag}",
            remedy="For instance --clip ViT-B-32-quickgelu:openai; python -c 'import open_clip; "
            "print(open_clip.list_pretrained())' lists them.",
        )
    if config.get("hf_hub"):
        repository, _, given = config["hf_hub"].rpartition("/")
        for filename in [given] if given else ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"]:
            found = try_to_load_from_cache(repository, filename)
            if isinstance(found, str):
                return found
    plain = Path.home() / ".cache" / "clip" / Path(config.get("url") or "none").name
    return str(plain) if plain.is_file() else None


def load_clip(source: str | Path, encoder: SemanticEncoder) -> ClipEmbedder:
    """Load an open_clip image tower without the network.

    Args:
        encoder: the semantic encoder, for the perceptual term.
        source: a local folder with ``open_clip_config.json`` and weights (open_clip's ``local-dir``), or
            ``MODEL:TAG`` already in the user's cache, for instance ``ViT-B-32-quickgelu:openai``.

    Raises:
        OsasisError: it is not there, or the folder is incomplete.
    """
    import open_clip

    try:
        if Path(source).is_dir():
            model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{Path(source).resolve()}")
        else:
            name, _, tag = str(source).partition(":")
            weights = _cached_weights(name, tag)
            if weights is None:
                raise FileNotFoundError("it is not in the cache")
            model, preprocess = open_clip.create_model_from_pretrained(name, pretrained=weights)
    except (OSError, RuntimeError, KeyError) as error:
        raise OsasisError(
            "The CLIP weights must be on this machine (nothing is downloaded)",
            found=f"{str(error).splitlines()[0]} for {source}",
            remedy="Give a folder saved by open_clip with --clip DIR, or leave --clip out to use the semantic encoder.",
        ) from error
    normalize = preprocess.transforms[-1]
    size = model.visual.image_size
    side = size[0] if isinstance(size, tuple) else size
    return ClipEmbedder(model, tuple(normalize.mean), tuple(normalize.std), side, encoder)


def make_embedder(clip: str | None, encoder: SemanticEncoder, calibration: torch.Tensor) -> StyleEmbedder:
    """Make the embedder of the adaptation: CLIP if ``clip`` names one, else the semantic encoder (logged)."""
    if clip is not None:
        if calibration.shape[1] not in (1, 3):
            raise OsasisError(
                "CLIP needs images of 1 or 3 channels",
                found=calibration.shape[1],
                remedy="Leave --clip out to use the semantic encoder.",
            )
        return load_clip(clip, encoder).to(calibration.device)
    logger.info("Style embedder: the pretrained semantic encoder (no CLIP weights given with --clip).")
    return SemanticEmbedder(encoder, calibration)
