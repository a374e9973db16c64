"""Reduction of an SVG's size without visible difference, and its preparation for a page with others."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Iterable, Iterator
from io import BytesIO
from xml.etree.ElementTree import Element
from zlib import crc32

from PIL import Image

COLORS = 32
"""Colours of an embedded picture."""
PANEL = re.compile(r"panel(\d+)_[^_]*_([-\d.]+_[-\d.]+_[-\d.]+_[-\d.]+)$")
"""Id of a part of a panel, as `page.panel_id` writes it."""
BAR = 999
"""Number of the panel for a colour bar, in a figure with several panels or without any."""
POINTS, PIXELS = 72.0, 96 / 72
"""Points per inch; pixels per point."""
NARROW, SMALLEST = 420, 0.62
"""Pixels that fit on a phone; least factor by which a wider figure is shrunk before it scrolls."""
UNUSED = re.compile(r"<!DOCTYPE[^>]*>|<metadata>.*?</metadata>|[\x00-\x08\x0b\x0c\x0e-\x1f]", re.DOTALL)
"""Parts that no one needs, and characters that XML does not allow in names."""
NAMESPACES = re.compile(r' xmlns(:\w+)?="[^"]*"')
FEWEST_MARKS = 3
"""Least number of marks of one style that are drawn as the vertices of one path."""
OFF = 1.0
"""Tenths of a point by which a line may miss a point that is left out of it."""
FEWEST_STEPS = 8
"""Least number of lines of a path that is written with relative coordinates."""
POINT = re.compile(r"[ML]\s+(-?[\d.]+)\s+(-?[\d.]+)")
CIRCLE = re.compile(r"^M 0 ([\d.]+)(?: C(?: -?[\d.]+){6}){8} z$")
"""A round mark, as the plotting library writes it."""
OFTEN = 3
"""Elements of one style for which it is written once."""
REFERENCE = re.compile(r"url\(#([^)]+)\)")
Place = tuple[float, float]
Look = tuple[str, str]
"""Id of the shape, and style, of a mark."""
FONT = re.compile(r"font-family: [^;]*;? ?")
SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"
ElementTree.register_namespace("", SVG[1:-1])
ElementTree.register_namespace("xlink", HREF[1:-5])


def lean(svg: str, prefix: str) -> str:
    """Reduce an SVG: coordinates to 0.1 points, pictures with few colours, no groups without a meaning, short ids.

    Equal marks become the vertices of one path. All ids get a prefix.
    """
    svg = re.sub(r'(?<=data:image/png;base64,)[^"]+', lambda found: _in_palette(found[0]), UNUSED.sub("", svg))
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    family = next((found[0] for text in root.iter(f"{SVG}text") if (found := FONT.search(text.get("style", "")))), "")
    _simplify(root)
    _merge_marks(root)
    for element in root.iter():
        _shorten(element, family)
    _rename(root, prefix)
    _share_styles(root)
    root.set("style", family.rstrip("; "))
    return ElementTree.tostring(root, encoding="unicode") + "\n"


def inline(svg: str, stem: str) -> tuple[str, ...]:
    """Split a figure into parts that a page may rearrange: its title and legend, each panel, its colour bar.

    Each is a whole SVG element; its ids must differ from those of other figures. A panel has the id STEM-pNUMBER;
    title and legend have number 0.
    """
    root = ElementTree.fromstring(NAMESPACES.sub("", svg).replace(" xlink:href=", " href="))
    figure, size = _figure(root, "g"), _size(root)
    panels: dict[int, tuple[list[float], list[Element]]] = {}
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


def _size(root: Element) -> tuple[float, float]:
    """Read width and height in points."""
    _, _, width, height = map(float, root.get("viewBox", "").split())
    return width, height


def _element(view: list[float], children: Iterable[Element], name: str) -> str:
    """Make an SVG element that shows a part of a figure at its natural size."""
    root = Element("svg", {"viewBox": " ".join(f"{each:.1f}" for each in view)})
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


def _simplify(root: Element) -> None:
    """Remove ids that nothing refers to, and within the parts of the figure all groups without attributes."""
    used = _referenced(root)
    for element in root.iter():
        if element.get("id") not in used and not PANEL.search(element.get("id", "")):
            element.attrib.pop("id", None)
    for part in _figure(root, f"{SVG}g"):
        _ungroup(part)


def _figure(root: Element, tag: str) -> Element:
    """Find the group that holds the background and all parts."""
    return [child for child in root if child.tag == tag][-1]


def _referenced(root: Element) -> set[str]:
    found = {element.get(HREF, "#")[1:] for element in root.iter()}
    values = (value for element in root.iter() for name, value in element.attrib.items() if name != HREF)
    return found.union(*(REFERENCE.findall(value) for value in values if "url(#" in value))


def _ungroup(element: Element) -> None:
    children = []
    for child in element:
        _ungroup(child)
        children += list(child) if child.tag == f"{SVG}g" and not child.attrib else [child]
    element[:] = children


def _merge_marks(root: Element) -> None:
    """Draw equal marks that follow each other, ticks and their labels for example, as the vertices of one path."""
    shapes = {path.get("id", ""): path for path in root.iter(f"{SVG}path") if path.get("id")}
    markers: dict[Look, str] = {}
    for parent in [element for element in root.iter() if element.find(f"{SVG}use") is not None]:
        merged: list[Element] = []
        for look, run in _runs(parent):
            marks = [each for each in run if _look(each)]
            shape = shapes.get(look[0]) if look else None
            if look is None or shape is None or len(marks) < FEWEST_MARKS:
                merged += run
                continue
            if look not in markers:
                markers[look] = f"marks{len(markers)}"
                merged.append(_marker(look, shape, markers[look]))
            merged += [_vertices(marks, markers[look]), *(each for each in run if each not in marks)]
        parent[:] = merged
    used = _referenced(root)
    for parent in list(root.iter()):
        for defs in parent.findall(f"{SVG}defs"):
            defs[:] = [child for child in defs if child.tag != f"{SVG}path" or child.get("id") in used]
            if not len(defs):
                parent.remove(defs)


def _runs(parent: Element) -> Iterator[tuple[Look | None, list[Element]]]:
    """Yield marks of one look with the texts that separate them; anything else alone, without a look."""
    look: Look | None = None
    run: list[Element] = []
    for child in parent:
        if look and (child.tag == f"{SVG}text" or _look(child) == look):
            run.append(child)
            continue
        yield look, run
        look, run = _look(child), [child]
    yield look, run


def _look(element: Element) -> Look | None:
    """Return shape and style of a mark; None for anything else."""
    if element.tag != f"{SVG}use" or not set(element.attrib) <= {HREF, "x", "y", "style"}:
        return None
    return element.get(HREF, "")[1:], element.get("style", "")


def _marker(look: Look, shape: Element, name: str) -> Element:
    """Make the marker of marks of one look."""
    defs = Element(f"{SVG}defs")
    marker = ElementTree.SubElement(defs, f"{SVG}marker", {"id": name})
    style = _parsed(look[1]) | _parsed(shape.get("style", ""))
    path = {"d": shape.get("d", ""), "style": "; ".join(f"{key}: {value}" for key, value in style.items())}
    ElementTree.SubElement(marker, f"{SVG}path", path)
    return defs


def _vertices(marks: list[Element], name: str) -> Element:
    """Make the path whose vertices are marks; a marker has the unit of its width of line, which is 1."""
    places = " L ".join(f"{mark.get('x', '0')} {mark.get('y', '0')}" for mark in marks)
    return Element(f"{SVG}path", {"d": f"M {places}", "style": f"fill: none; marker: url(#{name})"})


def _share_styles(root: Element) -> None:
    """Write each style that occurs often once, as a class whose name follows from it: figures on a page share them."""
    counts = Counter(element.get("style", "") for element in root.iter())
    names = {style: f"s{crc32(style.encode()):08x}" for style, count in counts.items() if style and count >= OFTEN}
    for element in root.iter():
        if name := names.get(element.get("style", "")):
            element.set("class", name)
            del element.attrib["style"]
    rules = ElementTree.SubElement(ElementTree.SubElement(root, f"{SVG}defs"), f"{SVG}style", {"type": "text/css"})
    rules.text = "marker{overflow:visible}" + "".join(f".{name}{{{style}}}" for style, name in names.items())


def _parsed(style: str) -> dict[str, str]:
    pairs = [each.split(":", maxsplit=1) for each in style.split(";") if ":" in each]
    return {key.strip(): value.strip() for key, value in pairs}


def _shorten(element: Element, family: str) -> None:
    """Write an element's attributes shortly; what is said to a reader is left alone."""
    if re.match(r"rotate\(-?0 ", element.get("transform", "")):
        del element.attrib["transform"]
    for name, value in element.attrib.items():
        element.set(name, _short(element, name, value, family))
    if element.tag != f"{SVG}text" and not (element.text or "").strip():
        element.text = None
    element.tail = None


def _short(element: Element, name: str, value: str, family: str) -> str:
    """Write an attribute shortly; the place of a picture more exactly than that of others."""
    if name == "d":
        return _path(value, thin="marker:" not in element.get("style", ""))
    if name == "style":
        return ";".join(f"{key}:{each}" for key, each in _parsed(value.replace(family, "")).items())
    if name in ("x", "y") and element.tag != f"{SVG}image":
        return _tenths(round(10 * float(value)))
    return _rounded(value) if name in ("transform", "width", "height", "x", "y") else value


def _arcs(circle: re.Match[str]) -> str:
    """Write a circle about the origin as two arcs."""
    radius = circle[1]
    return f"M{radius} 0A{radius} {radius} 0 1 1-{radius} 0A{radius} {radius} 0 1 1 {radius} 0z"


def _rounded(value: str) -> str:
    return re.sub(r"(\.\d\d)\d+", r"\1", value)


def _path(path: str, thin: bool) -> str:
    """Write a path shortly: many lines as steps, a round mark as arcs, others rounded."""
    if path.count("L") >= FEWEST_STEPS and set(re.findall("[A-Za-z]", path)) <= set("MLz"):
        return _steps(path, thin)
    return CIRCLE.sub(_arcs, " ".join(_rounded(path).split()))


def _steps(path: str, thin: bool) -> str:
    """Write a path of lines with coordinates of 0.1 points, each relative to the one before.

    Args:
        thin: whether to leave out points that the line between others goes through.
    """
    written = ""
    for part in re.findall("M[^M]*", path):
        places: list[Place] = [(round(10 * float(x)), round(10 * float(y))) for x, y in POINT.findall(part)]
        start, *others = _thinned(places) if thin else places
        written += f"M{_tenths(start[0])}{_apart(_tenths(start[1]))}"
        pairs = [(x - a, y - b) for (x, y), (a, b) in zip(others, (start, *others), strict=False)]
        steps = "".join(_apart(_tenths(step)) for pair in pairs for step in pair)
        written += "l" * bool(steps) + steps.removeprefix(" ") + "z" * part.rstrip().endswith("z")
    return written


def _thinned(places: list[Place]) -> list[Place]:
    """Leave out places between two others that the line between them misses by `OFF` at most."""
    kept, first = places[:1], 0
    for last in range(2, len(places)):
        if any(_distance(place, places[first], places[last]) > OFF for place in places[first + 1 : last]):
            first = last - 1
            kept.append(places[first])
    return kept + places[1:][-1:]


def _distance(place: Place, start: Place, end: Place) -> float:
    """Measure how far a place lies from the segment between two others."""
    along, across = end[0] - start[0], end[1] - start[1]
    x, y = place[0] - start[0], place[1] - start[1]
    squared = along**2 + across**2
    share = min(max((x * along + y * across) / squared, 0.0), 1.0) if squared else 0.0
    return math.hypot(x - share * along, y - share * across)


def _tenths(number: float) -> str:
    """Write a number of tenths: -15 is `-1.5`, 4 is `.4`."""
    whole, rest = divmod(abs(round(number)), 10)
    return "-" * (number < 0) + (str(whole) if whole or not rest else "") + (f".{rest}" if rest else "")


def _apart(number: str) -> str:
    return number if number.startswith("-") else f" {number}"


def _rename(root: Element, prefix: str) -> None:
    """Give every id a prefix, and a short name unless it is that of a panel."""
    ids = [name for element in root.iter() if (name := element.get("id"))]
    new = {name: f"{prefix}-{name if PANEL.search(name) else number}" for number, name in enumerate(ids)}
    for element in root.iter():
        if name := element.get("id"):
            element.set("id", new[name])
        if (used := element.get(HREF, "")).startswith("#"):
            element.set(HREF, f"#{new[used[1:]]}")
        for key in [key for key, value in element.attrib.items() if "url(#" in value]:
            element.set(key, REFERENCE.sub(lambda found: f"url(#{new[found[1]]})", element.attrib[key]))
