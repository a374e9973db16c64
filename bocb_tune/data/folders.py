"""The reader of images in folders, or in one packed file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bocb_tune.data.contents import Contents, ImageSource
from bocb_tune.data.layout import scan

if TYPE_CHECKING:
    from bocb_tune.data.base import Dataset


class ImageFolders:
    """Reads `imagefolder` and `imagenet`."""

    def contents(self, options: Mapping[str, Any]) -> Contents:
        return scan(options).contents()

    def sources(self, options: Mapping[str, Any]) -> Mapping[str, ImageSource]:
        return scan(options).parts

    def load(self, options: Mapping[str, Any], device: str) -> Dataset:
        from bocb_tune.data.files import load_files

        return load_files(scan(options), options, device)


reader = ImageFolders()
