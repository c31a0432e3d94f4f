"""The names of the read-outs, apart from the code: the commands' help lists them and must not wait for torch."""

from __future__ import annotations

READOUTS = ("raw", "local_affine", "difference", "frequency", "decoder", "pair", "combined")
"""``raw``: the decoder's picture, its change carried to other sizes. ``local_affine``: the same, always through
the guided filter. ``difference``: what ``D_B``'s picture has beyond ``D_A``'s own round trip, added to the image, so
that the error both share cancels. ``frequency``: the low frequencies alone of the decoder's change. ``decoder``,
``pair``: one map pooled over decoded source images, or fitted to the style pair. ``combined``: the mean of those
two maps."""

DECODED = ("raw", "local_affine", "difference", "frequency")
"""Those that run the networks on every image; the others are one colour map."""
