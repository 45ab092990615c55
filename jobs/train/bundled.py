"""`satpipe train-bundled`: train the model that comes with satpipe, or a full-context model for comparison."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from satpipe.jobs.options.train import BundledOptions
from satpipe.jobs.train.config import load_config
from satpipe.jobs.train.job import Report, train
from satpipe.jobs.train.prepare import Prepared, label, prepare
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import BUNDLED, CLASSES
from satpipe.sat.printable import counted
from satpipe.sat.weights.hub import BUNDLED_PATH

Where = tuple[tuple[str, str], ...]
RUN = "run"
"""Folder of the run of the recipe `bundled`; that of another recipe has its name."""
SEGMENTS = SegmentOptions(hop_s=2.0, top_k=CLASSES, min_score=0.003)
"""Segments that overlap, with all that the teacher hears, since the corpus is small."""


@dataclass(frozen=True)
class Corpus:
    """Audio with a table of its clips.

    The folder contains audio/, manifest.tsv (path, split and more), and for training teacher_scores.parquet.
    """

    folder: Path

    def __post_init__(self) -> None:
        """Check the folder.

        Raises:
            ConfigError: A part of the corpus is missing.
        """
        for part in (self.audio, self.manifest):
            if not part.exists():
                raise ConfigError(f"{self.folder} must contain audio/ and manifest.tsv; {part} not found")

    @property
    def audio(self) -> Path:
        """Folder of the clips."""
        return self.folder / "audio"

    @property
    def manifest(self) -> Path:
        """Table of the clips."""
        return self.folder / "manifest.tsv"

    @property
    def scores(self) -> Path:
        """Table of the teacher's scores.

        Raises:
            ConfigError: The table does not exist.
        """
        path = self.folder / "teacher_scores.parquet"
        if not path.exists():
            raise ConfigError(f"{path} not found")
        return path

    def rows(self, split: str) -> Iterator[dict[str, str]]:
        """Yield the rows of one split of the manifest."""
        with self.manifest.open(newline="") as file:
            yield from (row for row in csv.DictReader(file, delimiter="\t") if row["split"] == split)

    def prepare(self, split: str, out: Path) -> Prepared:
        """Make a training set of one split; existing shards are kept."""
        return prepare(str(self.audio), out, table=self.manifest, where=(("split", split),))


def train_bundled(corpus: Corpus, options: BundledOptions, report: Report) -> Path:
    """Prepare and label the data, and train; return the exported file. Completed steps are not repeated.

    Raises:
        ConfigError: A part of the corpus is missing or cannot be read.
        TrainingError: The run cannot continue; the last checkpoint is kept.
    """
    out = Path(options.out)
    if options.full_context:
        clip_labels = out / "train-clip-labels"
        _label(out / "train", clip_labels, corpus.scores, (("kind", "clip"),))
        sets = [f"data={out / 'train'}", f"labels={clip_labels}", f"init={BUNDLED_PATH}"]
        return _train("full", "bundled_full", out, out / "full", [*sets, *options.overrides], report)
    if not options.teacher:
        raise ConfigError("--teacher must name EfficientAT's weights, which label views during training")
    for part in ("train", "validation"):
        done = corpus.prepare(part, out / part)
        if done.problems or done.listing.missing:
            bad = [*done.listing.missing, *done.problems]
            raise ConfigError(
                f"missing or not readable: {counted(len(bad), 'clip')} of {corpus.folder}, such as {bad[0]}"
            )
        _label(out / part, out / f"{part}-labels", corpus.scores, (("kind", "window"),))
    parts = ["train"]
    for number, folder in enumerate(options.extra, start=1):
        parts.append("extra" if number == 1 else f"extra-{number}")
        Corpus(Path(folder)).prepare("train", out / parts[-1])
        _label(out / parts[-1], out / f"{parts[-1]}-labels", options.teacher)
    data, labels = (",".join(str(out / f"{part}{of}") for part in parts) for of in ("", "-labels"))
    sets = [f"data={data}", f"labels={labels}", f"teacher={options.teacher}"]
    sets += [f"init={options.init}"] if options.init else []
    run = out / (RUN if options.recipe == BUNDLED else Path(options.recipe).stem)
    return _train("sat", options.recipe, out, run, [*sets, *options.overrides], report)


def _label(shards: Path, labels: Path, teacher: str | Path, where: Where = ()) -> None:
    _, missing = label(str(shards), labels, str(teacher), SEGMENTS, where=where)
    if missing:
        raise ConfigError(f"{teacher} does not contain {len(missing):,} of the clips, such as {missing[0]}")


def _train(stage: str, recipe: str, out: Path, run: Path, sets: Sequence[str], report: Report) -> Path:
    validation = (f"validation={out / 'validation'}", f"validation_labels={out / 'validation-labels'}")
    settings = load_config(stage, recipe, [*validation, *sets])
    return train(settings, run, resume=(run / "run.json").exists(), report=report)
