"""Download files into the per-user cache: resumed where they broke off, checked before a file gets its final name.

Environment variable:
    SATPIPE_CACHE: Folder of the cache, instead of the platform's cache folder for `satpipe`.

For each file NAME.EXT the cache also contains its record `NAME.json` (sha256, url, size in bytes, date). During a
download it contains the partial file `NAME.EXT.part`, the file's version on the server in `NAME.EXT.part.json`, and
`NAME.lock`.
"""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import platformdirs
import requests
from filelock import FileLock
from satpipe.sat.errors import DownloadError, SatpipeError
from satpipe.sat.hashes import sha256_of

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded so far and the size of the file, None if the server does not state it."""

_ATTEMPTS = 5
_RETRY_WAIT_S = 0.5  # doubled each time
_TIMEOUT_S = (10, 60)  # to connect, between reads
_BLOCK_BYTES = 1 << 16  # at most this much is lost when a connection breaks
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Source:
    """A file to download.

    Attributes:
        url: Its address.
        page: The page that publishes it.
        variable: Environment variable with the address of a mirror.
        content: Description of the file, for messages.
        max_bytes: Maximum size; None: no limit.
    """

    url: str
    page: str
    variable: str
    content: str
    max_bytes: int | None = None

    @property
    def advice(self) -> str:
        """Advice to the user if the download is refused."""
        return f"Check {self.page}, or set {self.variable} to a mirror"


def cache_folder() -> Path:
    """Return the folder of downloaded files; it need not exist."""
    return Path(os.path.expanduser(os.environ.get("SATPIPE_CACHE") or platformdirs.user_cache_dir("satpipe")))


def recorded(path: Path) -> dict[str, Any]:
    """Return the record of a file in the cache; an empty dict if the file was not downloaded."""
    return _read_json(path.with_suffix(".json")) if path.is_file() else {}


def intact(path: Path) -> bool:
    """Return True if a file is in the cache and has the recorded sha256."""
    record = recorded(path)
    return bool(record) and sha256_of(path) == record.get("sha256")


def download(source: Source, path: Path, check: Callable[[Path], None], progress: Progress | None = None) -> None:
    """Download a file into the cache, unless it is already there.

    An interrupted download is resumed if the file on the server has not changed. The file gets its final name only
    after it was checked and recorded. A second download of the same file waits for the first.

    Args:
        source: Where the file comes from.
        path: Its path in the cache.
        check: Called with the path of the downloaded file; raises a `SatpipeError` if it is not the expected file.
        progress: Called repeatedly during the download.

    Raises:
        DownloadError: The file could not be downloaded or written, is too large, or is another file.
    """
    if path.parts[0] == "~":
        raise DownloadError("the home folder of this user is not known: set SATPIPE_CACHE to a folder for downloads")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not intact(path):
                _download(source, path, check, progress or (lambda done_bytes, total_bytes: None))
    except OSError as error:
        raise DownloadError(
            f"{source.url} could not be written to {path.parent}: {error}; set SATPIPE_CACHE to use another folder"
        ) from error


def _download(source: Source, path: Path, check: Callable[[Path], None], progress: Progress) -> None:
    """Download, check, record and rename, in this order: a file with its final name is valid and recorded."""
    part = path.with_name(f"{path.name}.part")
    _fetch(source, part, progress)
    try:
        check(part)
    except SatpipeError as error:
        part.unlink()
        reason = str(error).replace(str(part), "it")
        raise DownloadError(
            f"{source.url} is not {source.content}: {reason}. The download was deleted. "
            f"Check the address, and {source.variable} if it is set"
        ) from error
    record = {
        "sha256": sha256_of(part),
        "url": source.url,
        "size": part.stat().st_size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_json(path.with_suffix(".json"), record)
    os.replace(part, path)
    _version_path(part).unlink(missing_ok=True)


def _fetch(source: Source, part: Path, progress: Progress) -> None:
    """Download a file into `part`, continuing from its present content, with retries.

    Raises:
        DownloadError: The request was refused, failed too often, or the file is too large.
    """
    url, problem = source.url, ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_RETRY_WAIT_S * 2 ** (attempt - 1))
        try:
            problem = _fetch_once(source, part, progress)
        except requests.exceptions.ChunkedEncodingError:
            problem = "the connection was closed"
        except (requests.ConnectionError, requests.Timeout) as error:
            problem = str(error)
        except requests.RequestException as error:
            raise DownloadError(f"{url} could not be downloaded: {error}; check {source.variable}") from error
        if not problem:
            return
    kept_bytes = part.stat().st_size if part.exists() else 0
    raise DownloadError(
        f"{url} could not be downloaded in {_ATTEMPTS} attempts: {problem}; try again later"
        + (f": the download continues after {kept_bytes} bytes" if kept_bytes else "")
    )


def _fetch_once(source: Source, part: Path, progress: Progress) -> str:
    """Download the rest of a file in one request; return the problem if a retry may solve it, else an empty text."""
    url, version = source.url, _read_json(_version_path(part))
    done_bytes = part.stat().st_size if part.exists() and version.get("url") == url and version.get("validator") else 0
    if done_bytes and done_bytes == version["size"]:
        return ""  # the download was complete when the program was stopped
    headers = {"Accept-Encoding": "identity"}  # lengths and ranges must be those of the file
    if done_bytes:
        headers |= {"Range": f"bytes={done_bytes}-", "If-Range": version["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        status = response.status_code
        continued = status == 206 and _continues(response, done_bytes, version)
        if status == 416 or (status == 206 and not continued):
            part.unlink(missing_ok=True)
            return f"HTTP {status} {response.reason}: the file on the server has changed"
        if status in _PASSING_STATUS:
            return f"HTTP {status} {response.reason}"
        if status not in (200, 206):
            raise DownloadError(f"{url} was refused: HTTP {status} {response.reason}. {source.advice}")
        if continued:
            total_bytes = version["size"]
        else:  # from the start; emptied before the version is recorded, so that the two always agree
            done_bytes = 0
            part.write_bytes(b"")
            length = response.headers.get("Content-Length", "")
            total_bytes = int(length) if length.isdecimal() else None
            _write_json(_version_path(part), {"url": url, "validator": _validator(response), "size": total_bytes})
        with part.open("ab") as file:
            for block in response.iter_content(_BLOCK_BYTES):
                done_bytes += len(block)
                if source.max_bytes and max(done_bytes, total_bytes or 0) > source.max_bytes:
                    part.unlink()
                    raise DownloadError(f"{url} has more than {source.max_bytes / 1e6:g} MB. {source.advice}")
                file.write(block)
                progress(done_bytes, total_bytes)
    if total_bytes is not None and done_bytes != total_bytes:
        return f"{done_bytes} bytes received instead of {total_bytes}"
    return ""


def _continues(response: requests.Response, done_bytes: int, version: dict[str, Any]) -> bool:
    """Return True if a response 206 contains exactly the missing bytes of the same version."""
    if done_bytes == 0 or _validator(response) not in (None, version["validator"]):
        return False
    total = r"\d+" if version["size"] is None else version["size"]
    content_range = response.headers.get("Content-Range", "")
    return re.fullmatch(rf"bytes {done_bytes}-\d+/({total}|\*)", content_range) is not None


def _validator(response: requests.Response) -> str | None:
    """Return the identifier of the file's version for If-Range, which does not accept a weak ETag."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _version_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty dict if the file is missing or damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file under a temporary name, then rename it, so that it is always complete."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)
