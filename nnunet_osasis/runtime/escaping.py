"""Names of files, folders, methods, classes and cards are other people's text: each medium shows it and runs nothing.

One function per medium, used wherever a command writes: CSV, Markdown, LaTeX, HTML, and pictures and terminals.
"""

from __future__ import annotations

import html
import re

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""First characters with which spreadsheets take a cell's text for a formula."""

LATEX = str.maketrans(
    {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\^{}"}
)
"""Characters that are commands in LaTeX, and how they are typeset."""


def visible(text: str) -> str:
    """Make control characters, and bytes of file names that are no text, visible; line breaks and tabs stay.

    >>> visible("a" + chr(27) + "[31m" + chr(0xDCFF))
    'a\\\\x1b[31m\\\\udcff'
    """
    return "".join(c if c in "\n\t" or c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def in_one_line(text: str) -> str:
    """Return visible text with single spaces between its words."""
    return visible(" ".join(text.split()))


def csv_text(text: str) -> str:
    """Put an apostrophe before text that a spreadsheet would run as a formula.

    >>> csv_text("=1+1"), csv_text("case 1")
    ("'=1+1", 'case 1')
    """
    return visible(f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text)


def markdown_text(text: str) -> str:
    """Escape text for Markdown, in a cell or a paragraph: no HTML, links, emphasis, formulas, headings or lists.

    >>> markdown_text("![a](b) <i> case_1 _x_ $y$")
    '!\\\\[a\\\\](b) &lt;i&gt; case_1 \\\\_x\\\\_ \\\\$y\\\\$'
    >>> markdown_text("# a"), markdown_text("1. b"), markdown_text("see https://c.d")
    ('\\\\# a', '1\\\\. b', 'see https&#58;//c.d')
    """
    escaped = re.sub(r"[\\`*|\[\]$~]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", in_one_line(text))
    escaped = re.sub(r"^([#+=-])|^(\d+)(?=[.)](?:\s|$))", lambda found: _at_the_start(found), escaped)
    escaped = html.escape(escaped, quote=False)
    return re.sub(r"\bwww\.", "www&#46;", escaped.replace("://", "&#58;//"))


def _at_the_start(found: re.Match[str]) -> str:
    return f"\\{found[1]}" if found[1] else f"{found[2]}\\"


def latex_text(text: str) -> str:
    """Escape text for LaTeX.

    >>> latex_text("50 % of_case")
    '50 \\\\% of\\\\_case'
    """
    return in_one_line(text).translate(LATEX)


def html_text(text: str) -> str:
    """Escape text for HTML, between tags and in quoted attributes.

    >>> html_text('<b title="x">')
    '&lt;b title=&quot;x&quot;&gt;'
    """
    return html.escape(visible(text))


def label_text(text: str, most: int = 48) -> str:
    """Return a name for a picture, short enough to leave room for it; pictures are drawn without formulas.

    >>> label_text("a" * 60, 8)
    'aaaaaaa…'
    """
    shown = in_one_line(text)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"
