"""The networks of a stylizer, each read when a read-out first needs it.

A stylizer whose read-out is a map needs none of them. So the classes, and diffusers below them, are imported inside the
functions that build a network.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.runtime.compute import as_usual
from nnunet_osasis.runtime.storage import load_tensors, sha256_of_array, sha256_of_file, sha256_of_json
from nnunet_osasis.stylizer.checks import check_network_config, check_network_fits, require_finite_weights
from nnunet_osasis.stylizer.names import NETWORK_READOUTS, STUDENT, needs_networks
from nnunet_osasis.stylizer.weights import TYPE, check_weights, check_weights_file

DIFFUSION = ("autoencoder", "decoder", "spn")
"""The networks that the read-outs of ``NETWORK_READOUTS`` run."""

NETWORKS = (*DIFFUSION, "calibrator", "student")
"""All networks a stylizer may hold; each is a subfolder of its folder."""

UNTRAINED = (
    "Run osasis-pretrain-stylizer ... --resume, which goes on to the networks, or use a read-out that is a map, "
    "such as combined."
)
"""Remedy for a network that is not trained yet."""

TYPES = {torch.float32: TYPE}
"""Names of the types that weights may have, as safetensors names them."""

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"


def files_of(name: str) -> tuple[str, ...]:
    """The files of one network, relative to the stylizer's folder; ``D_B`` has the configuration of ``D_A``."""
    return (f"{name}/{WEIGHTS}",) if name == "decoder" else (f"{name}/{CONFIG}", f"{name}/{WEIGHTS}")


def networks_of(readout: str) -> tuple[str, ...]:
    """The networks that a read-out runs on every image."""
    if readout == STUDENT:
        return (STUDENT,)
    return DIFFUSION if needs_networks(readout) else ()


def weights_digest(*networks: nn.Module) -> str:
    """SHA-256 (hex) of all weights."""
    digests = [
        sha256_of_array(value.cpu().numpy())
        for network in networks
        for _, value in sorted(network.state_dict().items())
    ]
    return sha256_of_json({"weights": digests})


@dataclass(frozen=True)
class StoredNetwork:
    """A network that is not built yet.

    Attributes:
        name: one of ``NETWORKS``.
        config: reads the constructor's arguments.
        tensors: reads the weights.
        channels: image channels that the network must have been made for.
    """

    name: str
    config: Callable[[], Mapping[str, Any]]
    tensors: Callable[[], Mapping[str, torch.Tensor]]
    channels: int

    def build(self) -> nn.Module:
        """The network on the CPU. Raises ``OsasisError`` when its parts do not fit together."""
        try:
            config = self.config()
            check_network_fits(self.name, config, self.channels)
            kind = _class_of(self.name)
            with torch.device("meta"):  # a shape that does not fit is found before memory is taken for it
                network = kind(**config)
                network = network.make_unet() if self.name == "decoder" else network
            # copies: the memory of a mapped file is aligned otherwise, and sums would be taken in another order
            stored = self.tensors()
            found = {
                key: (TYPES.get(value.dtype, str(value.dtype)), tuple(value.shape)) for key, value in stored.items()
            }
            check_weights(self.name, config, found, f"the stylizer's {self.name}")
            weights = {key: value.clone() for key, value in stored.items()}
            network.load_state_dict(weights, assign=True)
        except OsasisError:
            raise
        except (LookupError, TypeError, AttributeError, ArithmeticError, OSError, RuntimeError, ValueError) as error:
            raise _misfit(self.name, error) from error
        require_finite_weights(network)
        return network


class Networks:
    """The networks a stylizer holds, by name; copies of a stylizer share them.

    Args:
        parts: networks, or what they are built from at first use; None leaves a name out.
        device: where networks go when they are built; None is the CPU.
        remedy: what a user can do about a network that is not there.
    """

    def __init__(
        self,
        parts: Mapping[str, nn.Module | StoredNetwork | None],
        device: torch.device | None = None,
        *,
        remedy: str = UNTRAINED,
    ) -> None:
        self._parts = {name: parts[name] for name in NETWORKS if parts.get(name) is not None}
        self._built: dict[str, nn.Module] = {}
        self._device = torch.device("cpu") if device is None else device
        self._remedy = remedy
        for part in self.loaded():
            _freeze(part)

    def __contains__(self, name: str) -> bool:
        return name in self._parts

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __getitem__(self, name: str) -> nn.Module:
        """The network, built if it was not. Raises ``OsasisError`` when the stylizer has none of this name."""
        part = self._parts.get(name)
        if part is None:
            raise OsasisError(
                f"The read-outs {', '.join(NETWORK_READOUTS)} need the diffusion networks",
                found=f"a stylizer without {name}",
                remedy=self._remedy,
            )
        if isinstance(part, StoredNetwork):
            device = self.device
            with as_usual():  # weights made in inference mode could never be trained again
                built = _freeze(part.build()).to(device)
            # Threads that come here together build equal networks; setdefault is atomic, so all get the same one.
            part = self._parts[name] = self._built.setdefault(name, built)
        return part

    def get(self, name: str) -> nn.Module | None:
        """The network, None when the stylizer has none of this name."""
        return self[name] if name in self._parts else None

    @property
    def device(self) -> torch.device:
        """Where the networks are, or where they are going to be."""
        for network in self.loaded():
            for parameter in network.parameters():
                return parameter.device
        return self._device

    def loaded(self) -> list[nn.Module]:
        """The networks that are in memory."""
        return [part for part in self._parts.values() if isinstance(part, nn.Module)]

    def config(self, name: str) -> dict[str, Any]:
        """The constructor's arguments of a network, which need not be built for that."""
        part = self._parts[name]
        values = part.config() if isinstance(part, StoredNetwork) else part.config  # type: ignore[union-attr]
        return {key: value for key, value in dict(values).items() if not key.startswith("_")}  # type: ignore[arg-type]

    def changed(self, name: str, network: nn.Module | None) -> Networks:
        """A copy with another network of this name, or without one."""
        return Networks({**self._parts, name: network}, self._device, remedy=self._remedy)

    def to(self, device: str | torch.device) -> None:
        """Move the networks, those that are not built yet when they are."""
        self._device = torch.device(device)
        for network in self.loaded():
            network.to(device)


def stored_networks(folder: Path, sha256: Mapping[str, Any], channels: int) -> Networks:
    """The networks that the index of a folder lists, unread; each file is checked when it is.

    Args:
        folder: the stylizer's folder.
        sha256: SHA-256 (hex) of every file by its name, from the index.
        channels: image channels of the reference.
    """
    parts = {}
    for name in NETWORKS:
        if any(file in sha256 for file in files_of(name)):
            configured = "autoencoder" if name == "decoder" else name
            parts[name] = StoredNetwork(
                name, partial(_read_config, folder, configured, sha256), partial(_read_tensors, folder, name, sha256),
                channels,
            )  # fmt: skip
            _check_header(folder, name, configured, sha256)
    return Networks(parts)


def _check_header(folder: Path, name: str, configured: str, sha256: Mapping[str, Any]) -> None:
    """Compare names, types and shapes of a network's weights with its configuration; the weights stay unread."""
    path, weights = check_file(folder, f"{configured}/{CONFIG}", sha256), folder / name / WEIGHTS
    if not weights.is_file():
        raise _incomplete(folder, f"{name}/{WEIGHTS}")
    try:
        check_weights_file(name, check_network_config(path), weights)
    except OsasisError:
        raise
    except (LookupError, TypeError, AttributeError, ArithmeticError, ValueError) as error:
        raise _misfit(name, error) from error


def check_file(folder: Path, name: str, sha256: Mapping[str, Any]) -> Path:
    """The path of a stylizer's file. Raises ``OsasisError`` when it is missing or does not fit its checksum."""
    path = folder / name
    if not path.is_file():
        raise _incomplete(folder, name)
    if sha256_of_file(path) != sha256.get(name):
        raise OsasisError(
            "A stylizer's files must be the ones it was saved with",
            found=f"another checksum for {path}",
            remedy="The file is truncated, damaged or foreign: copy the folder again or make it anew.",
        )
    return path


def _incomplete(folder: Path, name: str) -> OsasisError:
    return OsasisError("A stylizer must be complete", found=f"{name} missing in {folder}", remedy="Copy it again.")


def _misfit(name: str, error: Exception) -> OsasisError:
    found = f"{type(error).__name__}: {' '.join(str(error).split()):.300}"  # torch lists every weight
    return OsasisError(
        f"The parts of a stylizer's {name} must fit together", found=found, remedy="Make the stylizer anew."
    )


def _read_config(folder: Path, name: str, sha256: Mapping[str, Any]) -> Mapping[str, Any]:
    path = check_file(folder, f"{name}/{CONFIG}", sha256)
    return check_network_config(path, set(inspect.signature(_class_of(name).__init__).parameters) - {"self"})


def _read_tensors(folder: Path, name: str, sha256: Mapping[str, Any]) -> Mapping[str, torch.Tensor]:
    path = check_file(folder, f"{name}/{WEIGHTS}", sha256)
    stray = [other.name for other in path.parent.iterdir() if f"{name}/{other.name}" not in files_of(name)]
    if stray:
        raise OsasisError("A network's folder holds its own files only", found=f"{stray[0]} in {path.parent}",
                          remedy="Remove it.")  # fmt: skip
    return load_tensors(path, what=f"The stylizer's {name}")


def _class_of(name: str) -> Any:
    if name == "spn":
        from nnunet_osasis.diffusion.spn import StructurePreservingNetwork

        return StructurePreservingNetwork
    if name == "calibrator":
        from nnunet_osasis.stylizer.calibrator import Calibrator

        return Calibrator
    if name == "student":
        from nnunet_osasis.stylizer.student import Student

        return Student
    from nnunet_osasis.diffusion.autoencoder import DiffusionAutoencoder

    return DiffusionAutoencoder


def _freeze(network: nn.Module) -> nn.Module:
    return network.eval().requires_grad_(False)
