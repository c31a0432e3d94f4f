"""Names and shapes of the weights of every network, from its configuration alone.

A file of weights is compared with them when a stylizer is read, by its header: neither the weights nor diffusers
(seconds of import) are needed for that. ``tests/stylizer/test_weights.py`` compares them with the networks themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.maps.parametric import feature_count

Config = Mapping[str, Any]

Weights = Iterator[tuple[str, tuple[int, ...]]]
"""Names and shapes, one by one: a configuration of absurd size is found out at its first missing name."""

TYPE = "F32"
"""The type of all weights, as safetensors names it."""

SINUSOIDS = 128
"""Width of the time's sinusoids in the structure-preserving network."""


def expected_weights(name: str, config: Config) -> Weights:
    """Yield the name and the shape of every tensor of one network of a stylizer.

    Args:
        name: ``autoencoder``, ``decoder`` (which has the autoencoder's configuration), ``spn``, ``calibrator`` or
            ``student``.
        config: the constructor's arguments. Raises ``KeyError`` or ``TypeError`` for an incomplete one.
    """
    return _NETWORKS[name](config)


def check_weights(
    name: str, config: Config, found: Mapping[str, tuple[str, tuple[int, ...]]], where: Path | str
) -> None:
    """Raise ``OsasisError`` naming the tensor unless a network's tensors are all there, and no others.

    Args:
        name: the network, as in ``expected_weights``.
        config: its configuration.
        found: type (as safetensors names it) and shape of every tensor, by name.
        where: the file, for the message.
    """
    rest = dict(found)
    for key, shape in expected_weights(name, config):
        known = rest.pop(key, None)
        if known != (TYPE, shape):
            is_ = "none" if known is None else f"{known[0]} {known[1]}"
            raise _misfit(name, f"{is_} for {key} {TYPE} {shape} in {where}")
    if rest:
        raise _misfit(name, f"{min(rest):.120}, which this network does not have, in {where}")


def check_weights_file(name: str, config: Config, path: Path) -> None:
    """``check_weights`` by the header of a safetensors file; also raises ``OsasisError`` for a damaged header."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "np") as file:
            parts = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 (no mapping)
            found = {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in parts.items()}
    except (SafetensorError, OSError) as error:
        raise _misfit(name, f"{error} in {path}") from error
    check_weights(name, config, found, path)


def _misfit(name: str, found: str) -> OsasisError:
    return OsasisError(
        f"A stylizer's {name} must have the weights of its configuration",
        found=found,
        remedy="The file is damaged or foreign: copy the folder again or make the stylizer anew.",
    )


def _layer(name: str, *shape: int) -> Weights:
    """A layer with a bias: a normalization ``(C)``, a linear layer ``(out, in)`` or a convolution."""
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def _attention(name: str, width: int) -> Weights:
    yield from _layer(f"{name}.group_norm", width)
    for part in ("to_q", "to_k", "to_v", "to_out.0"):
        yield from _layer(f"{name}.{part}", width, width)


def _autoencoder(config: Config) -> Weights:
    for key, shape in _semantic_encoder(config):
        yield f"semantic_encoder.{key}", shape
    for key, shape in _unet(config):
        yield f"unet.{key}", shape


def _semantic_encoder(config: Config) -> Weights:
    def block(name: str, start: int, end: int) -> Weights:
        yield from _layer(f"{name}.norm", start)
        yield from _layer(f"{name}.conv", end, start, 3, 3)
        if start != end:
            yield from _layer(f"{name}.skip", end, start, 1, 1)

    widths = config["encoder_block_out_channels"]
    width = widths[0]
    yield from _layer("conv_in", width, config["in_channels"], 3, 3)
    for level, out in enumerate(widths):
        place = 0
        for _ in range(config["layers_per_block"]):
            yield from block(f"levels.{level}.{place}", width, out)
            width, place = out, place + 1
            if config["sample_size"] // 2**level in config["attention_sizes"]:
                yield from _attention(f"levels.{level}.{place}", width)
                place += 1
        if level < len(widths) - 1:
            yield from block(f"levels.{level}.{place}", width, width)
    yield from block("middle.0", width, width)
    yield from _attention("middle.1", width)
    yield from block("middle.2", width, width)
    yield from _layer("norm_out", width)
    yield from _layer("conv_out", config["z_dim"], width, 1, 1)


def _unet(config: Config) -> Weights:
    """The weights of diffusers' ``UNet2DModel`` with exact AdaGN, as ``ConditionalUNet`` names them."""
    time, code, widths = config["time_dim"], config["z_dim"], list(config["block_out_channels"])
    attends = [config["sample_size"] // 2**level in config["attention_sizes"] for level in range(len(widths))]

    def residual(name: str, start: int, end: int) -> Weights:
        yield from _layer(f"{name}.norm1", start)
        yield from _layer(f"{name}.conv1", end, start, 3, 3)
        yield from _layer(f"{name}.time_emb_proj.time", 2 * end, time)
        yield from _layer(f"{name}.time_emb_proj.z", end, code)
        yield from _layer(f"{name}.norm2", end)
        yield from _layer(f"{name}.conv2", end, end, 3, 3)
        if start != end:
            yield from _layer(f"{name}.conv_shortcut", end, start, 1, 1)

    def level_of(name: str, starts: list[int], end: int, *, attends: bool, resampler: str | None) -> Weights:
        for i, start in enumerate(starts):
            yield from residual(f"{name}.resnets.{i}", start, end)
            if attends:
                yield from _attention(f"{name}.attentions.{i}", end)
        if resampler:
            yield from residual(f"{name}.{resampler}.0", end, end)

    layers, last = config["layers_per_block"], len(widths) - 1
    yield from _layer("unet.conv_in", widths[0], config["in_channels"], 3, 3)
    yield from _layer("unet.time_embedding.inner.linear_1", time, widths[0])
    yield from _layer("unet.time_embedding.inner.linear_2", time, time)
    for level, width in enumerate(widths):
        starts = [widths[max(level - 1, 0)], *[width] * (layers - 1)]
        yield from level_of(
            f"unet.down_blocks.{level}", starts, width, attends=attends[level],
            resampler="downsamplers" if level < last else None,
        )  # fmt: skip
    for i in range(2):
        yield from residual(f"unet.mid_block.resnets.{i}", widths[-1], widths[-1])
    yield from _attention("unet.mid_block.attentions.0", widths[-1])
    before = widths[-1]
    for level, width in reversed(list(enumerate(widths))):
        skips = [width] * layers + [widths[max(level - 1, 0)]]
        starts = [skip + (width if i else before) for i, skip in enumerate(skips)]
        yield from level_of(
            f"unet.up_blocks.{last - level}", starts, width, attends=attends[level],
            resampler="upsamplers" if level > 0 else None,
        )  # fmt: skip
        before = width
    yield from _layer("unet.conv_norm_out", widths[0])
    yield from _layer("unet.conv_out", config["in_channels"], widths[0], 3, 3)


def _spn(config: Config) -> Weights:
    (narrow, wide), time, channels = config["hidden_channels"], config["time_dim"], config["in_channels"]
    yield from _layer("time_embedding.linear_1", time, SINUSOIDS)
    yield from _layer("time_embedding.linear_2", time, time)
    yield from _layer("conv_in", narrow, channels, 1, 1)
    for name, start, end in (("block1", narrow, wide), ("block2", wide, narrow)):
        yield from _layer(f"{name}.norm1", start)
        yield from _layer(f"{name}.conv1", end, start, 1, 1)
        yield from _layer(f"{name}.norm2", end)
        yield from _layer(f"{name}.time", 2 * end, time)
        yield from _layer(f"{name}.conv2", end, end, 1, 1)
    yield from _layer("conv_out", channels, narrow, 1, 1)


QUANTILES = (0.01, 0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95, 0.99)
"""Quantiles of each channel that describe an image to the calibrator."""

GROUPS = 6
"""Number of groups that the calibrator divides pixels into, by brightness."""


def description_size(channels: int) -> int:
    """Return the number ``K`` of statistics that the calibrator's ``describe`` gives."""
    return channels * (2 + len(QUANTILES) + GROUPS) + channels * (channels + 1) // 2


def _calibrator(config: Config) -> Weights:
    channels, width, hidden = config["channels"], config["width"], config["hidden"]
    known = description_size(channels)
    yield from (("mean", (known,)), ("deviation", (known,)))
    widths = [channels, width, 2 * width, 4 * width, 4 * width]
    for i, (start, end) in enumerate(pairwise(widths)):
        yield from _layer(f"look.{3 * i}", end, start, 3, 3)
        yield from _layer(f"look.{3 * i + 1}", end)
    yield from _layer("head.0", hidden, 2 * widths[-1] + known)
    yield from _layer("head.2", hidden, hidden)
    yield from _layer("head.4", 2 * channels * feature_count(channels, config["terms"]), hidden)


def _student(config: Config) -> Weights:
    channels, a = config["channels"], config["width"]
    b, c = 2 * a, 4 * a

    def residual(name: str, width: int) -> Weights:
        for norm, conv in ((0, 2), (3, 5)):
            yield from _layer(f"{name}.block.{norm}", width)
            yield from _layer(f"{name}.block.{conv}", width, width, 3, 3)

    for name in ("forth.field", "back.field"):
        yield from _layer(f"{name}.first", a, channels, 3, 3)
        for part, start, end in (("at_half", a, b), ("at_quarter", b, c), ("at_eighth", c, c)):
            yield from _layer(f"{name}.{part}.1", end, start, 3, 3)
            yield from residual(f"{name}.{part}.2", end)
        yield from _layer(f"{name}.whole.0", c, c)
        yield from _layer(f"{name}.whole.2", c, c)
        yield from residual(f"{name}.deep", c)
        for part, start, end in (("to_quarter", 2 * c, c), ("to_half", c + b, b)):
            yield from _layer(f"{name}.{part}.0", end, start, 1, 1)
            yield from residual(f"{name}.{part}.1", end)
        yield from _layer(f"{name}.last", channels * channels + channels, b, 3, 3)


_NETWORKS: dict[str, Callable[[Config], Weights]] = {
    "autoencoder": _autoencoder,
    "decoder": _unet,
    "spn": _spn,
    "calibrator": _calibrator,
    "student": _student,
}
