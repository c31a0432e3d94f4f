"""The names of the read-outs, apart from the code: the commands' help lists them and must not wait for torch."""

from __future__ import annotations

READOUTS = (
    "raw", "local_affine", "difference", "frequency",
    "decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", "student",
)  # fmt: skip
"""``raw``: the decoder's picture, its change carried to other sizes. ``local_affine``: the same, always through
the guided filter. ``difference``: what ``D_B``'s picture has beyond ``D_A``'s own round trip, added to the image, so
that the error both share cancels. ``frequency``: the low frequencies alone of the decoder's change. ``decoder``:
one affine map pooled over decoded source images; ``decoder_bent``: with bends, and a vignette or shading. ``moments``:
pooled moment matching to the reference. ``pair``: an affine map fitted to the style pair. ``calibrator``: what the
calibrator reads from the reference. ``combined``: the mean of moments and calibrator, which err independently; the
pair's map alone where the pair was given (``--pair file``). ``student``: a small network that imitates one of the
read-outs that run the networks, in one pass (``osasis-pretrain-stylizer --distil``)."""

STUDENT = "student"

DECODED = ("raw", "local_affine", "difference", "frequency")
"""Those that run the diffusion networks on every image; the others are one colour map, but for the student."""
