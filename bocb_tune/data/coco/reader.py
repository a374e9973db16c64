"""The reader of folders of images with an annotation file each, in COCO's format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bocb_tune.data.coco.parts import contents_of_parts, parts_of
from bocb_tune.data.contents import Contents, ImageSource

if TYPE_CHECKING:
    from bocb_tune.data.coco.dataset import Coco


class CocoFolders:
    """Reads a folder of images and an annotation file for each of the splits `train` and `val`."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        return contents_of_parts(parts_of(options))

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
        return parts_of(options)

    def load(self, options: Mapping[str, Any], device: str) -> Coco:
        from bocb_tune.data.coco.dataset import coco_of

        return coco_of(lambda outlines: parts_of(options, outlines=outlines), options, device)


reader = CocoFolders()
