"""Read and write local files and objects in object stores in the same way.

A location is a path of this machine or a URL such as `s3://bucket/folder`; fsspec implements the schemes, UPath gives
URLs the methods of paths.
"""

import hashlib
import io
import os
import re
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
from satpipe.sat.errors import ConfigError, OutputError, install
from upath import UPath

_NAME_BYTES = 255  # maximum length of a file's name on most file systems
_PATH_BYTES = 2000  # below the maximum length of a path, 4096 on Linux, together with the output folder
_HASH_DIGITS = 16
_HASHED = re.compile(rf"~[0-9a-f]{{{_HASH_DIGITS}}}\Z")  # the end of a name that is not the recording's
READ_BYTES = 2**16  # at a time
EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gs", "gcs": "gs", "http": "http", "https": "http"}


def is_remote(name: str | Path) -> bool:
    """Return True if a name is a URL, not a path of this machine."""
    return "://" in str(name)


def locate(name: str | Path) -> Path:
    """Return a location: an absolute path of this machine, or for a URL a `UPath`, which is used like a path.

    Raises:
        ConfigError: The scheme of a URL is not known, or needs an extra that is not installed.
    """
    if not is_remote(name):
        return Path(name).absolute()
    filesystem(str(name))
    location: Any = UPath(name, use_listings_cache=False)  # to see what other workers wrote a moment ago
    return location  # type: ignore[no-any-return]


def filesystem(url: str) -> fsspec.AbstractFileSystem:
    """Return the file system of a URL.

    Raises:
        ConfigError: The scheme is not known, or needs an extra that is not installed.
    """
    scheme = url.partition("://")[0]
    try:
        return fsspec.filesystem(scheme, use_listings_cache=False)
    except ImportError as error:
        extra = EXTRAS.get(scheme, scheme)
        raise ConfigError(f"to use {url}, {install(extra)}") from error
    except ValueError as error:
        raise ConfigError(f"{url}: {scheme}:// is not a known scheme") from error


def errors(*others: type[Exception]) -> tuple[type[Exception], ...]:
    """Return the classes of exceptions that reading and writing can raise, and `others`.

    Clients of object stores have classes of their own, for example if the store cannot be reached.
    """
    own = (("botocore.exceptions", "BotoCoreError"), ("aiohttp", "ClientError"), ("gcsfs.retry", "HttpError"))
    return OSError, *others, *(getattr(sys.modules[module], name) for module, name in own if module in sys.modules)


def described(error: Exception) -> str:
    """Return the reason of an exception of `errors` in one line; for an object store, also what to check."""
    if isinstance(error, OSError) and error.errno:
        return error.strerror or str(error)
    reason = " ".join(str(error).split()).rstrip(".")
    return f"{reason}. Check the address of the object store, the network and your credentials"


class RemoteFile(io.RawIOBase):
    """A file at a URL, read in ranges on demand.

    Decoders in C read it through callbacks that cannot raise: an error ends the file for them and is kept here.

    Attributes:
        error: Why reading broke off, or "".
    """

    def __init__(self, url: str, block_bytes: int | None = None) -> None:
        """Open the file; `block_bytes` is the size of a range, by default that of the store, which may be megabytes.

        Raises:
            ConfigError: The scheme needs an extra that is not installed.
            OSError: The file cannot be opened.
        """
        super().__init__()
        self.error = ""
        try:
            self._file = filesystem(url).open(url, "rb", block_size=block_bytes)
        except errors() as error:
            raise error if isinstance(error, OSError) else OSError(described(error)) from error

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer; return the number of bytes, 0 at the end or if reading breaks off."""
        try:
            content = self._file.read(len(buffer))
        except errors(ValueError, RuntimeError) as error:
            self.error = str(error) or type(error).__name__
            return 0
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position."""
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        """Return the position."""
        return int(self._file.tell())

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


@contextmanager
def opened(path: str) -> Iterator[IO[bytes]]:
    """Open a file of this machine or an object in a store, to read little of it.

    Raises:
        OSError: The file cannot be opened, or its store cannot be read.
    """
    raw = RemoteFile(path, READ_BYTES) if is_remote(path) else io.FileIO(path)
    with io.BufferedReader(raw, READ_BYTES) as file:
        yield file
        if isinstance(raw, RemoteFile) and raw.error:
            raise OSError(f"its store could not be read: {raw.error}")


@contextmanager
def written_whole(location: Any) -> Iterator[Path]:
    """Provide a local file to write to; `location` appears with its content when everything is written, or not at all.

    Raises:
        OSError: The location cannot be written.
    """
    if is_remote(location):
        with tempfile.TemporaryDirectory(prefix="satpipe-") as folder:
            temporary = Path(folder, "content")  # an object's name may be longer than a file's
            yield temporary
            location.fs.put_file(str(temporary), location.path)  # an object appears when its upload is complete
        return
    temporary = location.with_name(f".{uuid.uuid4().hex}")  # short, whatever the length of the name
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power failure could leave the name without the content
        os.replace(temporary, location)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def output_file(location: Any, folder: Path | None = None) -> Iterator[Path]:
    """Provide a file to write to as `written_whole` does, and make `folder` if it does not exist.

    Args:
        location: The file.
        folder: Named by an error; None: the file is named, and its own folder is made.

    Raises:
        OutputError: The file cannot be written.
    """
    try:
        if not is_remote(location):
            (folder or location.parent).mkdir(parents=True, exist_ok=True)
        with written_whole(location) as path:
            yield path
    except errors() as error:
        raise OutputError(f"{folder or location} cannot be written: {described(error)}") from error


def move(source: Any, target: Any) -> None:
    """Give a file another name in the same store, in place of a file that has it.

    Raises:
        OSError: The file cannot be moved.
    """
    if is_remote(source):
        source.fs.mv(source.path, target.path)  # copied by the store itself
    else:
        os.replace(source, target)


def write_text(location: Any, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all; make its folder if it does not exist.

    Raises:
        OutputError: The file cannot be written.
    """
    with output_file(location) as path:
        path.write_text(text, encoding="utf-8", newline="\n")


def relative_path(recording: str, suffix: str = "") -> str:
    """Return a relative path for a file about a recording: the recording's name with a suffix.

    It cannot lead out of a folder, no part of it is too long for a file system, and no two recordings share one: a part
    of the name that cannot be the name of such a file is shortened and gets a hash.
    """
    *folders, name = recording.split("/")
    # A folder that is called like the file of another recording would be in its way.
    parts = [_shortened(part, part) if suffix and part.endswith(suffix) else _file_name(part) for part in folders]
    path = "/".join([*parts, _file_name(name, suffix)])
    return path if len(path.encode()) <= _PATH_BYTES else _shortened(name, recording, suffix)


def _file_name(text: str, suffix: str = "") -> str:
    """Return a text with a suffix as the name of a file."""
    usable = text not in ("", ".", "..") and "\0" not in text and not _HASHED.search(text)
    return text + suffix if usable and len((text + suffix).encode()) <= _NAME_BYTES else _shortened(text, text, suffix)


def _shortened(text: str, hashed: str, suffix: str = "") -> str:
    """Return the beginning of a text, the hash of another text, and a suffix."""
    end = f"~{hashlib.sha256(hashed.encode()).hexdigest()[:_HASH_DIGITS]}{suffix}"
    begin = text.encode()[: _NAME_BYTES - len(end.encode())].decode("utf-8", "ignore")
    return begin.replace("\0", "").strip(".") + end
