"""Storage of a run's files: a folder, or a URI such as s3://bucket/runs/mine of a file system that pyarrow or fsspec
knows. Files are whole or not there, in both."""

from __future__ import annotations

import contextlib
import os
import shutil
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bocb_tune.core.files import write_atomically


def is_uri(place: str | os.PathLike[str]) -> bool:
    """Tell whether a place is a URI, and no path."""
    return "://" in str(place)


def join(place: str, name: str) -> str:
    """Give the place of a name within a place; what a URI asks of its file system (`?region=...`) stays at its end."""
    head, mark, query = place.partition("?") if is_uri(place) else (place, "", "")
    return f"{head.rstrip('/')}/{name}{mark}{query}"


def name_of(place: str) -> str:
    """Return the last name of a place, without what a URI asks of its file system."""
    return place.partition("?")[0].rstrip("/").rpartition("/")[2]


class Storage(ABC):
    """Files under one place, by names such as `cells/a.jsonl`."""

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Return what a file holds; None if there is none.

        Raises:
            OSError: if the place cannot be reached, or the file cannot be read.
        """

    @abstractmethod
    def write(self, name: str, content: bytes | memoryview) -> None:
        """Make or replace a file, and the folder that it is in.

        Raises:
            OSError: if it cannot be written.
        """

    @abstractmethod
    def move(self, name: str, to: str) -> None:
        """Give a file another name in place of what had it; nothing happens if there is none."""

    @abstractmethod
    def remove(self, name: str, *, now: bool = False) -> None:
        """Have a file, or a folder with all that it holds, gone: when this returns, or soon."""

    @abstractmethod
    def names(self, folder: str = "") -> list[str]:
        """List the files in a folder, without those in folders in it."""

    @abstractmethod
    def within(self, folder: str) -> Storage:
        """Give the storage of a folder within this one."""


def storage_of(place: str | os.PathLike[str]) -> Storage:
    """Give the storage at a path or a URI.

    Raises:
        ValueError: if no file system is known for the URI.
        OSError: if it cannot be reached.
    """
    return Remote.at(str(place)) if is_uri(place) else Folder(Path(place))


class Folder(Storage):
    """Files of a folder."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes | memoryview) -> None:
        write_atomically(self._path / name, lambda file: file.write(content))

    def move(self, name: str, to: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.replace(self._path / name, self._path / to)

    def remove(self, name: str, *, now: bool = True) -> None:  # noqa: ARG002
        path = self._path / name
        try:
            path.unlink(missing_ok=True)
        except OSError:  # of a folder, which a worker that still writes may make at any moment: ask only now
            if path.is_file():
                raise
            shutil.rmtree(path, ignore_errors=True)

    def names(self, folder: str = "") -> list[str]:
        try:
            return sorted(path.name for path in (self._path / folder).iterdir() if path.is_file())
        except FileNotFoundError:
            return []

    def within(self, folder: str) -> Storage:
        return Folder(self._path / folder)


class Remote(Storage):
    """Objects under a URI. A written object is whole: it appears when all of it has arrived."""

    def __init__(self, uri: str, files: Any, root: str, remover: ThreadPoolExecutor) -> None:
        self._uri, self._files, self._root, self._remover = uri, files, root.rstrip("/"), remover

    @classmethod
    def at(cls, uri: str) -> Remote:
        """Reach the file system of a URI.

        Raises:
            ValueError: if none is known for it, or it names no place in it.
        """
        files, root = _file_system(uri)
        if not root.strip("/"):
            raise ValueError(f"{uri}: names no place, such as s3://bucket/runs/mine")
        return cls(uri, files, root, ThreadPoolExecutor(1, thread_name_prefix="remove"))

    def __str__(self) -> str:
        return self._uri

    def __reduce__(self) -> tuple[Any, ...]:
        return storage_of, (self._uri,)

    def read(self, name: str) -> bytes | None:
        try:
            with self._files.open_input_file(self._at(name)) as file:
                content: bytes = file.read()
                return content
        except FileNotFoundError:
            return None
        except OSError:
            if self._is_there(name):
                raise
            return None  # removed in between: some stores then have other errors

    def write(self, name: str, content: bytes | memoryview) -> None:
        path = self._at(name)
        if self._files.type_name not in ("s3", "gcs"):  # which know no folders
            self._files.create_dir(path.rpartition("/")[0], recursive=True)
        with self._files.open_output_stream(path) as stream:
            stream.write(content)

    def move(self, name: str, to: str) -> None:
        if self._is_there(name):
            self._files.copy_file(self._at(name), self._at(to))

    def _is_there(self, name: str) -> bool:
        from pyarrow.fs import FileType

        return bool(self._files.get_file_info(self._at(name)).type != FileType.NotFound)

    def remove(self, name: str, *, now: bool = False) -> None:
        removing = self._remover.submit(self._remove, self._at(name))
        if now:
            removing.result()

    def _remove(self, path: str) -> None:
        from pyarrow.fs import FileType

        with contextlib.suppress(OSError):  # what stays is found in the folder of checkpoints, and harms nobody
            if self._files.get_file_info(path).type == FileType.Directory:
                self._files.delete_dir(path)
            else:
                self._files.delete_file(path)

    def names(self, folder: str = "") -> list[str]:
        from pyarrow.fs import FileSelector, FileType

        found = self._files.get_file_info(FileSelector(self._at(folder).rstrip("/"), allow_not_found=True))
        return sorted(info.base_name for info in found if info.type == FileType.File)

    def within(self, folder: str) -> Storage:
        return Remote(join(self._uri, folder), self._files, self._at(folder), self._remover)

    def _at(self, name: str) -> str:
        return f"{self._root}/{name}"


def _file_system(uri: str) -> tuple[Any, str]:
    """Find the file system of a URI, and the path in it.

    Raises:
        ValueError: if neither pyarrow nor fsspec knows one.
        OSError: if it cannot be reached.
    """
    import fsspec
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, PyFileSystem

    try:
        found: tuple[Any, str] = FileSystem.from_uri(uri)
        return found
    except ArrowInvalid as error:
        if uri.partition("://")[0] in ("s3", "gs", "gcs", "hdfs", "file", "abfs", "abfss"):
            raise ValueError(f"{uri}: {error}") from error
    try:
        files, path = fsspec.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{uri}: no file system is known for it: {error}") from error
    return PyFileSystem(FSSpecHandler(files)), path
