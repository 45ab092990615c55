"""Find recordings: files, folders and glob patterns to names, sizes and time stamps."""

import glob
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from pathlib import Path
from typing import Any

from satpipe.pipeline.storage import described, errors, filesystem, is_remote
from satpipe.sat.errors import ConfigError

# Read by libsndfile.
_SNDFILE = ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .caf .au .snd .sph .voc"
# Read by FFmpeg, with the extra `ffmpeg`; without it, the status of these files names the extra.
_FFMPEG = ".m4a .m4b .mp4 .aac .wma .webm .mka .mkv .mov .amr .3gp .ac3 .ape .wv"
# Files that lie beside recordings and are no sound. Any other file might be sound that satpipe does not read.
_OTHER = (
    ".txt .csv .tsv .json .jsonl .xml .yaml .yml .toml .ini .cfg .log .md .html .htm .pdf .doc .docx .odt .xls .xlsx "
    ".ods .jpg .jpeg .png .gif .svg .tif .tiff .bmp .kml .kmz .gpx .parquet .textgrid .jams .db .sqlite .lock .py "
    ".ipynb .r .sh .bat .md5 .sha256 .sfk .pkf .asd .reapeaks .ds_store .lnk .url"
)
EXTENSIONS = frozenset(f"{_SNDFILE} {_FFMPEG}".split())
_NO_SOUND = frozenset(_OTHER.split())
# A backslash that, if it stayed alone, would look like an escaped byte; see `name_in_tables`.
_ESCAPE = re.compile(r"\\(?=x(?:[89a-f][0-9a-f]|5c))")


@dataclass(frozen=True)
class Source:
    """An audio file.

    Attributes:
        recording: Its name in the tables: the path relative to the input folder, with forward slashes.
        path: Absolute path or URL.
        modified_ns: Time of the last change, in nanoseconds since 1970.
    """

    recording: str
    path: str
    size_bytes: int
    modified_ns: int

    @property
    def modified_us(self) -> int:
        """Time of the last change as in the tables, in microseconds since 1970."""
        return self.modified_ns // 1000


@dataclass
class Search:
    """A search for recordings.

    Attributes:
        inputs: Files, folders or glob patterns; paths or URLs.
        problems: Folders that could not be read, one line each; filled during the search.
    """

    inputs: tuple[str, ...]
    problems: list[str] = field(default_factory=list)
    _others: set[str] = field(default_factory=set, init=False)  # paths of files that might be sound

    def __iter__(self) -> Iterator[Source]:
        """Yield the recordings, sorted by name within each input.

        Folders are searched recursively, through symbolic links but not in circles. An input that is a file is included
        with any extension; in folders and patterns, only files with a known extension, in any letter case.

        Raises:
            ConfigError: An input does not exist, or two recordings would have the same name.
        """
        self.problems.clear()
        self._others.clear()
        names: dict[str, str] = {}
        for given in self.inputs:
            for source in self._remote(given) if is_remote(given) else self._local(given):
                other = names.setdefault(source.recording, source.path)
                if other != source.path and _identity(other) != _identity(source.path):
                    raise ConfigError(
                        f"{other} and {source.path} would both be named '{source.recording}' in the tables: "
                        "name the folder that contains both"
                    )
                if other is source.path:
                    yield source

    @property
    def not_read(self) -> dict[str, int]:
        """Number of files that the last search left out, by lower-case extension, the most frequent one first.

        They may be sound in a format that satpipe does not read. Texts, pictures and the like do not count.
        """
        kinds = Counter(Path(path).suffix.lower() for path in self._others)
        return dict(sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0])))

    def _is_audio(self, path: str) -> bool:
        """Return True if a file has a known extension; note one that might be sound nevertheless."""
        name = path.rpartition("/")[2]
        extension = Path(name).suffix.lower()
        if name.startswith(".") or extension in _NO_SOUND:
            return False
        if extension not in EXTENSIONS:
            self._others.add(path)
        return extension in EXTENSIONS

    def _local(self, given: str) -> Iterator[Source]:
        path = Path(given)
        if path.is_dir():
            yield from (_source(path, file) for file in self._walk(path))
        elif path.exists():
            yield _source(path.parent, path)
        elif glob.has_magic(given):
            root = Path(*_fixed(path.parts))
            for match in sorted(map(Path, glob.iglob(given, recursive=True))):
                if match.is_dir():
                    yield from (_source(root, file) for file in self._walk(match))
                elif self._is_audio(str(match)):
                    yield _source(root, match)
        else:
            raise ConfigError(f"{given} not found")

    def _remote(self, given: str) -> Iterator[Source]:
        """Yield the recordings at a URL: an object, a folder or, except for http, a pattern."""
        store = filesystem(given)
        scheme, _, path = given.partition("://")
        web = scheme in ("http", "https")
        try:
            if web or store.isfile(given):
                root, found = path.rpartition("/")[0], {given: store.info(given)}
            elif glob.has_magic(path):
                root, found = "/".join(_fixed(path.split("/"))), store.glob(given, detail=True)
            else:
                root, found = path.rstrip("/"), store.find(given, detail=True)
        except FileNotFoundError:
            raise ConfigError(f"{given} not found") from None
        except errors() as error:
            raise ConfigError(f"{given} cannot be searched: {described(error)}") from error
        for name in sorted(found):
            bare = name.partition("://")[2] if "://" in name else name
            if found[name]["type"] == "file" and (name == given or self._is_audio(bare)):
                recording = bare.removeprefix(root).removeprefix("/") or bare.strip("/")  # the page of a web server
                yield Source(recording, f"{scheme}://{bare}", found[name]["size"] or 0, _modified_ns(found[name]))

    def _walk(self, folder: Path) -> Iterator[Path]:
        def report(error: OSError) -> None:
            self.problems.append(f"{error.filename}: {error.strerror}")

        seen = {_identity(folder)}
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=report):
            entered = []
            for name in sorted(folders):
                identity = _identity(os.path.join(parent, name))
                if not name.startswith(".") and identity not in seen:
                    seen.add(identity)
                    entered.append(name)
            folders[:] = entered
            for name in sorted(files):
                if self._is_audio(f"{parent}/{name}"):
                    yield Path(parent, name)


def _modified_ns(info: dict[str, Any]) -> int:
    """Return the time of an object's last change, for which each store has another key; 0 if unknown."""
    modified = info.get("LastModified") or info.get("updated") or info.get("mtime") or 0
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    return int((modified.timestamp() if isinstance(modified, datetime) else modified) * 1e9)


def _source(root: Path, path: Path) -> Source:
    name = path.relative_to(root).as_posix()
    try:
        status = path.stat()
        size_bytes, modified_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link, which is reported when it is opened
        size_bytes = modified_ns = 0
    return Source(name_in_tables(name), str(path.absolute()), size_bytes, modified_ns)


def name_in_tables(name: str) -> str:
    r"""Return a name as UTF-8, which Parquet strings are: other bytes are escaped as in `\xf6`.

    A name that contains such a text literally has its backslash escaped (`\x5cxf6`), so that no two names are equal.
    """
    return os.fsencode(_ESCAPE.sub(r"\\x5c", name)).decode("utf-8", "backslashreplace")


def _identity(path: str | Path) -> tuple[int, int] | str:
    """Return a value that is equal for two paths of one file or folder."""
    try:
        status = os.stat(path)
    except OSError:
        return str(path)
    return status.st_dev, status.st_ino


def _fixed(parts: Sequence[str]) -> Sequence[str]:
    """Return the parts of a pattern before the first one with wildcards."""
    return list(takewhile(lambda part: not glob.has_magic(part), parts[:-1]))
