"""Models by name: the bundled one, and the published checkpoints in a per-user cache.

Environment variables:
    SATPIPE_CACHE: Folder of the cache, instead of the platform's cache folder for `satpipe`.
    SATPIPE_HUB_URL: Folder on a mirror that serves the published files, instead of the Zenodo record's.

For every published model NAME that was pulled the cache holds `NAME.pt` and its record `NAME.json` (sha256, url, size
in bytes, date). While it is being pulled there are also `NAME.pt.part`, what came so far, `NAME.pt.part.json`, which
version of the file on the server that is part of, and `NAME.lock`.
"""

import json
import os
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import platformdirs
import requests
import torch
from filelock import FileLock
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError
from satpipe.sat.model.config import BUNDLED as BUNDLED
from satpipe.sat.model.config import CONFIGS, ModelConfig
from satpipe.sat.model.network import SAT
from satpipe.sat.tensor_files import sha256_of
from satpipe.sat.weights.checkpoint import load

BUNDLED_CONFIGS = {BUNDLED: "SAT_T_2s", "bundled_1s": "SAT_T_1s"}
"""The same weights read chunks of 2 s, or of 1 s with the first half of the time positions."""
BUNDLED_SOURCE = "bundled with satpipe"
BUNDLED_LICENCE = "Apache-2.0"
RECORD_URL = "https://zenodo.org/record/7964975"
PUBLISHED_LICENCE = "see the Zenodo record"

Progress = Callable[[int, int | None], None]
"""Told the bytes that are there and those of the whole file, None where the server does not say."""

BUNDLED_PATH = Path(__file__).parents[1] / "data" / "bundled.safetensors"
_ATTEMPTS = 5
_RETRY_WAIT_S = 0.5  # doubled each time
_TIMEOUT_S = (10, 60)  # to connect, between two reads
_BLOCK_BYTES = 1 << 16  # less than this is lost when a connection breaks
_PASSING_STATUS = {408, 429, 500, 502, 503, 504}


@dataclass(frozen=True)
class Published:
    """A checkpoint of the paper's Zenodo record.

    Attributes:
        name: Of the configuration, which is also the model's name here.
        file: Name of the file in the record.
        map_percent: mAP on AudioSet's evaluation set, as the file's name states it.
    """

    name: str
    file: str
    map_percent: float

    @property
    def url(self) -> str:
        """Where it is fetched from."""
        folder = os.environ.get("SATPIPE_HUB_URL") or f"{RECORD_URL}/files"
        return f"{folder.rstrip('/')}/{self.file}?download=1"

    @property
    def path(self) -> Path:
        """Where it lies once it is pulled."""
        return cache_folder() / f"{self.name}.pt"

    @property
    def record_path(self) -> Path:
        """Where its sha256 is recorded."""
        return cache_folder() / f"{self.name}.json"

    @property
    def present(self) -> bool:
        """Whether it was pulled; its sha256 is not looked at."""
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
    """What there is to know of a model without loading it.

    Attributes:
        name: What `resolve` takes.
        config: Name of its configuration.
        parameters: Number of them.
        map_percent: Published mAP on AudioSet's evaluation set; None for the bundled model, which has none.
        licence: Of the weights.
        present: Whether it can be used without a download.
    """

    name: str
    config: str
    parameters: int
    map_percent: float | None
    licence: str
    present: bool


def cache_folder() -> Path:
    """Return the folder that published checkpoints are pulled into; it need not exist."""
    return Path(os.environ.get("SATPIPE_CACHE") or platformdirs.user_cache_dir("satpipe")).expanduser()


def list_models() -> list[ModelRow]:
    """Return the bundled model, with either delay, and the published ones."""
    bundled = [
        ModelRow(name, config, _parameters(CONFIGS[config]), None, BUNDLED_LICENCE, True)
        for name, config in BUNDLED_CONFIGS.items()
    ]
    return bundled + [
        ModelRow(
            name=published.name,
            config=published.name,
            parameters=_parameters(CONFIGS[published.name]),
            map_percent=published.map_percent,
            licence=PUBLISHED_LICENCE,
            present=published.present,
        )
        for published in PUBLISHED.values()
    ]


def pulled(name: str) -> tuple[Path, str]:
    """Return the path in the cache of the published checkpoint `name`, and the URL that it was pulled from.

    Raises:
        CheckpointError: The checkpoint was not pulled, or its file has changed since.
    """
    published = PUBLISHED[name]
    command = f"`satpipe models pull {name}`"
    if not published.path.is_file():
        raise CheckpointError(f"the model '{name}' is not in {cache_folder()}; fetch it with {command}")
    if not _intact(published):
        raise CheckpointError(
            f"{published.path} is not the file that was pulled: its sha256 is not the one recorded in "
            f"{published.record_path.name}; fetch it again with {command}"
        )
    return published.path, str(_read_json(published.record_path).get("url"))


def pull(name: str, progress: Progress | None = None) -> Path:
    """Fetch a published checkpoint into the cache, or find it there whole.

    A download that broke off is continued, if the file on the server is still the same. Nothing gets its final name
    before it was loaded as the model it should be. A second pull of the same model waits for the first.

    Args:
        name: Of the model.
        progress: Called now and then while bytes arrive.

    Returns:
        Path of the checkpoint.

    Raises:
        ConfigError: No published model has this name; the message names the nearest ones.
        DownloadError: It could not be fetched, is not the model it should be, or could not be written.
    """
    if name in BUNDLED_CONFIGS:
        raise ConfigError("the bundled model comes with satpipe; there is nothing to pull")
    if name not in PUBLISHED:
        raise unknown_model("published model", name, list(PUBLISHED))
    published = PUBLISHED[name]
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with FileLock(cache_folder() / f"{name}.lock"):
            if not _intact(published):
                _download(published, progress or (lambda done_bytes, total_bytes: None))
    except OSError as error:
        raise DownloadError(
            f"{published.url} could not be written to {cache_folder()}: {error}; "
            "SATPIPE_CACHE can name another folder for the cache"
        ) from error
    return published.path


def _parameters(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SAT(config).parameters())


def unknown_model(what: str, name: str, known: list[str]) -> ConfigError:
    """Return the error for a name that is not among those known; its message suggests the nearest ones."""
    near = get_close_matches(name, known, n=3, cutoff=0.4) or known
    return ConfigError(f"there is no {what} '{name}'; did you mean {', '.join(near)}?")


def _intact(published: Published) -> bool:
    """Whether the checkpoint is in the cache and has the sha256 that was recorded when it was pulled."""
    return published.present and sha256_of(published.path) == _read_json(published.record_path).get("sha256")


def _download(published: Published, progress: Progress) -> None:
    """Fetch, validate, record, place; in this order, so that every file with a final name is valid and recorded."""
    url = published.url
    part = published.path.with_suffix(".pt.part")
    _fetch(url, part, progress)
    try:
        _validate(part, published.name)
    except CheckpointError as error:
        part.unlink()
        reason = str(error).replace(str(part), "it")
        raise DownloadError(
            f"{url} is not the checkpoint of {published.name}: {reason}; nothing was kept. "
            "Look at that address: is it still the published file, does SATPIPE_HUB_URL name the right folder?"
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
        CheckpointError: It is not.
    """
    try:
        found = load(path).config.name
    except CheckpointError:  # perhaps its shapes do not tell: those of SAT_S_1s and SAT_S_2s are the same
        found = load(path, name).config.name
    if found != name:  # said here, since loading it as `name` would make a SAT_T_2s out of a SAT_T_1s
        raise CheckpointError(f"{path} is {found}")


def _fetch(url: str, part: Path, progress: Progress) -> None:
    """Fetch a file into `part`, going on from what is there; a connection that breaks is tried again.

    Raises:
        DownloadError: It was refused, or the connection broke too often.
    """
    problem = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_RETRY_WAIT_S * 2 ** (attempt - 1))
        try:
            problem = _fetch_once(url, part, progress)
        except requests.exceptions.ChunkedEncodingError:
            problem = "the connection broke off"
        except (requests.ConnectionError, requests.Timeout) as error:
            problem = str(error)
        except requests.RequestException as error:
            raise DownloadError(f"{url} cannot be fetched: {error}; see SATPIPE_HUB_URL") from error
        if not problem:
            return
    kept_bytes = part.stat().st_size if part.exists() else 0
    raise DownloadError(
        f"{url} could not be fetched in {_ATTEMPTS} attempts: {problem}; try again later"
        + (f", {kept_bytes} bytes are kept to go on from" if kept_bytes else "")
    )


def _fetch_once(url: str, part: Path, progress: Progress) -> str:
    """Fetch the rest of a file in one request; return what went wrong if another request may mend it, else nothing."""
    version = _read_json(_version_path(part))
    done_bytes = part.stat().st_size if part.exists() and version.get("url") == url and version.get("validator") else 0
    if done_bytes and done_bytes == version["size"]:
        return ""  # all of it came, then the program was stopped
    headers = {"Accept-Encoding": "identity"}  # so that lengths and ranges are those of the file
    if done_bytes:
        headers |= {"Range": f"bytes={done_bytes}-", "If-Range": version["validator"]}
    with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_S) as response:
        status = response.status_code
        continued = status == 206 and _continues(response, done_bytes, version)
        if status == 416 or (status == 206 and not continued):
            part.unlink(missing_ok=True)
            return f"HTTP {status} {response.reason}: what came before is not a part of what is there now"
        if status in _PASSING_STATUS:
            return f"HTTP {status} {response.reason}"
        if status not in (200, 206):
            raise DownloadError(
                f"{url} is refused: HTTP {status} {response.reason}. "
                f"Look at {RECORD_URL}, or name a mirror in SATPIPE_HUB_URL"
            )
        if continued:
            total_bytes = version["size"]
        else:  # from the start; emptied before its version is noted, so that the two never disagree
            done_bytes = 0
            part.write_bytes(b"")
            total_bytes = _content_length(response)
            _write_json(_version_path(part), {"url": url, "validator": _validator(response), "size": total_bytes})
        with part.open("ab") as file:
            for block in response.iter_content(_BLOCK_BYTES):
                file.write(block)
                done_bytes += len(block)
                progress(done_bytes, total_bytes)
    if total_bytes is not None and done_bytes != total_bytes:
        return f"{done_bytes} bytes came instead of {total_bytes}"
    return ""


def _continues(response: requests.Response, done_bytes: int, version: dict[str, Any]) -> bool:
    """Whether a 206 holds just what is missing, of the version that `done_bytes` are part of."""
    if done_bytes == 0 or _validator(response) not in (None, version["validator"]):
        return False
    first, total = done_bytes, version["size"]
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
    return found is not None and int(found[1]) == first and (total is None or found[2] in ("*", str(total)))


def _validator(response: requests.Response) -> str | None:
    """What tells this version of the file from another, fit for If-Range, which takes no weak ETag."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified")


def _content_length(response: requests.Response) -> int | None:
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdecimal() else None


def _version_path(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is none."""
    try:
        content = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON file that is whole whenever it is there."""
    new = path.with_name(path.name + ".new")
    new.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)
