"""AudioSet's own labels of its evaluation set.

The weak labels ship with satpipe. The strong labels are looked for, see `strong_labels`, and `satpipe labels pull`
downloads them.

Environment variables:
    SATPIPE_AUDIOSET: Folder with audioset_eval_strong.tsv.
    SATPIPE_LABELS_URL: Folder on a mirror with audioset_eval_strong.tsv, instead of Google's.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from satpipe.jobs.options.results import AUDIOSET
from satpipe.pipeline.storage import is_remote, locate
from satpipe.sat.errors import TruthError
from satpipe.sat.printable import counted
from satpipe.sat.weights.download import Progress, Source, cache_folder, download

PAGE = "https://research.google.com/audioset/download_strong.html"
PUBLISHED_URL = "https://storage.googleapis.com/us_audioset/youtube_corpus/strong"
STRONG = "audioset_eval_strong.tsv"
WEAK = Path(__file__).parents[2] / "sat" / "data" / "eval_segments.csv.gz"
SHIPPED = "eval_segments.csv of AudioSet"
NAMES = (
    "AudioSet's clips are named by YouTube id, and by their start if it is known, in any folders:",
    "  --4gqARaEJE.wav, Y--4gqARaEJE.flac, --4gqARaEJE_30000.wav, --4gqARaEJE_30.000_40.000.m4a",
    "Labels of your own recordings: --strong FILE, a table with the columns recording, onset, offset, label, or files",
    "of Audacity or Raven; --weak FILE, a table with the columns recording, label. --mapping FILE, a table with the",
    "columns recording, clip, assigns recordings with other names",
)
"""Lines of a message: the names of AudioSet's clips, and the options for other labels."""
COLUMNS = ("segment_id", "start_time_seconds", "end_time_seconds", "label")
EVENTS, CLIPS = 139_538, 16_996
_MAX_BYTES = 50_000_000  # ten times the published file


def is_published(path: str | Path) -> bool:
    """Return True if a file has the name of AudioSet's weak or strong labels of the evaluation set."""
    return Path(path).name in (STRONG, "eval_segments.csv", WEAK.name)


def labels_file(kind: str, given: str | Path, recordings: Iterable[str]) -> str | Path:
    """Return the file of AudioSet's weak or strong labels if `given` asks for them, else `given`."""
    if given != AUDIOSET:
        return given
    return WEAK if kind == "weak" else strong_labels(recordings)


def strong_labels(recordings: Iterable[str] = ()) -> Path:
    """Return the file of AudioSet's strong labels.

    It is looked for in the folder that SATPIPE_AUDIOSET names, in the folders of the recordings, and in the cache.

    Args:
        recordings: The folders, files or patterns that were tagged; URLs are skipped.

    Raises:
        TruthError: The file is in none of these places.
    """
    named = os.environ.get("SATPIPE_AUDIOSET")
    tagged = [locate(each) for each in recordings if not is_remote(each)]
    folders = [next(place for place in (each, *each.parents) if place.is_dir()) for each in tagged]
    for folder in (*([locate(named)] if named else []), *folders, cache_folder()):
        if (folder / STRONG).is_file():
            return folder / STRONG
    raise TruthError(
        f"{STRONG}, AudioSet's strong labels, not found: run `satpipe labels pull`, set SATPIPE_AUDIOSET to a folder "
        "that contains the file, put it into the folder of the recordings, or name it with --strong FILE"
    )


def pull(progress: Progress | None = None) -> Path:
    """Download AudioSet's strong labels into the cache, unless they are already there.

    Returns:
        Path of the file.

    Raises:
        DownloadError: The file could not be downloaded or written, is too large, or is another file.
    """
    folder = os.environ.get("SATPIPE_LABELS_URL") or PUBLISHED_URL
    path = cache_folder() / STRONG
    source = Source(
        f"{folder.rstrip('/')}/{STRONG}", PAGE, "SATPIPE_LABELS_URL", "AudioSet's strong labels", _MAX_BYTES
    )
    download(source, path, _check, progress)
    return path


def _check(path: Path) -> None:
    """Check the columns of the strong labels, and their numbers of rows and clips.

    Raises:
        TruthError: They are others.
    """
    lines = [line.split("\t") for line in path.read_text("utf-8", errors="replace").splitlines()]
    columns, rows = lines[:1], lines[1:]
    if columns != [list(COLUMNS)] or any(len(row) != len(COLUMNS) for row in rows):
        raise TruthError(f"{path} does not have the columns {', '.join(COLUMNS)} in every row")
    clips = len({row[0] for row in rows})
    if (len(rows), clips) != (EVENTS, CLIPS):
        found = f"{counted(len(rows), 'event')} of {counted(clips, 'clip')}"
        raise TruthError(f"{path} has {found}, not {EVENTS:,} of {CLIPS:,}")
