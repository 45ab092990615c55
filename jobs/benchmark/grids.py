"""`satpipe benchmark grids`: accuracy and cost of reading a recording on several grids, as JSON.

A model scores the chunks of as many grids as its chunk has patches, once. The chunks of fewer grids are some of these,
with the same scores, since each grid has its own memory. Thresholds are chosen on scenes of one seed, those with the
highest figure; the figures are of scenes of another seed.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import median
from time import process_time
from typing import Any, get_args

import numpy as np
import torch
from satpipe.jobs import ground_truth
from satpipe.jobs.benchmark.common import Say, dated, in_turns
from satpipe.jobs.evaluate.detection import Detector, on_grid
from satpipe.jobs.metrics import counts, psds, sed
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.sound_events import Events
from satpipe.jobs.options.measure import GridsBenchmarkOptions, SynthOptions
from satpipe.jobs.synth import synth
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.recordings.recording import Recording, recordings_of
from satpipe.pipeline.tables.chunk_scores import ChunkScores
from satpipe.pipeline.tagging.spans import Span
from satpipe.pipeline.tagging.tag_spans import tag_task
from satpipe.sat.model.config import BUNDLED, PATCH_SAMPLES, SAMPLE_RATE_HZ, Combine
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.grids import Stretches, score_grids
from satpipe.sat.taggers.loaded import LoadedTagger
from satpipe.sat.weights.registry import resolve

LENGTH_S = 20.0
CHOSEN_ON, REPORTED = 1, 2  # seeds
GRIDS = (1, 2, 4, 12)
SEGMENTS_S = (0.16, 0.5, 1.0, 2.0)
THRESHOLDS = np.arange(1, 40) / 40
PSDS_THRESHOLDS = (np.arange(50) + 0.5) / 50
COST_ROUNDS = 3
DELAY_S = 1.92  # of EfficientAT: as long as a chunk of SAT-2s

Figures = dict[str, float]


class Scenes:
    """Scenes with their ground truth.

    Attributes:
        events: The labelled events; classes and clips by position.
        classes: The classes that occur.
        recordings: The scenes, in the order of the clips.
    """

    def __init__(self, foreground: str, folder: Path, scenes: int, seed: int) -> None:
        """Make the scenes in a folder; raises the errors of `synth`."""
        options = {"length_s": LENGTH_S, "events_per_minute": 12.0, "snr_db": (10.0, 30.0), "background_db": -45.0}
        synth(
            SynthOptions(
                out=folder,
                foreground=foreground,
                scenes=scenes,
                seed=seed,
                max_polyphony=2,
                overwrite=True,
                **options,  # type: ignore[arg-type]
            )
        )
        truth = ground_truth.read_strong(folder / "strong.tsv")
        self.events = truth.events
        self.classes = ground_truth.ClassSet("scenes", truth.labels, tuple((label,) for label in truth.labels))
        sources = {source.recording: source for source in Search((str(folder / "audio"),))}
        self.recordings = [
            recording
            for source in map(sources.__getitem__, truth.clips)
            for recording in recordings_of(source, probe(source.path, source.size_bytes), "mix")
        ]

    def detector(self, rows: list[Floats], hop_s: float) -> Detector:
        """Return the detector of events in the scores [rows, classes] of each scene."""
        sizes = np.array([len(each) for each in rows])
        chunk = np.concatenate([np.arange(size, dtype=np.int32) for size in sizes])
        return Detector(
            ChunkScores(
                recordings=tuple(recording.name for recording in self.recordings),
                first=np.append(0, np.cumsum(sizes)),
                clip=np.repeat(np.arange(len(sizes), dtype=np.int32), sizes),
                chunk=chunk,
                start_s=chunk * hop_s,
                end_s=np.minimum((chunk + 1) * hop_s, LENGTH_S),
                scores=np.concatenate(rows).astype(np.float16),
            ),
            self.classes,
            min_s=0.0,
        )

    def f1(self, detected: Events) -> Figures:
        """Return onset-F1, event-F1 and segment-F1, over all classes together."""
        size: dict[str, Any] = {"clips": len(self.recordings), "classes": len(self.classes.labels)}
        counted = {
            "onset_f1": sed.count_events(self.events, detected, collar_s=0.2, offset_fraction=None, **size),
            "event_f1": sed.count_events(self.events, detected, collar_s=0.2, offset_fraction=0.5, **size),
        }
        counted |= {
            f"segment_f1_{length_s:g}": sed.count_segments(self.events, detected, segment_s=length_s, **size)
            for length_s in SEGMENTS_S
        }
        return {
            name: float(np.nan_to_num(counts.micro_rates(counts.totals(each)).f1[0])) for name, each in counted.items()
        }

    def psds(self, detector: Detector) -> Figures:
        """Return the PSDS."""
        durations_s = np.full(len(self.recordings), LENGTH_S)
        found = detector.at_each(PSDS_THRESHOLDS)
        tally = psds.count(self.events.merged(touching=False), durations_s, len(self.classes.labels), found)
        return {setting.name: float(tally.psds(setting).value) for setting in psds.SETTINGS[:2]}

    def ceiling(self, hop_s: float) -> Figures:
        """Return the F1 of the ground truth itself on a grid."""
        durations_s = np.full(len(self.recordings), LENGTH_S)
        return self.f1(on_grid(self.events, round(hop_s * SAMPLE_RATE_HZ), durations_s))


@threads(1)
def benchmark(foreground: str, options: GridsBenchmarkOptions, say: Say) -> dict[str, Any]:
    """Measure the bundled models, and EfficientAT if its weights are given.

    Args:
        foreground: Clips, as for `synth --foreground`.
        options: Other options.
        say: Called with the name of each measurement before it.

    Raises:
        SatpipeError: The clips or the weights cannot be used.
    """
    say("mixing scenes")
    chosen_on, reported = (
        Scenes(foreground, options.work / f"seed{seed}", options.scenes, seed) for seed in (CHOSEN_ON, REPORTED)
    )
    taggers = {"SAT-T, 2 s": resolve(BUNDLED), "SAT-T, 1 s": resolve(f"{BUNDLED}_1s")}
    if options.teacher:
        taggers["EfficientAT mn04_as, 1.92 s"] = resolve(f"efficientat:{options.teacher}").adapted(DELAY_S)
    rows: list[dict[str, Any]] = []
    for name, loaded in taggers.items():
        say(f"{name}: scores")
        most = loaded.config.chunk_samples // PATCH_SAMPLES
        scores = [_chunk_scores(loaded, most, scenes) for scenes in (chosen_on, reported)]
        say(f"{name}: cost")
        rates = _x_realtime(loaded, [grids for grids in GRIDS if most % grids == 0] + [most], reported)
        for grids in rates:
            for combine in get_args(Combine)[: 1 if grids == 1 else None]:
                figures = _figures((chosen_on, scores[0]), (reported, scores[1]), loaded, most, grids, combine)
                rows.append({"model": name, "grids": grids, "combine": combine, "x_realtime": rates[grids], **figures})
                say(f"{name}, {grids} grids, {combine}: onset-F1 {figures['figures']['onset_f1']:.3f}")
    return dated({
        "scenes": options.scenes,
        "length_s": LENGTH_S,
        "seeds": {"chosen_on": CHOSEN_ON, "reported": REPORTED},
        "events": len(reported.events),
        "classes": len(reported.classes.labels),
        "rows": rows,
    })  # fmt: skip


def _chunk_scores(loaded: LoadedTagger, grids: int, scenes: Scenes) -> list[list[torch.Tensor]]:
    """Return the scores of the chunks of all grids, [classes] each, for each scene."""
    tagger = loaded.adapted(loaded.config.script_chunk_s, grids=grids).tagger()
    found: list[list[torch.Tensor]] = [[] for _ in scenes.recordings]

    def chunks() -> Iterator[tuple[int, Any]]:
        for place, recording in enumerate(scenes.recordings):
            stream = tagger.chunks()
            for block in _blocks(recording, tagger.config.rate_hz):
                yield from ((place, chunk) for chunk in stream.push(torch.from_numpy(block)))
            yield from ((place, chunk) for chunk in stream.finish())

    for (place, _), scores in score_grids(tagger.score, chunks(), grids):
        found[place].append(scores[[target.columns[0] for target in scenes.classes.targets if target.columns]])
    return found


def _figures(
    chosen_on: tuple[Scenes, list[list[torch.Tensor]]],
    reported: tuple[Scenes, list[list[torch.Tensor]]],
    loaded: LoadedTagger,
    most: int,
    grids: int,
    combine: Combine,
) -> dict[str, Any]:
    """Return the figures of some of the grids, each at the threshold that is best on other scenes."""
    config = loaded.adapted(loaded.config.script_chunk_s, grids=grids, combine=combine).config
    hop_s = config.chunk_samples / grids / SAMPLE_RATE_HZ
    detectors = []
    for scenes, scores in (chosen_on, reported):
        rows = [np.stack(list(_stretches(each[:: most // grids], Stretches(config)))) for each in scores]
        detectors.append(scenes.detector(rows, hop_s))
    tried = [chosen_on[0].f1(detectors[0].at(float(threshold))) for threshold in THRESHOLDS]
    best = {name: float(THRESHOLDS[np.argmax([each[name] for each in tried])]) for name in tried[0]}
    figures = {name: reported[0].f1(detectors[1].at(threshold))[name] for name, threshold in best.items()}
    return {
        "hop_s": hop_s,
        "figures": figures | reported[0].psds(detectors[1]),
        "thresholds": best,
        "ceilings": reported[0].ceiling(hop_s),
    }


def _stretches(scores: Iterable[torch.Tensor], stretches: Stretches) -> Iterator[Floats]:
    most = stretches.recent.maxlen or 0
    for chunk, each in enumerate(scores):
        yield stretches.add(each, min(chunk, most)).numpy()


def _x_realtime(loaded: LoadedTagger, grids: Iterable[int], scenes: Scenes) -> Mapping[int, float]:
    """Return the seconds of audio that are tagged per second of a processor, from the file to the scores."""
    task = [Span(scenes.recordings[0])]
    own = loaded.config.script_chunk_s
    taggers = {number: loaded.adapted(own, grids=number).tagger() for number in dict.fromkeys(grids)}
    runs = {
        str(number): lambda tagger=tagger: tag_task(task, tagger, lambda table: None)
        for number, tagger in taggers.items()
    }
    seconds = in_turns(runs, COST_ROUNDS + 1, process_time)
    return {number: LENGTH_S / median(seconds[str(number)][1:]) for number in taggers}


def _blocks(recording: Recording, rate_hz: int) -> Iterator[Any]:
    yield from Reader(recording.source.path, recording.info, recording.channel, 0, rate_hz).blocks()
