"""`check --images`: whether every image of an experiment can be decoded."""

from __future__ import annotations

from bocb_tune.cli.busy import busy
from bocb_tune.data import encoded_images
from bocb_tune.data.contents import printable
from bocb_tune.data.decode import MAX_UNREADABLE, BadImage, bad_images
from bocb_tune.spec.environment import missing_data
from bocb_tune.spec.model import ExperimentSpec


class BadImages(ValueError):
    """Some images of the experiment cannot be decoded; the message names them."""


def check_images(spec: ExperimentSpec) -> None:
    """Decode every image of the experiment, and say how many there are.

    Raises:
        BadImages: if some cannot be decoded.
        ValueError: if the data are not here.
    """
    if missing := missing_data(spec):
        raise ValueError(f"--images: {missing}")
    options = spec.dataset.options
    with busy("decoding"):
        sources = encoded_images(spec.dataset.name, options)
        found = list(bad_images(sources, options["max_pixels"])) if sources else []
    total = sum(len(source.labels) for source in sources.values())
    if found:
        raise BadImages("\n".join(_lines(found, total)))
    where = "all can be decoded" if sources else f"{spec.dataset.name} stores them as plain numbers, so none is decoded"
    print(f"images: {total} files; {where}")


def _lines(found: list[BadImage], total: int) -> list[str]:
    refused = sum(bad.is_refused for bad in found)
    return [
        f"{len(found)} of {total} images cannot be decoded:",
        *(f"  {printable(bad.name)}: {bad.why}" for bad in found),
        f"Restore or remove them. Of those that are damaged ({len(found) - refused} here) training skips up to "
        f"{MAX_UNREADABLE:.1%} of a split, and one in any case; of those that are refused ({refused} here) none.",
    ]
