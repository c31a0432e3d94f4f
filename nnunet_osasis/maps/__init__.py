"""Color and tone maps, and what they need: fields of view, local affine maps, detail."""
