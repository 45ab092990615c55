"""Find recordings: files, folders and glob patterns to names, sizes and time stamps."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from satpipe.pipeline.storage import filesystem, is_remote
from satpipe.sat.errors import ConfigError

# libsndfile reads these
_READ = ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mpga .aif .aiff .aifc .caf .au .snd .sph .voc"
# FFmpeg reads these, with the extra `ffmpeg`; without it they get a row in the recordings table that says so.
_NAMED = ".m4a .m4b .mp4 .aac .wma .webm .mka .mkv .mov .amr .3gp .ac3 .ape .wv"
EXTENSIONS = frozenset(f"{_READ} {_NAMED}".split())


@dataclass(frozen=True)
class Source:
    """One file of audio.

    Attributes:
        recording: Its name in the tables: the path relative to the input folder, posix style.
        path: Where it is: an absolute path or a URL.
        size_bytes: Of the file.
        modified_ns: Time stamp of the file, nanoseconds since 1970.
    """

    recording: str
    path: str
    size_bytes: int
    modified_ns: int


@dataclass
class Search:
    """What was asked for, and what was in the way.

    Attributes:
        inputs: Files, folders or glob patterns; paths or URLs.
        problems: Folders that could not be read, one line each; filled while searching.
    """

    inputs: tuple[str, ...]
    problems: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Source]:
        """Yield the recordings, in the order of their names within each input.

        Folders are searched recursively, through symbolic links but never in a circle. A file named outright is
        taken whatever its extension; in folders and patterns the extension decides, in any letter case.

        Raises:
            ConfigError: An input does not exist, or two recordings would get the same name.
        """
        self.problems.clear()
        names: dict[str, str] = {}
        for given in self.inputs:
            for source in self._remote(given) if is_remote(given) else self._local(given):
                other = names.setdefault(source.recording, source.path)
                if other != source.path and not _same(other, source.path):
                    raise ConfigError(
                        f"{other} and {source.path} would both be called '{source.recording}' in the tables: "
                        "give the folder that holds both"
                    )
                if other is source.path:
                    yield source

    def _local(self, given: str) -> Iterator[Source]:
        path = Path(given)
        if path.is_dir():
            yield from (_source(path, file) for file in self._walk(path))
        elif path.exists():
            yield _source(path.parent, path)
        elif glob.has_magic(given):
            root = Path(*_until_magic(path.parts))
            for match in sorted(map(Path, glob.iglob(given, recursive=True))):
                if match.is_dir():
                    yield from (_source(root, file) for file in self._walk(match))
                elif _is_audio(match.name):
                    yield _source(root, match)
        else:
            raise ConfigError(f"there is no {given}")

    def _remote(self, given: str) -> Iterator[Source]:
        """Yield the recordings behind a URL: an object, a folder of them or, but for http, a pattern."""
        store = filesystem(given)
        scheme, _, path = given.partition("://")
        web = scheme in ("http", "https")
        try:
            if web or store.isfile(given):
                root, found = path.rpartition("/")[0], {given: store.info(given)}
            elif glob.has_magic(path):
                root, found = "/".join(_until_magic(tuple(path.split("/")))), store.glob(given, detail=True)
            else:
                root, found = path.rstrip("/"), store.find(given, detail=True)
        except FileNotFoundError:
            raise ConfigError(f"there is no {given}") from None
        except OSError as error:
            raise ConfigError(f"{given} cannot be looked at: {error}") from error
        for name in sorted(found):
            bare = name.partition("://")[2] if "://" in name else name
            if found[name]["type"] == "file" and (name == given or _is_audio(bare)):
                recording = bare.removeprefix(root).lstrip("/")
                yield Source(recording, f"{scheme}://{bare}", found[name]["size"] or 0, _modified_ns(found[name]))

    def _walk(self, folder: Path) -> Iterator[Path]:
        def report(error: OSError) -> None:
            self.problems.append(f"{error.filename}: {error.strerror}")

        seen = {_identity(folder)}
        for parent, folders, files in os.walk(folder, followlinks=True, onerror=report):
            entered = []
            for name in sorted(folders):
                identity = _identity(Path(parent, name))
                if not name.startswith(".") and identity not in seen:
                    seen.add(identity)
                    entered.append(name)
            folders[:] = entered
            for name in sorted(files):
                if _is_audio(name):
                    yield Path(parent, name)


def _is_audio(name: str) -> bool:
    name = name.rpartition("/")[2]
    return not name.startswith(".") and Path(name).suffix.lower() in EXTENSIONS


def _modified_ns(info: dict[str, Any]) -> int:
    """Time stamp of an object, under whatever name its store has for it; 0 where there is none."""
    modified = info.get("LastModified") or info.get("updated") or info.get("mtime") or 0
    if isinstance(modified, str):
        modified = datetime.fromisoformat(modified)
    return int((modified.timestamp() if isinstance(modified, datetime) else modified) * 1e9)


def _source(root: Path, path: Path) -> Source:
    name = path.relative_to(root).as_posix()
    try:
        status = path.stat()
        size_bytes, modified_ns = status.st_size, status.st_mtime_ns
    except OSError:  # a dangling link: it gets its row when it cannot be opened
        size_bytes = modified_ns = 0
    # A name that is not UTF-8 is shown with its bytes escaped: Parquet strings are UTF-8.
    return Source(os.fsencode(name).decode("utf-8", "backslashreplace"), str(path.absolute()), size_bytes, modified_ns)


def _same(path: str, other: str) -> bool:
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError:
        return (-1, hash(str(folder)))
    return status.st_dev, status.st_ino


def _until_magic(parts: tuple[str, ...]) -> tuple[str, ...]:
    plain = []
    for part in parts[:-1]:
        if glob.has_magic(part):
            break
        plain.append(part)
    return tuple(plain)
