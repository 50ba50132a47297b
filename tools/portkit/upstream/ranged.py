"""A wheel on the index as an archive, of which only the parts that are read are fetched.

A wheel is a zip archive whose directory is at its end, so its end and a few ranges are enough to
name and bring what is asked for.
"""

from __future__ import annotations

import io
import zipfile
import zlib

from portkit.errors import IntegrityError, Unavailable
from portkit.model import Event, Events, silent
from portkit.upstream.index import Index, IndexFile

_METADATA_CHUNK = 1 << 16  # bytes; the metadata stands near the end


def opened(
    index: Index, wheel: IndexFile, chunk: int, events: Events = silent
) -> zipfile.ZipFile | None:
    """The wheel, read by ranges of `chunk` bytes at least; None where the index serves none.

    Raises `Unavailable`, and `zipfile.BadZipFile` for what is no archive.
    """
    if wheel.size is None:
        return None
    tail = index.read_range(wheel, max(0, wheel.size - chunk), wheel.size)
    if tail is None:
        return None
    return zipfile.ZipFile(_Ranges(index, wheel, tail, chunk, events))


def metadata(index: Index, wheel: IndexFile) -> bytes:
    """The METADATA of a wheel: published beside it, else out of it without fetching all of it.

    Raises `Unavailable` where the index serves neither, `IntegrityError` for a damaged wheel.
    """
    published = index.metadata(wheel)
    if published is not None:
        return published
    try:
        archive = opened(index, wheel, _METADATA_CHUNK)
        if archive is None:
            raise Unavailable(f"the package index serves no metadata of {wheel.name}")
        with archive:
            for name in archive.namelist():
                if name.endswith(".dist-info/METADATA") and name.count("/") == 1:
                    return archive.read(name)
    except (zipfile.BadZipFile, zlib.error) as error:
        raise IntegrityError(f"{wheel.name} from the package index: {error}") from error
    raise IntegrityError(f"{wheel.name} from the package index has no metadata")


class _Ranges(io.RawIOBase):
    """A file of the index, read by ranges of at least `chunk` bytes; the last ones are kept."""

    def __init__(
        self, index: Index, file: IndexFile, tail: bytes, chunk: int, events: Events
    ) -> None:
        size = file.size or len(tail)
        self._index = index
        self._file = file
        self._size = size
        self._tail = (size - len(tail), tail)
        self._block = self._tail
        self._chunk = chunk
        self._events = events
        self._position = 0
        self._fetched = len(tail)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = origin + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int | None = -1, /) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._position + size)
        data = bytearray()
        while self._position < end:
            piece = self._at(self._position, end)
            data += piece
            self._position += len(piece)
        return bytes(data)

    def _at(self, position: int, end: int) -> bytes:
        """Some bytes from `position` on, `end` at most."""
        for start, block in (self._block, self._tail):
            if start <= position < start + len(block):
                return block[position - start : end - start]
        fetched = self._index.read_range(
            self._file, position, min(self._size, max(end, position + self._chunk))
        )
        if fetched is None:
            raise Unavailable(f"the package index stopped serving ranges of {self._file.name}")
        self._fetched += len(fetched)
        self._events(Event(f"fetching parts of {self._file.name}", self._fetched, None, "bytes"))
        self._block = (position, fetched)
        return fetched[: end - position]
