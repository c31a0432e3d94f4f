"""Picture files that are damaged, mislabelled or unusual: read rightly, or refused in one sentence."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image

from .files import cut, encoded, equals, picture, png_chunks, png_header, reading, tiff, volume
from .harness import Bad, bad

RGB, GREY = picture(), picture(1)
FIRST = np.ascontiguousarray(np.moveaxis(RGB, -1, 0))
DEEP = (GREY.astype(np.uint16) * 257)[None]
WHOLE = {
    ".png": encoded(RGB, "PNG"),
    ".jpg": encoded(RGB, "JPEG"),
    ".bmp": encoded(RGB, "BMP"),
    ".tif": tiff(RGB, photometric="rgb"),
    ".tiff": tiff(RGB, photometric="rgb", compression="zlib"),
}


def truncated() -> list[Bad]:
    """A file without its end is refused, unless all pixels are there."""
    return [
        Bad(f"{suffix} cut at byte {n}", reading(f"a{suffix}", part), equals(FIRST), refusable=True)
        if suffix in (".png", ".bmp")  # the last bytes are no pixels
        else Bad(f"{suffix} cut at byte {n}", reading(f"a{suffix}", part))
        for suffix, data in WHOLE.items()
        for n, part in cut(data, 16).items()
    ] + [
        Bad(f"interlaced PNG cut at byte {n}", reading("a.png", part), equals(np.zeros((1, 9, 8), np.uint8)))
        if n >= len(data) - 20  # the last chunks are no pixels
        else Bad(f"interlaced PNG cut at byte {n}", reading("a.png", part))
        for data in [interlaced()]
        for n, part in cut(data, 8).items()
    ]


def interlaced() -> bytes:
    """A black 8 x 9 PNG file in Adam7's seven passes."""
    passes = ((1, 2), (1, 2), (2, 1), (2, 3), (4, 2), (4, 5), (8, 4))  # columns and rows of each
    size = png_header(8, 9, 8, 0)
    rows = b"".join(bytes(1 + columns) * count for columns, count in passes)
    return png_chunks((size[0], size[1][:-1] + b"\1"), (b"IDAT", zlib.compress(rows, 0)), (b"IEND", b""))


def mislabelled() -> list[Bad]:
    """Pillow's three formats are told by content; everything else must be what its name says."""
    others = {
        "GIF": encoded(GREY, "GIF"), "TIFF": WHOLE[".tif"], "PPM": encoded(RGB, "PPM"), "WebP": encoded(RGB, "WEBP"),
        "PDF": b"%PDF-1.4\n", "ZIP": b"PK\3\4" + bytes(60), "text": b"hello\n", "zeros": bytes(400), "nothing": b"",
        "HTML": b"<html><script>alert(1)</script></html>", "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
        "pickle": b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    }  # fmt: skip
    cases = [
        Bad(f"{form} named {suffix}", reading(f"a{suffix}", data))
        for form, data in others.items()
        for suffix in (".png", ".jpg", ".bmp", ".tif")
        if (form, suffix) != ("TIFF", ".tif")
    ]
    cases += [
        Bad(f"PNG named {suffix}", reading(f"a{suffix}", WHOLE[".png"]), equals(FIRST)) for suffix in (".jpg", ".bmp")
    ]
    return [*cases, Bad("PNG named .PNG", reading("A.PNG", WHOLE[".png"]), equals(FIRST))]


def modes() -> list[Bad]:
    """Unusual kinds of pixels, and the one right way to read each."""
    grey, ink = GREY[None], np.stack([GREY, RGB[..., 0], RGB[..., 1], RGB[..., 2] // 2], axis=-1)
    light = 255 - ink.astype(int)
    rgb = np.moveaxis(np.rint(light[..., :3] * light[..., 3:] / 255), -1, 0).astype(np.uint8)
    alpha = np.dstack([RGB, GREY])
    few = Image.fromarray(RGB).quantize(7)
    colours = np.moveaxis(np.array(few.convert("RGB")), -1, 0)
    bits = GREY > 127
    black = (bits * np.uint8(255))[None]

    def saved(image: Image.Image, form: str) -> bytes:
        import io

        stream = io.BytesIO()
        image.save(stream, form)
        return stream.getvalue()

    return [
        Bad("grey PNG", reading("a.png", encoded(GREY, "PNG")), equals(grey)),
        Bad("PNG with alpha", reading("a.png", encoded(alpha, "PNG")), equals(FIRST)),
        Bad("grey PNG with alpha", reading("a.png", encoded(np.dstack([GREY, GREY]), "PNG")), equals(grey)),
        Bad("PNG palette", reading("a.png", saved(few, "PNG")), equals(colours)),
        Bad("BMP palette", reading("a.bmp", saved(few, "BMP")), equals(colours)),
        Bad("TIFF palette", reading("a.tif", saved(few, "TIFF")), equals(colours)),
        Bad("PNG of one bit", reading("a.png", saved(Image.fromarray(bits), "PNG")), equals(black)),
        Bad("TIFF of one bit", reading("a.tif", saved(Image.fromarray(bits), "TIFF")), equals(black)),
        Bad("numpy's bools as TIFF", reading("a.tif", tiff(bits)), equals(black)),
        Bad("TIFF of one bit, white is zero",
            reading("a.tif", tiff(bits, photometric="miniswhite", software="a scanner")), equals(255 - black)),
        Bad("PNG of 16 bit", reading("a.png", encoded(DEEP[0], "PNG")), equals(DEEP)),
        Bad("colour PNG of 16 bit", reading("a.png", deep_colour(2)), equals(FIRST.astype(np.uint16) * 257)),
        Bad("colour PNG of 16 bit, turned", reading("a.png", deep_colour(2, 3)),
            equals(np.ascontiguousarray(FIRST[:, ::-1, ::-1]).astype(np.uint16) * 257)),
        Bad("PNG with a transparent colour", reading("a.png", encoded(RGB, "PNG", transparency=(3, 4, 5))),
            equals(FIRST)),
        Bad("colour PNG of 16 bit, alpha", reading("a.png", deep_colour(6)), equals(FIRST.astype(np.uint16) * 257)),
        Bad("TIFF of 16 bit", reading("a.tif", tiff(DEEP[0])), equals(DEEP)),
        Bad("CMYK TIFF", reading("a.tif", tiff(ink, photometric="separated")), equals(rgb)),
        Bad("CMYK JPEG", reading("a.jpg", saved(Image.fromarray(ink, "CMYK"), "JPEG")), lambda a: _colour(a)),
        Bad("TIFF, white is zero", reading("a.tif", tiff(GREY, photometric="miniswhite")), equals(255 - grey)),
        Bad("TIFF, alpha", reading("a.tif", tiff(alpha, photometric="rgb", extrasamples=["unassalpha"])),
        equals(FIRST)),
        Bad(
            "grey TIFF, alpha",
            reading("a.tif", tiff(np.dstack([GREY, GREY]), photometric="minisblack", extrasamples=["assocalpha"])),
            equals(grey),
        ),
        Bad(
            "TIFF of four samples",
            reading("a.tif", tiff(alpha, photometric="minisblack", planarconfig="contig")),
            equals(np.moveaxis(alpha, -1, 0)),
        ),
        Bad("TIFF in planes", reading("a.tif", tiff(FIRST, photometric="rgb", planarconfig="separate")), equals(FIRST)),
        Bad("TIFF in tiles", reading("a.tif", tiff(RGB, photometric="rgb", tile=(16, 16))), equals(FIRST)),
        Bad("TIFF, big-endian", reading("a.tif", tiff(DEEP[0], byteorder=">")), lambda a: _same_values(a, DEEP)),
        Bad("BigTIFF", reading("a.tif", tiff(GREY, bigtiff=True)), equals(grey)),
        Bad("TIFF stack of three", reading("a.tif", tiff(volume(np.uint8, (3, 9, 8)), photometric="minisblack")),
            equals(volume(np.uint8, (3, 9, 8))[None])),
        Bad("float TIFF", reading("a.tif", tiff(GREY.astype(np.float32))), equals(grey.astype(np.float32))),
        Bad("TIFF with NaN", reading("a.tif", tiff(np.full((9, 9), np.nan, np.float32)))),
        Bad("TIFF with infinity", reading("a.tif", tiff(np.full((9, 9), -np.inf, np.float64)))),
        Bad("complex TIFF", reading("a.tif", tiff(np.ones((9, 9), np.complex64)))),
        Bad("CIELAB TIFF", reading("a.tif", saved(Image.fromarray(RGB).convert("LAB"), "TIFF"))),
        Bad("TIFF of five axes", reading("a.tif", tiff(np.zeros((2, 3, 4, 5, 6), np.uint8), photometric="minisblack"))),
        Bad("animated PNG", reading("a.png", encoded(GREY, "PNG", save_all=True,
        append_images=[Image.fromarray(255 - GREY)]))),
        Bad("TIFF of two sizes", reading("a.tif", saved_pages((GREY, GREY[:5])))),
        Bad("one pixel", reading("a.png", encoded(RGB[:1, :1], "PNG")), equals(FIRST[:, :1, :1])),
        Bad("one pixel of TIFF", reading("a.tif", tiff(GREY[:1, :1])), equals(grey[:, :1, :1])),
        Bad("one row", reading("a.png", encoded(GREY[:1], "PNG")), equals(grey[:, :1])),
        Bad("one column of TIFF", reading("a.tif", tiff(GREY[:, :1])), equals(grey[:, :, :1])),
    ]  # fmt: skip


def _colour(found: np.ndarray) -> None:
    assert found.shape == FIRST.shape
    assert found.dtype == np.uint8


def _same_values(found: np.ndarray, expected: np.ndarray) -> None:
    assert np.array_equal(found, expected)
    assert found.dtype.itemsize == expected.dtype.itemsize


def deep_colour(kind: int, orientation: int | None = None) -> bytes:
    """``RGB`` as a PNG of 16 bits a channel, with alpha for color type 6, and with a tag of its orientation."""
    values = RGB.astype(">u2") * 257
    if kind == 6:
        values = np.dstack([values, GREY.astype(">u2")])
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    size = png_header(RGB.shape[1], RGB.shape[0], 16, kind)
    tags = Image.Exif()
    tags[274] = orientation
    turned = [] if orientation is None else [(b"eXIf", tags.tobytes()[6:])]
    return png_chunks(size, (b"IDAT", zlib.compress(rows)), *turned, (b"IEND", b""))


def saved_pages(pages: tuple[np.ndarray, ...]) -> bytes:
    """A TIFF file of different pictures."""
    import io

    import tifffile

    stream = io.BytesIO()
    with tifffile.TiffWriter(stream) as writer:
        for page in pages:
            writer.write(page)
    return stream.getvalue()


def damaged() -> list[Bad]:
    """Contents that decoders meet with errors of their own."""
    end = (b"IEND", b"")
    pixels = (b"IDAT", zlib.compress(b"".join(b"\0" + bytes(9) for _ in range(3))))
    small = png_header(3, 3)
    bomb = zlib.compress(bytes(2**27))
    wrong = bytearray(WHOLE[".png"])
    wrong[40] ^= 255
    tags = {code: _with_tag(code) for code in (256, 257, 258, 259, 262, 273, 277, 278, 279)}
    return [
        Bad("PNG without pixels", reading("a.png", png_chunks(small, end))),
        Bad("PNG of no width", reading("a.png", png_chunks(png_header(0, 3), pixels, end))),
        Bad("PNG of an unknown colour type", reading("a.png", png_chunks(png_header(3, 3, 8, 5), pixels, end))),
        Bad("PNG of 3 bits", reading("a.png", png_chunks(png_header(3, 3, 3, 0), pixels, end))),
        Bad("PNG with too few rows", reading("a.png", png_chunks(png_header(3, 300), pixels, end))),
        Bad("PNG with a wrong checksum", reading("a.png", bytes(wrong))),
        Bad("PNG, no zlib stream", reading("a.png", png_chunks(small, (b"IDAT", b"x" * 40), end))),
        Bad("PNG text that unpacks to 128 MiB", reading("a.png", png_chunks(small, (b"zTXt", b"a\0\0" + bomb),
        pixels, end))),
        Bad("PNG profile that unpacks to 128 MiB", reading("a.png", png_chunks(small, (b"iCCP", b"a\0\0" + bomb),
        pixels, end)),
            lambda a: _shape(a, (3, 3, 3)), refusable=True),
        Bad("PNG with broken EXIF", reading("a.png", png_chunks(small, (b"eXIf", b"MM\0*\0\0\xff\xff"), pixels, end)),
            lambda a: _shape(a, (3, 3, 3)), refusable=True),
        Bad("PNG in a PNG's text", reading("a.png", png_chunks(small, (b"tEXt", b"a\0" + WHOLE[".png"]), pixels, end)),
            lambda a: _shape(a, (3, 3, 3))),
        Bad("JPEG without a table", reading("a.jpg", WHOLE[".jpg"][:2] + WHOLE[".jpg"][200:])),
        Bad("JPEG of nothing but markers", reading("a.jpg", b"\xff\xd8\xff\xd9")),
        Bad("BMP of a negative width", reading("a.bmp", WHOLE[".bmp"][:18] + struct.pack("<i",
        -5) + WHOLE[".bmp"][22:])),
        Bad("BMP of a vast width", reading("a.bmp", WHOLE[".bmp"][:18] + struct.pack("<i",
        2**31 - 1) + WHOLE[".bmp"][22:])),
        Bad("TIFF whose pages go in a circle", reading("a.tif", _circle()), equals(FIRST), refusable=True),
        *(Bad(f"TIFF whose tag {code} says {value}", reading("a.tif", data), equals(FIRST), refusable=True)
          for code, found in tags.items() for value, data in found.items()),
    ]  # fmt: skip


def _shape(found: np.ndarray, shape: tuple[int, ...]) -> None:
    assert found.shape == shape


def _entries(data: bytes) -> tuple[int, int]:
    at = struct.unpack_from("<I", data, 4)[0]
    return at, struct.unpack_from("<H", data, at)[0]


def _with_tag(code: int) -> dict[int, bytes]:
    """The TIFF file with one entry changed: its value, at its own width."""
    found = {}
    for value in (0, 2**16 - 1, 2**31 + 5):
        data = bytearray(WHOLE[".tif"])
        at, count = _entries(data)
        for entry in range(at + 2, at + 2 + 12 * count, 12):
            if struct.unpack_from("<H", data, entry)[0] == code:
                wide = struct.unpack_from("<H", data, entry + 2)[0] == 4
                struct.pack_into("<I" if wide else "<H", data, entry + 8, value if wide else value % 2**16)
        if bytes(data) != WHOLE[".tif"]:
            found[value] = bytes(data)
    return found


def _circle() -> bytes:
    """The link after the first page points back to it."""
    data = bytearray(WHOLE[".tif"])
    at, count = _entries(data)
    struct.pack_into("<I", data, at + 2 + 12 * count, at)
    return bytes(data)


TRUNCATED, MISLABELLED, MODES, DAMAGED = truncated(), mislabelled(), modes(), damaged()
CASES = [*TRUNCATED, *MISLABELLED, *MODES, *DAMAGED]


@bad(TRUNCATED)
def test_a_picture_without_its_end_is_never_filled_up(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("pictures", case)


@bad(MISLABELLED)
def test_a_file_that_is_no_picture_is_not_opened_as_one(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("pictures", case)


@bad(MODES)
def test_unusual_pixels_are_read_in_their_own_sense(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("pictures", case)


@bad(DAMAGED)
def test_damage_is_named_and_not_repaired_by_guessing(case: Bad, ends_well: Callable[[str, Bad], None]) -> None:
    ends_well("pictures", case)
