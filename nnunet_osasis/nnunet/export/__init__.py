"""Trained models without this package: plain nnU-Net folders, ONNX and TorchScript."""

from nnunet_osasis.nnunet.export.files import export_networks
from nnunet_osasis.nnunet.export.model_folder import ModelFolder, find_model_folder, open_model_folder
from nnunet_osasis.nnunet.export.plain import export_plain

__all__ = ["ModelFolder", "export_networks", "export_plain", "find_model_folder", "open_model_folder"]
