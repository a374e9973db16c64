"""The text of an SVG made small, with no difference to the eye, and fit to stand beside others on one page."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import groupby

from PIL import Image

COLORS = 256
"""Of a picture within."""
MARK = re.compile(r'<use ([^>]*) style="([^"]*)"/>')
FEWEST_MARKS = 3
"""Fewer marks of one look than this are not worth a group."""


def lean(svg: str, prefix: str) -> str:
    """Pictures in a palette, coordinates to a hundredth of a point, no indentation, no empty turns, no unused ids, the
    others behind a prefix, and the look of equal marks said once."""
    svg = re.sub(r'(?<=data:image/png;base64,)[^"]+', lambda found: _in_palette(found[0]), svg)
    svg = re.sub(r"<[a-z][^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", re.sub(r"\n\s+<", "\n<", svg))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(r'(?<=<g) id="([^"]+)"', lambda found: found[0] if found[1] in used else "", svg)
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return "\n".join(_grouped(svg.split("\n")))


def inline(svg: str) -> str:
    """Without its head."""
    return svg[svg.index("<svg") :]


def _in_palette(png: str) -> str:
    small = BytesIO()
    picture = Image.open(BytesIO(b64decode(png)))
    picture.quantize(COLORS, Image.Quantize.FASTOCTREE).save(small, "png", optimize=True)
    return b64encode(small.getvalue()).decode()


def _grouped(lines: Iterable[str]) -> Iterator[str]:
    for look, run in groupby(lines, key=_look):
        marks = list(run)
        if not look or len(marks) < FEWEST_MARKS:
            yield from marks
        else:
            yield from (f'<g style="{look}">', *(MARK.sub(r"<use \1/>", mark) for mark in marks), "</g>")


def _look(line: str) -> str:
    """Of a mark; empty for what is none."""
    found = MARK.fullmatch(line)
    return found[2] if found else ""
