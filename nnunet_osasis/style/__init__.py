"""What "style" is measured by: frozen image embedders and the losses built on them."""
