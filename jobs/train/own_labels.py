"""Labels of segments from strong labels of one's own, in place of a teacher's."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from satpipe.jobs.ground_truth import read_strong
from satpipe.jobs.ground_truth.class_sets import expanded
from satpipe.jobs.ground_truth.matching import match
from satpipe.jobs.metrics.sound_events import Events
from satpipe.jobs.train.prepare import describe
from satpipe.pipeline.storage import locate, written_whole
from satpipe.pipeline.training_data.segments import SegmentOptions, segment_starts_s
from satpipe.pipeline.training_data.shards import Shards
from satpipe.pipeline.training_data.teachers import segment_table
from satpipe.sat.errors import ConfigError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import CLASSES

HEARD_S = 0.25  # an event counts in a segment that has this much of it, or half of it


def label_with_own(
    shards_folder: str, out: str | Path, strong: str | Path, options: SegmentOptions
) -> tuple[int, list[str]]:
    """Label the segments of a training set with the classes that occur in them, as `satpipe psl --strong` does.

    A class also stands for its ancestors in the ontology, as in AudioSet's weak labels, with which the models were
    trained.

    Args:
        shards_folder: Folder of the training set.
        out: Folder of the labels.
        strong: Labels as for `satpipe evaluate --strong`; they must be complete: what is not labelled does not occur.
        options: How clips are cut into segments.

    Returns:
        The number of segments, and the clips of recordings that the labels do not list.

    Raises:
        ConfigError: The labels are of none of the clips, or say only of some stretches what occurs there.
        TruthError: The labels cannot be read, or a recording is ambiguous.
        LabelError: A label is not a class of AudioSet.
        OutputError: The folder cannot be written, or contains other labels.
    """
    if options.chunks:
        raise ConfigError("--chunk-s needs a teacher; labels of your own are of whole segments")
    shards, folder = Shards(shards_folder), locate(out)
    truth = read_strong(strong)
    if truth.judged is not None:
        raise ConfigError(f"{strong} states of some stretches only what occurs there: training needs complete labels")
    parts = [_recording_and_start(clip) for clip in shards.clips]
    recordings = sorted({recording for recording, _ in parts})
    found = match(truth.clips, recordings)
    if not len(found.clip):
        raise ConfigError(
            f"{strong} has labels of none of the recordings in {shards.folder}: it lists {truth.clips[0]!r}, the "
            f"training set has {recordings[0]!r}"
        )
    made = {"strong": Path(strong).name, "strong_sha256": sha256_of(locate(strong)), **options.described()}
    describe(folder, shards, made)
    events = expanded(truth, weak_labels()).sorted()
    listed = {recordings[of]: clip for clip, of in zip(found.clip.tolist(), found.recording.tolist(), strict=True)}
    bounds = np.searchsorted(events.clip, np.arange(len(truth.clips) + 1))
    clips: list[str] = []
    starts_s: list[float] = []
    labels: list[npt.NDArray[np.float32]] = []
    for clip, (recording, start_s), duration_s in zip(shards.clips, parts, shards.durations_s.tolist(), strict=True):
        if recording not in listed:
            continue
        number = listed[recording]
        own = events.take(np.arange(bounds[number], bounds[number + 1]))
        for segment_s in segment_starts_s(duration_s, options):
            clips.append(clip)
            starts_s.append(segment_s)
            labels.append(_occurring(own, start_s + segment_s, start_s + min(duration_s, segment_s + options.piece_s)))
    table = segment_table(clips, starts_s, np.stack(labels), options, above=0.0)
    with written_whole(folder / "psl-00000-of-00001.parquet") as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return len(table), sorted(set(shards.clips) - set(clips))


def _recording_and_start(clip: str) -> tuple[str, float]:
    """Return the recording that a clip was cut from, and its start there in seconds."""
    recording, cut, start_s = clip.rpartition("#")
    return (recording, float(start_s)) if cut and start_s.replace(".", "", 1).isdecimal() else (clip, 0.0)


def _occurring(events: Events, start_s: float, end_s: float) -> npt.NDArray[np.float32]:
    """Return 1 for each class that occurs in a stretch, else 0, [527]."""
    heard_s = np.minimum(events.offset_s, end_s) - np.maximum(events.onset_s, start_s)
    enough = heard_s >= np.minimum(HEARD_S, (events.offset_s - events.onset_s) / 2)
    occurring = np.zeros(CLASSES, np.float32)
    occurring[events.label[enough & (heard_s > 0)]] = 1.0
    return occurring
