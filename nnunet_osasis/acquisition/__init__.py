"""Random acquisition models: how another camera or scanner might have shown the same scene.

>>> sorted(FAMILIES)
['camera', 'scanner']
"""

from nnunet_osasis.acquisition.base import FAMILIES, AcquisitionFamily, Parameters, family_for, register
from nnunet_osasis.acquisition.camera import CameraFamily
from nnunet_osasis.acquisition.scanner import ScannerFamily

__all__ = [
    "FAMILIES",
    "AcquisitionFamily",
    "CameraFamily",
    "Parameters",
    "ScannerFamily",
    "family_for",
    "register",
]
