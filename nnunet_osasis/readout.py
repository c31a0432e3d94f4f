"""Read-outs: small parametric colour maps fitted to what the diffusion model says, applied at any size.

At small scale the decoder's raw picture is not what should be trained on: it repaints texture. The *change of
colour* it (or the style pair) implies, pooled over many images, is robust and moves no edge.
"""

from __future__ import annotations
