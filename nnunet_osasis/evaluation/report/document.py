"""A small document model: the report's content is written once and rendered as one HTML page or as Markdown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from nnunet_osasis.runtime.escaping import html_text, in_one_line, markdown_text


@dataclass(frozen=True)
class Heading:
    """A section title."""

    text: str


@dataclass(frozen=True)
class Text:
    """A paragraph; ``strong`` for the verdict."""

    text: str
    strong: bool = False


@dataclass(frozen=True)
class Table:
    """A data frame of text; its first column is aligned left, the others right."""

    frame: pd.DataFrame


@dataclass(frozen=True)
class Picture:
    """A PNG: embedded in HTML, linked by ``name`` in Markdown."""

    name: str
    png: bytes
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines to type."""

    lines: tuple[str, ...]


Block = Heading | Text | Table | Picture | Code
"""One element of a report."""

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.2rem; margin-top: 2.2rem; }
p.strong { font-size: 1.15rem; font-weight: 600; border-left: 4px solid #0072b2; padding-left: .8rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; } figcaption { font-size: .88rem; color: #555; }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto; font-size: .82rem; }
@media print { body { max-width: none; font-size: 11px; } .scroll { overflow: visible; }
  pre { white-space: pre-wrap; } }
"""


def to_html(title: str, blocks: Sequence[Block]) -> str:
    """Return one page that needs no other file."""
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html_text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html_text(title)}</h1>\n{body}\n</body>\n</html>\n"
    )


def to_markdown(title: str, blocks: Sequence[Block]) -> str:
    """Return the same as Markdown, its pictures beside it."""
    return "\n\n".join([f"# {markdown_text(title)}", *(_markdown(block) for block in blocks)]) + "\n"


def _html(block: Block) -> str:
    match block:
        case Heading(text):
            return f"<h2>{html_text(text)}</h2>"
        case Text(text, strong):
            return f'<p class="strong">{html_text(text)}</p>' if strong else f"<p>{html_text(text)}</p>"
        case Table(frame):
            with pd.option_context("display.max_colwidth", None):
                return f'<div class="scroll">{frame.map(in_one_line).to_html(index=False, border=0)}</div>'
        case Picture(_, png, caption):
            source, text = f"data:image/png;base64,{base64.b64encode(png).decode()}", html_text(caption)
            return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
        case Code(lines):
            return "<pre>" + html_text("\n".join(lines)) + "</pre>"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {markdown_text(text)}"
        case Text(text, strong):
            return f"**{markdown_text(text)}**" if strong else markdown_text(text)
        case Table(frame):
            cells = frame.map(markdown_text)
            alignment = ("left", *["right"] * (len(cells.columns) - 1))
            return str(cells.to_markdown(index=False, disable_numparse=True, colalign=alignment))
        case Picture(name, _, caption):
            return f"![{markdown_text(caption)}]({name})\n\n{markdown_text(caption)}"
        case Code(lines):
            runs = [len(run) for line in lines for run in re.findall("`+", line)]
            fence = "`" * max(3, *(run + 1 for run in runs), 3)
            return "\n".join([fence, *map(in_one_line, lines), fence])
