"""The bundled model, and the published checkpoints in a per-user cache.

Environment variables:
    SATPIPE_CACHE: Folder of the cache, instead of the platform's cache folder for `satpipe`.
    SATPIPE_HUB_URL: Folder on a mirror with the published files, instead of the Zenodo record.

For each published model NAME that was pulled, the cache contains `NAME.pt` and its record `NAME.json` (sha256, url,
size in bytes, date). During a download it also contains the partial file `NAME.pt.part`, its version on the server
`NAME.pt.part.json`, and `NAME.lock`.
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
import torch
from filelock import FileLock
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError
from satpipe.sat.model.config import BUNDLED, CONFIGS, not_found
from satpipe.sat.model.network import SAT
from satpipe.sat.tensor_files import sha256_of
from satpipe.sat.weights.checkpoint import load

BUNDLED_CONFIGS = {BUNDLED: "SAT_T_2s", "bundled_1s": "SAT_T_1s"}
"""The same weights for chunks of 2 s, or of 1 s with the first half of the time positions."""
BUNDLED_SOURCE = "bundled with satpipe"
BUNDLED_LICENCE = "Apache-2.0"
RECORD_URL = "https://zenodo.org/record/7964975"
PUBLISHED_LICENCE = "see the Zenodo record"

Progress = Callable[[int, int | None], None]
"""Receives the bytes downloaded so far and the size of the file, None if the server does not state it."""

BUNDLED_PATH = Path(__file__).parents[1] / "data" / "bundled.safetensors"
_ATTEMPTS = 5
_RETRY_WAIT_S = 0.5  # doubled each time
_TIMEOUT_S = (10, 60)  # to connect, between reads
_BLOCK_BYTES = 1 << 16  # at most this much is lost when a connection breaks
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Published:
    """A checkpoint in the paper's Zenodo record."""

    name: str
    """Of the configuration and of the model."""
    file: str
    map_percent: float
    """mAP on AudioSet's evaluation set, as stated in the file name."""

    @property
    def url(self) -> str:
        """Address of the file."""
        folder = os.environ.get("SATPIPE_HUB_URL") or f"{RECORD_URL}/files"
        return f"{folder.rstrip('/')}/{self.file}?download=1"

    @property
    def path(self) -> Path:
        """Path in the cache."""
        return cache_folder() / f"{self.name}.pt"

    @property
    def record_path(self) -> Path:
        """Path of the record with the sha256."""
        return cache_folder() / f"{self.name}.json"

    @property
    def present(self) -> bool:
        """True if the checkpoint was pulled; the sha256 is not checked."""
        return self.path.is_file() and self.record_path.is_file()


PUBLISHED = {
    published.name: published
    for published in (
        Published("SAT_T_2s", "SAT_T_stream2s_mAP_43_34.pt", 43.34),
        Published("SAT_S_2s", "SAT_S_stream2s_mAP_43_37.pt", 43.37),
        Published("SAT_B_2s", "SAT_B_stream2s_mAP_45_29.pt", 45.29),
        Published("SAT_T_1s", "SAT_T_stream1s_mAP_40_11.pt", 40.11),
        Published("SAT_S_1s", "SAT_S_stream1s_mAP_40_55.pt", 40.55),
        Published("SAT_B_1s", "SAT_B_stream1s_mAP_41_37.pt", 41.37),
        Published("audiotransformer_tiny", "audiotransformer_tiny_mAP_44_15.pt", 44.15),
        Published("audiotransformer_small", "audiotransformer_small_mAP_45_68.pt", 45.68),
        Published("audiotransformer_base", "audiotransformer_base_mAP_47_40.pt", 47.40),
    )
}


@dataclass(frozen=True)
class ModelRow:
    """A known model, described without loading it."""

    name: str
    config: str
    parameters: int
    map_percent: float | None
    """Published mAP on AudioSet's evaluation set; the bundled model has none."""
    licence: str
    present: bool
    """True if the model can be used without a download."""


def cache_folder() -> Path:
    """Return the folder of the published checkpoints; it need not exist."""
    return Path(os.environ.get("SATPIPE_CACHE") or platformdirs.user_cache_dir("satpipe")).expanduser()


def list_models() -> list[ModelRow]:
    """Return the bundled model with both delays, and the published models."""
    bundled = [
        ModelRow(name, config, _parameters(config), None, BUNDLED_LICENCE, True)
        for name, config in BUNDLED_CONFIGS.items()
    ]
    return bundled + [
        ModelRow(name, name, _parameters(name), published.map_percent, PUBLISHED_LICENCE, published.present)
        for name, published in PUBLISHED.items()
    ]


def pulled(name: str) -> tuple[Path, str]:
    """Return the path in the cache of the published checkpoint `name`, and the URL that it was pulled from.

    Raises:
        CheckpointError: The checkpoint was not pulled, or its file has changed since.
    """
    published = PUBLISHED[name]
    command = f"`satpipe models pull {name}`"
    if not published.path.is_file():
        raise CheckpointError(f"the model '{name}' is not in {cache_folder()}; run {command}")
    if not _intact(published):
        raise CheckpointError(
            f"{published.path} has changed since it was pulled: its sha256 is not the one in "
            f"{published.record_path.name}; run {command} again"
        )
    return published.path, str(_read_json(published.record_path).get("url"))


def pull(name: str, progress: Progress | None = None) -> Path:
    """Download a published checkpoint into the cache, unless it is already there.

    An interrupted download is resumed if the file on the server has not changed. A file gets its final name only after
    it has been loaded as the model `name`. A second pull of the same model waits for the first.

    Args:
        name: Name of the model.
        progress: Called repeatedly during the download.

    Returns:
        Path of the checkpoint.

    Raises:
        ConfigError: No published model has this name; the message suggests similar ones.
        DownloadError: The file could not be downloaded or written, or is another model.
    """
    if name in BUNDLED_CONFIGS:
        raise ConfigError("the bundled model ships with satpipe and need not be pulled")
    if name not in PUBLISHED:
        raise not_found("published model", name, PUBLISHED)
    published = PUBLISHED[name]
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f"{name}.lock"):
            if not _intact(published):
                _download(published, progress or (lambda done_bytes, total_bytes: None))
    except OSError as error:
        raise DownloadError(
            f"{published.url} could not be written to {cache_folder()}: {error}; "
            "set SATPIPE_CACHE to use another folder"
        ) from error
    return published.path


def _parameters(config: str) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SAT(CONFIGS[config]).parameters())


def _intact(published: Published) -> bool:
    """Return True if the checkpoint is in the cache and has the recorded sha256."""
    return published.present and sha256_of(published.path) == _read_json(published.record_path).get("sha256")


def _download(published: Published, progress: Progress) -> None:
    """Download, validate, record and rename, in this order: a file with its final name is valid and recorded."""
    url = published.url
    part = published.path.with_suffix(".pt.part")
    _fetch(url, part, progress)
    try:
        _validate(part, published.name)
    except CheckpointError as error:
        part.unlink()
        reason = str(error).replace(str(part), "it")
        raise DownloadError(
            f"{url} is not the checkpoint of {published.name}: {reason}. The download was deleted. "
            "Check the address, and SATPIPE_HUB_URL if it is set"
        ) from error
    record = {
        "sha256": sha256_of(part),
        "url": url,
        "size": part.stat().st_size,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    _write_json(published.record_path, record)
    os.replace(part, published.path)
    _version_path(part).unlink(missing_ok=True)


def _validate(path: Path, name: str) -> None:
    """Check that a file is the model called `name`.

    Raises:
        CheckpointError: The file is another model, or not a checkpoint.
    """
    try:
        found = load(path).config.name
    except CheckpointError:  # its shapes may be ambiguous: those of SAT_S_1s and SAT_S_2s are the same
        found = load(path, name).config.name
    if found != name:  # checked here, since a SAT_T_1s can be loaded as a SAT_T_2s
        raise CheckpointError(f"{path} is {found}")


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Download a file into `part`, continuing from its present content, with retries.

    Raises:
        DownloadError: The request was refused, or failed too often.
    """
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_RETRY_WAIT_S * 2 ** (attempt - 1))
        try:
            problem = _fetch_once(url, part, progress)
        except requests.exceptions.ChunkedEncodingError:
            problem = "the connection was closed"
        except (requests.ConnectionError, requests.Timeout) as error:
            problem = str(error)
        except requests.RequestException as error:
            raise DownloadError(f"{url} could not be downloaded: {error}; check SATPIPE_HUB_URL") from error
        if not problem:
            return
    kept_bytes = part.stat().st_size if part.exists() else 0
    raise DownloadError(
        f"{url} could not be downloaded in {_ATTEMPTS} attempts: {problem}; try again later"
        + (f": the download continues after {kept_bytes} bytes" if kept_bytes else "")
    )


def _fetch_once(url: str, part: Path, progress: Progress) -> str:
    """Download the rest of a file in one request; return the problem if a retry may solve it, else an empty text."""
    version = _read_json(_version_path(part))
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
            raise DownloadError(
                f"{url} was refused: HTTP {status} {response.reason}. "
                f"Check {RECORD_URL}, or set SATPIPE_HUB_URL to a mirror"
            )
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
                file.write(block)
                done_bytes += len(block)
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
    """Return the identifier of the file's version for If-Range, which allows no weak ETag."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _version_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or damaged."""
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
