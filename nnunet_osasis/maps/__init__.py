"""Color and tone maps as torch modules, and what they need: fields of view, local affine maps, detail."""

from nnunet_osasis.maps.base import MAPS, MeanMap, PixelMap, blend, map_from_json
from nnunet_osasis.maps.moments import MomentMap
from nnunet_osasis.maps.parametric import ParametricMap

__all__ = ["MAPS", "MeanMap", "MomentMap", "ParametricMap", "PixelMap", "blend", "map_from_json"]
