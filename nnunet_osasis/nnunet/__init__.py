"""The bridge to nnU-Net: which cases, in which units, cached where, and how training draws them."""
