"""Known-truth shift: a second camera that real images are seen through, so that the true answer is known.

A stored picture is taken back to linear light, and a camera model (white balance, cross-talk, exposure, vignette,
blur, noise, tone curve, gamma, saturation, sharpening; ``phantom.camera.Camera``) takes it anew,
behind the frame and the JPEG compression that many processors add. No pixel moves, so the masks stay right.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from PIL import Image

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.synthetic.phantom.camera import Camera

SOURCE_GAMMA = 2.2
"""Exponent of the display curve that stored pictures are assumed to have."""


@dataclass(frozen=True, kw_only=True)
class KnownCamera:
    """A camera model with the frame and the compression of its processor.

    Attributes:
        camera: from light to picture.
        frame: share of the image's half diagonal beyond which pixels are black; 1 keeps all.
        jpeg_quality: 1 to 95, or None for a lossless picture.
    """

    camera: Camera
    frame: float = 1.0
    jpeg_quality: int | None = None

    def shoot(self, image: np.ndarray, *, noise_seed: int | None = None) -> np.ndarray:
        """Take the target site's picture of the scene in ``image`` ``(C, H, W)`` uint8, C 1 or 3; same shape and type.

        Without ``noise_seed`` there is neither noise nor compression: the truth that images are compared with.
        Raises ``OsasisError`` for images that are not 8 bit, or of other channel counts.
        """
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[0] not in (1, 3):
            raise OsasisError(
                "A camera takes 8-bit pictures of 1 or 3 channels", found=f"{image.dtype}, shape {image.shape}"
            )
        light = (np.moveaxis(image, 0, -1) / 255.0) ** SOURCE_GAMMA
        gray = light.shape[-1] == 1
        picture = self.camera.shoot(np.repeat(light, 3, axis=-1) if gray else light, noise_seed=noise_seed)
        if gray:
            picture = np.rint(picture.mean(axis=-1, keepdims=True)).astype(np.uint8)
        picture[~self.field_of_view(*picture.shape[:2])] = 0
        if noise_seed is not None and self.jpeg_quality is not None:
            picture = _through_jpeg(picture, self.jpeg_quality)
        return np.ascontiguousarray(np.moveaxis(picture, -1, 0))

    def field_of_view(self, height: int, width: int) -> np.ndarray:
        """Return where the frame lets light through, ``(H, W)`` bool."""
        rows, columns = np.mgrid[0:height, 0:width]
        center = (height - 1) / 2, (width - 1) / 2
        distance = np.hypot(rows - center[0], columns - center[1])
        return np.asarray(distance <= self.frame * np.hypot(*center) + 1e-9)

    def to_json(self) -> dict[str, Any]:
        """Return all parameters, JSON-ready."""
        return {**asdict(self.camera), "frame": self.frame, "jpeg_quality": self.jpeg_quality}


def random_camera(seed: int) -> KnownCamera:
    """Draw a camera from a wide but plausible family; the same seed gives the same camera.

    White-balance gains within exp(-0.45) and exp(0.45) before their mean is made 1, display gamma 0.76 to 1.35 times
    the stored curve's, vignette up to 40 % in the corners, blur up to 1.2 % of the width, noise, in half of the cameras
    a frame that cuts the corners, JPEG of quality 70 to 94.
    """
    rng = np.random.default_rng([seed, 0x05A515])
    gains = np.exp(rng.uniform(-0.45, 0.45, 3))
    camera = Camera(
        name=f"random {seed}",
        gains=tuple(float(round(g, 4)) for g in gains / gains.mean()),  # type: ignore[arg-type]
        crosstalk=round(float(rng.uniform(0.0, 0.15)), 4),
        exposure=round(float(np.exp(rng.uniform(-0.3, 0.3))), 4),
        vignette=round(float(rng.uniform(0.0, 0.4)), 4),
        blur=round(float(rng.uniform(0.0, 0.012)), 5),
        read_noise=round(float(rng.uniform(0.0, 0.004)), 5),
        shot_noise=round(float(rng.uniform(0.0, 0.015)), 5),
        shoulder=round(float(rng.uniform(0.7, 1.0)), 4),
        gamma=round(float(np.exp(rng.uniform(-0.28, 0.3))) / SOURCE_GAMMA, 4),
        contrast=round(float(rng.uniform(0.0, 0.5)), 4),
        saturation=round(float(rng.uniform(0.65, 1.2)), 4),
        enhancement=round(float(rng.uniform(0.0, 0.6)), 4),
        enhancement_radius=round(float(rng.uniform(0.005, 0.05)), 5),
    )
    frame = float(rng.choice([1.0, 0.93]))
    return KnownCamera(camera=camera, frame=frame, jpeg_quality=int(rng.integers(70, 95)))


def camera_from_json(values: Any) -> KnownCamera:
    """Make a camera from ``{"seed": 3}`` or from all parameters. Raises ``OsasisError`` for missing or unknown ones."""
    if not isinstance(values, Mapping):
        raise OsasisError("A camera must be a JSON object", found=repr(values)[:80], remedy='Such as {"seed": 1}.')
    if set(values) == {"seed"}:
        if type(values["seed"]) is not int or values["seed"] < 0:
            raise OsasisError("A camera's seed must be a whole number of at least 0", found=values["seed"])
        return random_camera(values["seed"])
    own = {key: value for key, value in values.items() if key in ("frame", "jpeg_quality")}
    rest: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items() if key not in own}
    if not isinstance(rest.get("gains", ()), tuple):
        raise OsasisError("A camera's gains must be three numbers", found=rest["gains"])
    known = {item.name for item in fields(Camera)}
    if set(rest) != known:
        raise OsasisError(
            "A camera needs its seed, or all of its parameters",
            found=f"missing {sorted(known - set(rest))}, unknown {sorted(set(rest) - known)}",
        )
    flat = [v for k, value in {**rest, **own}.items() if k != "name" for v in (value if k == "gains" else [value])]
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in flat if v is not None)
    if not numbers or len(rest["gains"]) != 3 or not isinstance(rest["name"], str):
        raise OsasisError("A camera's parameters must be numbers, gains three of them", found=dict(values))
    quality = own.get("jpeg_quality")
    if not 0 < own.get("frame", 1.0) <= 1 or (quality is not None and not 1 <= quality <= 95):
        raise OsasisError("A camera's frame must lie in (0, 1], its jpeg_quality in 1 to 95", found=own)
    return KnownCamera(camera=Camera(**rest), **own)


def _through_jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture).save(buffer, "JPEG", quality=quality)
    decoded = np.array(Image.open(buffer))
    return decoded.reshape(picture.shape)
