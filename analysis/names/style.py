"""One fixed look per name: the order of axes, a colour per optimizer, a marker per backbone. No plotting import."""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from bocb_tune.analysis.names.families import plain

# Families of optimizers share a hue, after those of Okabe and Ito (2008), and differ in lightness. Twenty cannot
# all be told apart by everybody: panels and rows carry the name too, colour is never the only sign.
OPTIMIZER_COLORS = {
    "sgd": "#0072b2",
    "sgdm": "#0072b2",
    "sgdp": "#56b4e9",
    "lion": "#1b3f73",
    "adam": "#e69f00",
    "adamax": "#8f5f00",
    "nadam": "#f0c25e",
    "adamw": "#d55e00",
    "lamb": "#8c2d04",
    "radam": "#c98b1b",
    "adamp": "#f4874b",
    "adan": "#b2182b",
    "adabound": "#009e73",
    "lars": "#00503b",
    "adafactor": "#66c2a5",
    "adabelief": "#41ab5d",
    "novograd": "#a6a61d",
    "sophia": "#cc79a7",
    "adagrad": "#7a7a7a",
    "adadelta": "#a9a9a9",
    "rmsprop": "#4d4d4d",
}
LineStyle = tuple[int, tuple[float, ...] | None]
LINE_STYLES: tuple[LineStyle, ...] = ((0, None), (0, (5, 1.2)), (0, (1.2, 1)), (0, (5, 1, 1.2, 1)))
BACKBONE_MARKERS = {
    "alexnet": "o",
    "vgg13": "s",
    "r50": "D",
    "dn121": "^",
    "mobv2": "v",
    "effb0": "<",
    "rvgga1": ">",
    "deits": "p",
    "mlps": "h",
    "swint": "*",
    "cnxt": "P",
    "cnxv2t": "X",
    "mogas": "d",
    "urlkt": "8",
    "tnxt": "H",
    "if12": "1",
    "pfv212": "2",
    "cf12": "3",
    "af12": "4",
    "caf12": "+",
}


def optimizer_color(name: str) -> str:
    """Hex colour of an optimizer: its own, or one chosen by its name alone, the same on every page and machine."""
    return _look_up(OPTIMIZER_COLORS, name)


def optimizer_dash(name: str) -> LineStyle:
    """Matplotlib line style of an optimizer: neighbours of a family differ, so that lines are told apart in grey."""
    names = list(OPTIMIZER_COLORS)
    place = names.index(plain(name)) if plain(name) in OPTIMIZER_COLORS else crc32(plain(name).encode())
    return LINE_STYLES[place % len(LINE_STYLES)]


def backbone_marker(name: str) -> str:
    """Matplotlib marker of a backbone: its own, or one chosen by its name alone."""
    return _look_up(BACKBONE_MARKERS, name)


def ordered_optimizers(names: Iterable[str]) -> tuple[str, ...]:
    """Unique names in table order (families together), unknown ones after them by name."""
    return _ordered(OPTIMIZER_COLORS, names)


def ordered_backbones(names: Iterable[str]) -> tuple[str, ...]:
    """Unique names in table order, unknown ones after them by name."""
    return _ordered(BACKBONE_MARKERS, names)


def _look_up(table: dict[str, str], name: str) -> str:
    key = plain(name)
    return table.get(key) or list(table.values())[crc32(key.encode()) % len(table)]


def _ordered(table: dict[str, str], names: Iterable[str]) -> tuple[str, ...]:
    place = {key: index for index, key in enumerate(table)}
    return tuple(sorted(set(names), key=lambda name: (place.get(plain(name), len(place)), name)))


def label(name: str, longest: int = 22) -> str:
    """A name as it fits on an axis: one line, cut if long."""
    line = " ".join(name.split())
    return line if len(line) <= longest else line[: longest - 1] + "…"
