"""Keep the import path that the documents showed first; the code is in ``nnunet_osasis.synthetic.acquisition``."""

from nnunet_osasis.synthetic.acquisition import FAMILIES, AcquisitionFamily, family_for, register

__all__ = ["FAMILIES", "AcquisitionFamily", "family_for", "register"]
