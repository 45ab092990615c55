"""Draw clips, cut them, and make their verification sheet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from satpipe.jobs.clips.cut import Clip, Window, cut, middle
from satpipe.jobs.clips.draw import draw
from satpipe.jobs.clips.names import names
from satpipe.jobs.events.finder import Finder
from satpipe.jobs.ground_truth.sheet import COLUMNS, Stretch, read_stretches
from satpipe.jobs.ground_truth.strong_labels import BEYOND_S
from satpipe.jobs.ground_truth.text_file import SHOWN
from satpipe.jobs.options.results import ClipsOptions
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.local_time import with_offset
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.schemas import EVENTS
from satpipe.pipeline.tables.source_files import SourceFiles
from satpipe.sat.errors import ConfigError, LabelError, OutputError, TruthError
from satpipe.sat.labels import find
from satpipe.sat.printable import counted

AUDIO, SHEET = "audio", "sheet.csv"
MAX_CLIPS = 2000  # that a page holds, and a browser opens
_FOUND = ("recording", "start_s", "end_s", "label", "mid", "score")


@dataclass(frozen=True, eq=False)
class Cut:
    """Clips that were cut from recordings."""

    folder: Path
    """Where they are, path or `UPath`."""
    out: str
    seed: int
    rows: pd.DataFrame
    """The sheet, with the columns `satpipe.jobs.ground_truth.sheet.COLUMNS`."""
    clips: tuple[Clip, ...]
    """Of each row."""
    of: dict[str, int]
    """Number of stretches of each label that the clips were drawn from."""
    sample: str
    failed: dict[str, str]
    """Recordings of which clips could not be cut, and why."""
    lost: int
    """Number of clips that could not be cut."""
    made: dict[str, str]
    """Model and options behind the clips."""
    notes: tuple[str, ...]


def cut_clips(
    out: str | Path, options: ClipsOptions, progress: Callable[[int, int], None] = lambda done, of: None
) -> Cut:
    """Draw clips and write their sound; the sheet and the page are not written yet.

    Raises:
        OutputError: `out` is not an output folder or has no scores, a file is damaged or cannot be written, the folder
            of clips already has a sheet, no event was found, or no clip could be cut.
        ConfigError: An option is invalid, there would be too many clips, or `moved_to` does not exist.
        LabelError: A class is unknown.
        TruthError: Stretches or thresholds cannot be read, or a stretch is outside its recording.
    """
    folder: Any = locate(options.to)
    if (folder / SHEET).exists():
        raise OutputError(f"{folder / SHEET} exists and may have answers: name another folder with -o, or delete it")
    tables, found, notes = _stretches(out, options) if options.stretches else _events(out, options)
    if found.empty and options.stretches:
        raise OutputError(f"{options.stretches} lists no stretches")
    if found.empty:
        raise OutputError(f"{out} has no event of these classes that reaches the threshold: lower --threshold")
    drawn = draw(found, options.per_class, options.sample, options.seed)
    if len(drawn) > MAX_CLIPS:
        raise ConfigError(
            f"{len(drawn):,} clips of {drawn['mid'].nunique()} classes would be cut, but a page holds {MAX_CLIPS:,}: "
            "choose fewer classes with --labels, or fewer clips with --per-class"
        )
    windows = list(_windows(drawn, options))
    files = SourceFiles(tables, (each.recording for each in windows), options.moved_to)
    clips, failed = cut(files, windows, folder / AUDIO, progress)
    if not clips:
        name, reason = next(iter(failed.items()))
        raise OutputError(
            f"no clip could be cut from {counted(len(failed), 'recording')}; {name}: {reason}. If the recordings "
            "have moved, name their folder with --moved-to"
        )
    kept = np.array([each.name in clips for each in windows])
    return Cut(
        folder=folder,
        out=str(out),
        seed=options.seed,
        rows=_sheet(tables, drawn, windows)[kept].reset_index(drop=True),
        clips=tuple(clips[each.name] for each in windows if each.name in clips),
        of=dict(zip(drawn["label"], drawn["of"].tolist(), strict=True)),
        sample=options.sample,
        failed=failed,
        lost=int((~kept).sum()),
        made=_made(out, tables, options),
        notes=tuple(notes),
    )


def _made(out: str | Path, tables: Tables, options: ClipsOptions) -> dict[str, str]:
    identity = tables.run["identity"]
    return {
        "Folder": str(out),
        "Model": f"{identity.get('arch', '')}, sha256 {identity.get('model_sha256', '')[:12]}",
        "Clips of": str(options.stretches or f"events that reach {options.threshold or 'the default threshold'}"),
        "Sample": f"{options.sample}, at most {options.per_class} clips of each class, seed {options.seed}",
        "Padding": f"{options.pad_s:g} s before and after the event; no clip is longer than {options.length_s:g} s",
        "Time zone": str(tables.zone),
        "Version": f"satpipe {version('satpipe')}",
    }


def _events(out: str | Path, options: ClipsOptions) -> tuple[Tables, pd.DataFrame, tuple[str, ...]]:
    finder = Finder(out, options)
    table = pa.concat_tables([EVENTS.empty_table(), *finder.events()]).unify_dictionaries()
    found = table.rename_columns({"peak_score": "score"}).select(list(_FOUND)).to_pandas()
    return finder.tables, found.astype({"recording": str, "label": str, "mid": str}), finder.notes


def _stretches(out: str | Path, options: ClipsOptions) -> tuple[Tables, pd.DataFrame, tuple[str, ...]]:
    tables = Tables(out, scores=False)
    rows = read_stretches(str(options.stretches))
    known = set(tables.recordings)
    unknown = list(dict.fromkeys(each.recording for each in rows if each.recording not in known))
    if unknown:
        tables.rows(unknown)  # raises an error that names them
    _check_inside(tables, rows, options.stretches)
    found = pd.DataFrame(
        [(row.recording, row.start_s, row.end_s, row.label, row.mid or _mid(row.label), row.score) for row in rows],
        columns=list(_FOUND),
    ).astype({"score": float})
    return tables, found, tables.notes


def _check_inside(tables: Tables, rows: list[Stretch], path: object) -> None:
    length_s = tables.duration_s[tables.rows([each.recording for each in rows])].tolist()
    outside = [
        f"  {each.recording} from {each.start_s:g} s to {each.end_s:g} s: it is {end_s:g} s long"
        for each, end_s in zip(rows, length_s, strict=True)
        if each.start_s >= end_s or each.end_s > end_s + BEYOND_S
    ]
    if outside:
        more = [f"  and {len(outside) - SHOWN:,} more"] if len(outside) > SHOWN else []
        raise TruthError(f"stretches of {path} are outside their recordings:", *outside[:SHOWN], *more)


def _mid(label: str) -> str:
    try:
        return find(label).mid
    except LabelError:
        return ""


def _windows(drawn: pd.DataFrame, options: ClipsOptions) -> Iterator[Window]:
    scores = [None if np.isnan(score) else score for score in drawn["score"].tolist()]
    longest_s = options.length_s - 2 * options.pad_s
    columns = (names(drawn["label"].tolist(), scores), drawn["recording"], drawn["start_s"], drawn["end_s"])
    for name, recording, start_s, end_s in zip(*columns, strict=True):
        yield Window(name, recording, *middle(start_s, end_s, longest_s), options.pad_s)


def _sheet(tables: Tables, drawn: pd.DataFrame, windows: list[Window]) -> pd.DataFrame:
    start_s = np.array([each.start_s for each in windows])
    times = with_offset(tables.utc(tables.rows(drawn["recording"].tolist()), start_s), tables.zone)
    columns = {
        "clip": [f"{AUDIO}/{each.name}.wav" for each in windows],
        "recording": drawn["recording"],
        "start_s": start_s,
        "end_s": [each.end_s for each in windows],
        "time_local": times.to_pylist(),
        "label": drawn["label"],
        "mid": drawn["mid"],
        "score": drawn["score"],
        "correct": "",
        "stratum": drawn["stratum"],
        "probability": drawn["probability"],
        "model_sha256": tables.run["identity"].get("model_sha256", ""),
    }
    return pd.DataFrame(columns)[list(COLUMNS)]
