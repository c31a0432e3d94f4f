"""Segmentation networks: PraNet with its structure loss, and UNet++; logits in every case, any channels, any size."""

from nnunet_osasis.networks.pranet import PraNet
from nnunet_osasis.networks.structure_loss import StructureLoss
from nnunet_osasis.networks.unet_plus_plus import UNetPlusPlus

__all__ = ["PraNet", "StructureLoss", "UNetPlusPlus"]
