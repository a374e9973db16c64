"""Reduction of an SVG's size without visible difference, and its preparation for a page with others."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator
from io import BytesIO
from itertools import groupby

from PIL import Image

COLORS = 256
"""Colours of an embedded picture."""
MARK = re.compile(r'<use ([^>]*) style="([^"]*)"/>')
PANEL = re.compile(r"panel(\d+)_[^_]*_([-\d.]+_[-\d.]+_[-\d.]+_[-\d.]+)$")
"""Id of a part of a panel, as `page.panel_id` writes it."""
BAR = 999
"""Number of the panel for a colour bar, in a figure with several panels or without any."""
POINTS, PIXELS = 72.0, 96 / 72
"""Points per inch; pixels per point."""
NARROW, SMALLEST = 420, 0.62
"""Pixels that fit on a phone; least factor by which a wider figure is shrunk before it scrolls."""
NAMESPACES = re.compile(r' xmlns(:\w+)?="[^"]*"|<metadata>.*?</metadata>|[\x00-\x08\x0b\x0c\x0e-\x1f]', re.DOTALL)
"""Parts that a page does not need, and characters that XML does not allow in names."""
FEWEST_MARKS = 3
"""Least number of marks of one style that are worth a group."""


def lean(svg: str, prefix: str) -> str:
    """Reduce an SVG: palette pictures, coordinates to 0.01 points, no indentation, no empty rotations, no unused ids.

    The remaining ids get a prefix, and the style of equal marks is written once.
    """
    svg = re.sub(r'(?<=data:image/png;base64,)[^"]+', lambda found: _in_palette(found[0]), svg)
    svg = re.sub(r"<[a-z][^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    svg = re.sub(r' transform="rotate\(-?0 [^"]*"', "", re.sub(r"\n\s+<", "\n<", svg))
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    svg = re.sub(
        r'(?<=<g) id="([^"]+)"', lambda found: found[0] if found[1] in used or PANEL.search(found[1]) else "", svg
    )
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return "\n".join(_grouped(svg.split("\n")))


def inline(svg: str, stem: str) -> tuple[str, ...]:
    """Split a figure into parts that a page may rearrange: its title and legend, each panel, its colour bar.

    Each is a whole SVG element; its ids must differ from those of other figures. A panel has the id STEM-pNUMBER;
    title and legend have number 0.
    """
    root = ElementTree.fromstring(NAMESPACES.sub("", svg[svg.index("<svg") :]).replace(" xlink:href=", " href="))
    figure, size = [child for child in root if child.tag == "g"][-1], _size(root)
    panels: dict[int, tuple[list[float], list[ElementTree.Element]]] = {}
    for part in list(figure)[1:]:  # the first is the background
        if match := PANEL.search(part.get("id", "")):
            box = [POINTS * float(each) for each in match[2].split("_")]
            panels.setdefault(int(match[1]), (box, []))[1].append(part)
    if set(panels) <= {BAR}:
        return (_element([0, 0, *size], list(root), ""),)
    panels[min(panels)][1].extend(child for child in root if child.tag == "defs")
    return tuple(
        _element(
            [max(box[0], 0.0), size[1] - box[1] - box[3], box[2] + min(box[0], 0.0), box[3]],
            inside,
            f"{stem}-p{number}",
        )
        for number, (box, inside) in sorted(panels.items())
    )


def _size(root: ElementTree.Element) -> tuple[float, float]:
    """Read width and height in points."""
    _, _, width, height = map(float, root.get("viewBox", "").split())
    return width, height


def _element(view: list[float], children: Iterable[ElementTree.Element], name: str) -> str:
    """Make an SVG element that shows a part of a figure at its natural size."""
    root = ElementTree.Element("svg", {"viewBox": " ".join(f"{each:.1f}" for each in view)})
    root.set("width", f"{view[2] * PIXELS:.0f}")
    root.set("height", f"{view[3] * PIXELS:.0f}")
    if view[2] * PIXELS > NARROW:
        root.set("style", f"min-width:{SMALLEST * view[2] * PIXELS:.0f}px")
    if name:
        root.set("id", name)
    root.set("aria-hidden", "true")
    root.extend(children)
    return ElementTree.tostring(root, encoding="unicode")


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
    """Return the style of a mark; empty for anything else."""
    found = MARK.fullmatch(line)
    return found[2] if found else ""
