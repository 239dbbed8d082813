"""The file that HDF5 writes to: it keeps errors of the disk from HDF5, and raises them at the end.

HDF5 cannot bear an error while it writes. For each object that is freed it then tries again and
prints another traceback, and it may crash the process.
"""

import io
import os
from pathlib import Path
from typing import Any


class H5Target(io.RawIOBase):
    """A new file, as `h5py.File` takes it; after an error it works on in memory.

    Attributes
    ----------
    error
        The first error; what HDF5 has written since is not on the disk.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._position = 0
        self._size = 0
        self._in_memory: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()

    def raise_error(self) -> None:
        """Raise the first error; do nothing if there was none."""
        if self.error:
            raise self.error

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, bytes, from the start or from the end; return it from the start."""
        self._position = offset + (self._size if whence == os.SEEK_END else 0)
        return self._position

    def tell(self) -> int:
        """Return the position, bytes from the start."""
        return self._position

    def write(self, block: Any) -> int:
        """Write all bytes at the position; return their number."""
        content = memoryview(block).cast("B")
        if not self.error:
            try:
                self._file.seek(self._position)
                rest = content
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError as error:
                self.error = error
        if self.error:
            self._in_memory.append((self._position, bytes(content)))
        self._position += len(content)
        self._size = max(self._size, self._position)
        return len(content)

    def readinto(self, buffer: Any) -> int:
        """Read what was written at the position, and zeros where nothing was."""
        content = memoryview(buffer).cast("B")
        start, end = self._position, self._position + len(content)
        self._file.seek(start)
        found = self._file.read(len(content))
        content[:] = found.ljust(len(content), b"\0")
        for position, block in self._in_memory:
            first, last = max(start, position), min(end, position + len(block))
            if first < last:
                content[first - start : last - start] = block[first - position : last - position]
        self._position = end
        return len(content)

    def truncate(self, size: int | None = None) -> int:
        """Set the length, bytes; None: up to the position."""
        self._size = size = self._position if size is None else size
        if not self.error:
            try:
                self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size
