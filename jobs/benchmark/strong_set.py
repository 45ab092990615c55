"""Synthetic labels and scores of the size of AudioSet's strong evaluation set.

They resemble the real set: a few classes are in most clips and most are rare; events last from 30 ms to the whole clip;
classes occur together in scenes; the number of events is the same; times are in milliseconds, and some events of a
class overlap; scores are high in chunks that contain a class, lower in the rest of the clip and for similar classes,
and near 0 elsewhere. 35 of the 416 classes are not among the model's classes: their scores are 0.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.metrics.sound_events import Events
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.job import describe
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.schemas import model_name, recording_row, staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.sat.labels import Label, strong_labels
from satpipe.sat.model.config import BUNDLED, CLASSES, SAMPLE_RATE_HZ
from satpipe.sat.weights.registry import load_checkpoint

CLIPS = 16_996
EVENTS = 139_538
CLIP_S = 10.0
CHUNK_SAMPLES = 30_720
CHUNK_S = CHUNK_SAMPLES / SAMPLE_RATE_HZ
CHUNKS = 6  # per clip; the last one is 0.4 s long
SHORTEST_S = 0.03
SCENES = 40
CLIPS_AT_ONCE = 1000
LETTERS = np.array(list("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"))


@dataclass(frozen=True, eq=False)
class StrongSet:
    """Ground truth and scores.

    Attributes:
        segments: Name of each clip, as in the strong labels: 11 characters, and its start in its video in ms.
        durations_s: Duration of each clip.
        labels: The 416 classes.
        truth: The events; some events of one class overlap.
        clip: Clip of each chunk, [n].
        start_s: Start of each chunk in its clip, [n].
        end_s: End of each chunk in its clip, [n].
        outputs: Scores of each chunk for the classes of a model, [n, 527].
    """

    segments: list[str]
    durations_s: npt.NDArray[np.float64]
    labels: tuple[Label, ...]
    truth: Events
    clip: npt.NDArray[np.int32]
    start_s: npt.NDArray[np.float64]
    end_s: npt.NDArray[np.float64]
    outputs: npt.NDArray[np.float16]

    def scores(self) -> npt.NDArray[np.float16]:
        """Return the scores of the 416 classes, [n, 416]."""
        columns = np.array([-1 if label.index is None else label.index for label in self.labels])
        scores = self.outputs[:, columns]
        scores[:, columns < 0] = 0
        return scores

    def write_truth(self, path: Path) -> None:
        """Write the events in the format of AudioSet's strong labels."""
        truth = self.truth
        rows = zip(
            truth.clip.tolist(), truth.label.tolist(), truth.onset_s.tolist(), truth.offset_s.tolist(), strict=True
        )
        with path.open("w", encoding="utf-8") as file:
            file.write("segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n")
            for clip, label, onset_s, offset_s in rows:
                file.write(f"{self.segments[clip]}\t{onset_s:.3f}\t{offset_s:.3f}\t{self.labels[label].mid}\n")

    def write_output(self, folder: Path) -> None:
        """Write the scores as `satpipe tag` does."""
        options = TagOptions(("by rule",), folder)
        run = describe(options, load_checkpoint(BUNDLED))
        table = TableOptions(
            run["id"], model_name(run["identity"]), CHUNK_SAMPLES, options.threshold, options.top_k, options.scores
        )
        output = Output(folder)
        with output.claim(run):
            for begin in range(0, len(self.segments), CLIPS_AT_ONCE):
                output.batches.publish(
                    self._stage(output, range(begin, min(begin + CLIPS_AT_ONCE, len(self.segments)))), table, new_name()
                )
            output.finish()
            output.note(run | {"finished": run["started"]})

    def _stage(self, output: Output, clips: range) -> list[Finished]:
        bounds = np.searchsorted(self.clip, np.arange(len(self.segments) + 1))
        names = [f"{self.segments[clip]}.wav" for clip in clips]
        chunks = [int(bounds[clip + 1] - bounds[clip]) for clip in clips]
        outcomes = [SpanOutcome((name, 100, 0, 0, None), each) for name, each in zip(names, chunks, strict=True)]
        with output.staging.stage() as file:
            for begin in range(0, len(clips), 100):  # small row groups are quick to read
                places = range(begin, min(begin + 100, len(clips)))
                rows = slice(bounds[clips[places[0]]], bounds[clips[places[-1]] + 1])
                span = [place for place in places for _ in range(chunks[place])]
                chunk = [index for place in places for index in range(chunks[place])]
                file.write(staged_table(span, chunk, self.outputs[rows].astype(np.float32)))
            staged = file.conclude(outcomes)
        recordings = [
            recording_row(name, 100, 0, "ok", "", duration_s=length_s, rate_hz=SAMPLE_RATE_HZ, channels=1, chunks=each)
            for name, length_s, each in zip(names, self.durations_s[clips].tolist(), chunks, strict=True)
        ]
        return [Finished(row, [span]) for row, span in zip(recordings, staged, strict=True)]


def make(clips: int = CLIPS, events: int = EVENTS, seed: int = 0) -> StrongSet:
    """Make a set that depends only on the arguments.

    Args:
        clips: Number of clips.
        events: Number of events; about 8 per clip, at least 5.
        seed: Random seed.
    """
    rng = np.random.default_rng(seed)
    labels = strong_labels("eval")
    clip, label = _labels_of_clips(rng, clips, len(labels))
    truth = _events(rng, clip, label, events, len(labels))
    start_s = np.arange(CHUNKS) * CHUNK_S
    letters = LETTERS[rng.integers(0, len(LETTERS), (clips, 11))]
    starts_ms = rng.integers(0, 60, clips) * 10_000
    return StrongSet(
        segments=[f"{''.join(name)}_{start}" for name, start in zip(letters, starts_ms, strict=True)],
        durations_s=np.full(clips, CLIP_S),
        labels=labels,
        truth=truth,
        clip=np.repeat(np.arange(clips, dtype=np.int32), CHUNKS),
        start_s=np.tile(start_s, clips),
        end_s=np.tile(np.append(start_s[1:], CLIP_S), clips),
        outputs=_outputs(rng, clips, truth, labels),
    )


def _labels_of_clips(rng: np.random.Generator, clips: int, classes: int) -> tuple[Any, Any]:
    """Draw the classes of each clip, mostly from its scene; each class is in at least one clip."""
    common = -1.1 * np.log(3 + rng.permutation(classes))
    in_scene = rng.random((SCENES, classes)) < 0.08
    weight = common + 3 * in_scene[rng.integers(0, SCENES, clips)]
    keys = weight + rng.gumbel(size=(clips, classes))  # the highest n of these are n draws without replacement
    forced = np.arange(min(clips, classes))
    keys[forced, forced] = np.inf
    number = np.minimum(1 + rng.poisson(2.6, clips), classes)
    best = np.argsort(-keys, axis=1)
    chosen = np.arange(classes) < number[:, None]
    clip, rank = np.nonzero(chosen)
    return clip, best[clip, rank]


def _events(rng: np.random.Generator, clip: Any, label: Any, events: int, classes: int) -> Events:
    """Draw the events of each (clip, class): many short ones or a few long ones, depending on the class."""
    typical_s = np.exp(rng.normal(-0.2, 1.0, classes))
    lasting = rng.random(classes) < 0.25  # wind, music, engines
    often = rng.gamma(0.6, 1, len(clip)) / np.sqrt(typical_s[label]) * np.where(lasting[label], 0.3, 1)
    number = 1 + rng.multinomial(events - len(clip), often / often.sum())
    pair = np.repeat(np.arange(len(clip)), number)
    place = np.arange(events) - np.repeat(np.cumsum(number) - number, number)
    slot_s = CLIP_S / number[pair]
    onset_s = (place + rng.random(events) ** 1.5) * slot_s
    length_s = typical_s[label[pair]] * np.exp(rng.normal(0, 0.8, events))
    offset_s = onset_s + length_s
    whole = (number[pair] == 1) & lasting[label[pair]] & (rng.random(events) < 0.7)
    onset_s, offset_s = np.where(whole, 0, onset_s), np.where(whole, CLIP_S, offset_s)
    overlap_s = np.where(rng.random(events) < 0.02, slot_s, 0)
    offset_s = np.minimum(offset_s, (place + 1) * slot_s + overlap_s)
    onset_s = np.clip(np.round(onset_s, 3), 0, CLIP_S - SHORTEST_S)
    offset_s = np.clip(np.round(offset_s, 3), onset_s + SHORTEST_S, CLIP_S)
    return Events.of(clip[pair], label[pair], onset_s, np.round(offset_s, 3))


def _outputs(rng: np.random.Generator, clips: int, truth: Events, labels: tuple[Label, ...]) -> Any:
    """Draw scores, [clips * CHUNKS, 527]: noise for each clip and each chunk, plus the events."""
    column = np.array([-1 if label.index is None else label.index for label in labels])
    skill = rng.uniform(3, 10, CLASSES).astype(np.float32)
    alike = rng.integers(0, CLASSES, (2, CLASSES))  # similar classes
    heard = truth.take(column[truth.label] >= 0)
    order = np.argsort(heard.clip, kind="stable")
    heard = heard.take(order)
    bounds = np.searchsorted(heard.clip, np.arange(0, clips + CLIPS_AT_ONCE, CLIPS_AT_ONCE))
    start_s = np.arange(CHUNKS) * CHUNK_S
    end_s = np.append(start_s[1:], CLIP_S)
    outputs = np.empty((clips * CHUNKS, CLASSES), np.float16)
    for block, begin in enumerate(range(0, clips, CLIPS_AT_ONCE)):
        some = heard.take(np.arange(bounds[block], bounds[block + 1]))
        shape = (min(CLIPS_AT_ONCE, clips - begin), CHUNKS, CLASSES)
        share = np.zeros(shape, np.float32)
        within_s = np.minimum(some.offset_s[:, None], end_s) - np.maximum(some.onset_s[:, None], start_s)
        where = (some.clip[:, None] - begin, np.arange(CHUNKS), column[some.label][:, None])
        np.add.at(share, where, np.maximum(within_s, 0) / (end_s - start_s))
        present = np.sqrt(np.minimum(share, 1)) + 0.3 * (share.max(axis=1, keepdims=True) > 0)
        logit = -8.5 + 1.2 * rng.standard_normal(shape, np.float32)
        logit += 1.5 * rng.standard_normal((shape[0], 1, CLASSES), np.float32)
        logit += skill * present
        for others in alike:
            logit[:, :, others] += 0.4 * skill * present
        outputs[begin * CHUNKS : (begin + shape[0]) * CHUNKS] = (1 / (1 + np.exp(-logit))).reshape(-1, CLASSES)
    return outputs
