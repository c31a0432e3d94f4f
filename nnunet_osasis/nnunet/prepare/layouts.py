"""How public datasets lie on the disk, as data: where images and masks are, and which images belong together."""

from __future__ import annotations

from dataclasses import dataclass

PICTURE = r"\.(?:png|jpe?g|bmp|tiff?)"
"""Regular expression of a picture's suffix."""

ANYWHERE = r"(?:.*/)?"
"""Regular expression of any folders before a path."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Regular expressions over a file's path below the source folder (``/`` between folders, case ignored).

    Attributes:
        images: of images; its group ``case`` is the case's name.
        masks: of masks; its group ``case`` is the name of the image's case.
        field: of masks of the field of view, likewise; empty for datasets that have none.
        test: whether the publishers meant these cases for testing.
    """

    images: str
    masks: str
    field: str = ""
    test: bool = False


@dataclass(frozen=True, kw_only=True)
class Layout:
    """One dataset.

    Attributes:
        title: its name in full.
        arrangements: ways it is found on disks, each of one or more parts; the first that matches counts.
        foreground: what the masks show.
        terms: what its publishers allow, in brief. Read theirs before you share anything.
        sequence_starts: the first frame of every sequence, where frames are numbered in order.
        group: a regular expression whose first group is the part of a case's name that must stay together (a patient).
        group_table: a regular expression of a CSV file, its column of case names, its column of groups.
        caution: what the converter cannot know.
        threshold: the value above which foreground lies, where masks are JPEG files; None takes the converter's rules.
    """

    title: str
    arrangements: tuple[tuple[Part, ...], ...]
    foreground: str
    terms: str
    sequence_starts: tuple[int, ...] = ()
    group: str = ""
    group_table: tuple[str, str, str] | None = None
    caution: str = ""
    threshold: float | None = None


def _pair(images: str, masks: str, *, prefix: str = "", case: str = r"[^/]+?") -> tuple[Part, ...]:
    """Return one part: files of the same name in two folders, the mask's with an optional prefix."""
    return (
        Part(
            images=rf"{ANYWHERE}{images}/(?P<case>{case}){PICTURE}",
            masks=rf"{ANYWHERE}{masks}/{prefix}(?P<case>{case}){PICTURE}",
        ),
    )


PLAIN = _pair("images?", "masks?")

CLINICDB_STARTS = (
    1, 26, 51, 68, 79, 104, 127, 152, 178, 200, 206, 228, 253, 278, 298, 318, 343, 364, 384, 409, 429, 448, 467, 479,
    504, 529, 547, 572, 592,
)  # fmt: skip
"""First frames of CVC-ClinicDB's 29 sequences, as the set is commonly described; neighboring frames show one polyp.

20 of the 28 starts after frame 1 lie at the largest jumps between consecutive images; 26, 200, 228, 253, 298, 448, 529
and 547 could not be confirmed that way.
"""

NO_SEQUENCES = "Frames of one video lie in this set without a table of sequences: use it for testing, or give --groups."

LAYOUTS: dict[str, Layout] = {
    "clinicdb": Layout(
        title="CVC-ClinicDB",
        arrangements=(
            _pair("PNG/Original", "PNG/Ground Truth", case=r"\d+"),
            _pair("TIF/Original", "TIF/Ground Truth", case=r"\d+"),
            _pair("Original", "Ground Truth", case=r"\d+"),
            _pair("images?", "masks?", case=r"\d+"),
        ),
        foreground="polyp",
        terms="research and education only; no redistribution",
        sequence_starts=CLINICDB_STARTS,
    ),
    "colondb": Layout(
        title="CVC-ColonDB",
        arrangements=(
            PLAIN,
            (Part(images=rf"{ANYWHERE}(?P<case>\d+){PICTURE}", masks=rf"{ANYWHERE}p(?P<case>\d+){PICTURE}"),),
        ),
        foreground="polyp",
        terms="research",
        caution=NO_SEQUENCES,
    ),
    "etis": Layout(
        title="ETIS-LaribPolypDB",
        arrangements=(
            _pair("ETIS-LaribPolypDB", "Ground Truth", prefix="p", case=r"\d+"),
            _pair("Original", "Ground Truth", prefix="p?", case=r"\d+"),
            PLAIN,
        ),
        foreground="polyp",
        terms="research and education only",
        caution=NO_SEQUENCES,
    ),
    "kvasir": Layout(
        title="Kvasir-SEG",
        arrangements=(PLAIN,),
        foreground="polyp",
        terms="research and education",
        threshold=127,
    ),
    "isic": Layout(
        title="HAM10000 or ISIC lesion segmentation",
        arrangements=(
            (
                Part(
                    images=rf"{ANYWHERE}(?P<case>ISIC_\d+){PICTURE}",
                    masks=rf"{ANYWHERE}(?P<case>ISIC_\d+)_segmentation{PICTURE}",
                ),
            ),
            _pair("images?", "masks?", case=r"ISIC_\d+"),
        ),
        foreground="lesion",
        terms="CC BY-NC 4.0 (HAM10000); of ISIC see each image",
        group_table=(r"HAM10000_metadata[^/]*", "image_id", "lesion_id"),
        caution="HAM10000 shows many lesions more than once: keep HAM10000_metadata.csv beside the images.",
    ),
    "drive": Layout(
        title="DRIVE",
        arrangements=(
            tuple(
                Part(
                    images=rf"{ANYWHERE}{part}/images/(?P<case>\d+)_{part}{PICTURE}",
                    masks=rf"{ANYWHERE}{part}/1st_manual/(?P<case>\d+)_manual1\.(?:gif|png|tiff?)",
                    field=rf"{ANYWHERE}{part}/mask/(?P<case>\d+)_{part}_mask\.(?:gif|png|tiff?)",
                    test=part == "test",
                )
                for part in ("training", "test")
            ),
            tuple(
                Part(
                    images=rf"{ANYWHERE}images/(?P<case>\d+)_{part}{PICTURE}",
                    masks=rf"{ANYWHERE}masks/(?P<case>\d+)_{part}{PICTURE}",
                    test=part == "test",
                )
                for part in ("training", "test")
            ),
        ),
        foreground="vessel",
        terms="research; no redistribution",
    ),
    "stare": Layout(
        title="STARE",
        arrangements=(
            (
                Part(
                    images=rf"{ANYWHERE}(?P<case>im\d+)\.ppm(?:\.gz)?",
                    masks=rf"{ANYWHERE}(?P<case>im\d+)\.ah\.ppm(?:\.gz)?",
                ),
            ),
            PLAIN,
        ),
        foreground="vessel",
        terms="research",
    ),
    "chase": Layout(
        title="CHASE-DB1",
        arrangements=(
            (
                Part(
                    images=rf"{ANYWHERE}(?P<case>Image_\d+[LR]){PICTURE}",
                    masks=rf"{ANYWHERE}(?P<case>Image_\d+[LR])_1stHO{PICTURE}",
                ),
            ),
        ),
        foreground="vessel",
        terms="CC BY 4.0",
        group=r"Image_(\d+)",  # both eyes of a child
    ),
}
