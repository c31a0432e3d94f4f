"""The names of the read-outs, without torch: the commands' help lists them and must be quick."""

from __future__ import annotations

STUDENT = "student"
"""The read-out of the one-pass student."""

NETWORK_READOUTS = ("raw", "local_affine", "difference", "frequency")
"""The read-outs that run the diffusion networks on every image (``Readout.needs_networks``)."""

READOUTS = (
    *NETWORK_READOUTS, "decoder", "decoder_bent", "moments", "pair", "calibrator", "combined", STUDENT
)  # fmt: skip
"""All read-outs.

- ``raw``: the decoder's picture; its change is carried to images of other sizes.
- ``local_affine``: the same change, always carried by the guided filter.
- ``difference``: what ``D_B``'s picture has beyond ``D_A``'s own round trip, added to the image, so that the error both
  share cancels.
- ``frequency``: the low frequencies of the decoder's change.
- ``decoder``: one affine map pooled over decoded source images.
- ``decoder_bent``: the same with bends, and a vignette or shading.
- ``moments``: pooled moment matching to the reference.
- ``pair``: an affine map fitted to the style pair.
- ``calibrator``: what the calibrator reads from the reference.
- ``combined``: the mean of moments and calibrator, which err independently; the pair's map alone where the pair was
  given (``--pair file``).
- ``student``: a small network that imitates one of the read-outs that run the networks, in one pass
  (``osasis-pretrain-stylizer --distil``).
"""


FIRST_STAGE = ("moments", "calibrator", "combined")
"""Read-outs that a stylizer has before its networks are trained (``osasis-pretrain-stylizer --stop-after maps``)."""


def needs_networks(readout: str) -> bool:
    """Whether a read-out runs the diffusion networks on every image (``Readout.needs_networks``, without torch)."""
    return readout in NETWORK_READOUTS


def is_map(readout: str) -> bool:
    """Whether a read-out is a map of values, which is one pass by itself."""
    return readout not in (STUDENT, *NETWORK_READOUTS)
