"""The steps from AudioSet to the rows of the paper's tables (sections 4.2 to 4.4)."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from satpipe.jobs.evaluate import evaluate, write
from satpipe.jobs.options.results import AUDIOSET
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.reproduce.audioset import AudioSet
from satpipe.jobs.reproduce.steps import Cluster, Say, Step
from satpipe.jobs.tag import job as tagging
from satpipe.jobs.tag.plan import plan
from satpipe.jobs.train import job as training
from satpipe.jobs.train import messages
from satpipe.jobs.train.config import TrainConfig, load_config
from satpipe.jobs.train.job import EXPORT, FOLDERS
from satpipe.jobs.train.prepare import label, prepare
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.sat.errors import ConfigError
from satpipe.sat.hashes import sha256_of
from satpipe.sat.model.config import get_config
from satpipe.sat.weights.hub import PUBLISHED

SIZE_OF_LETTER = {"T": "tiny", "S": "small", "B": "base"}
CHUNKS_PER_PIECE = 2
# Keys of a training that do not change what it converges to.
ELSEWHERE = {*FOLDERS, "workers", "threads", "device", "checkpoint_steps", "log_steps", "max_failures"}


@dataclass(frozen=True)
class Row:
    """A row of the tables to evaluate.

    Attributes:
        arch: Name of the configuration.
        delay_s: Nominal delay in seconds.
    """

    arch: str
    delay_s: float

    @property
    def recipe(self) -> str:
        """Name of the training configuration."""
        size = self.size
        return f"sat_{size}_{self.delay_s:g}s" if get_config(self.arch).streaming else f"full_{size}"

    @property
    def size(self) -> str:
        """tiny, small or base."""
        kind, name = self.arch.split("_")[:2]
        return SIZE_OF_LETTER[name] if kind == "SAT" else name


@dataclass(frozen=True, eq=False)
class Prepare(Step):
    """A training set of the clips of one of AudioSet's lists."""

    audio: Path
    segments: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Return the list, by its content."""
        return {"segments": sha256_of(self.segments) if self.segments.is_file() else None}

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Make the set."""
        where: dict[str, Any] = {"workers": cluster.workers, "address": cluster.address, "report": _shards(say)}
        done = prepare(str(self.audio), folder, segments=self.segments, **where)
        for line in messages.prepared(done):
            say(line)


@dataclass(frozen=True, eq=False)
class Train(Step):
    """One stage of training."""

    stage: str
    recipe: str
    config: TrainConfig = field(repr=False)
    """The recipe, without the folders of the run."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the keys of the recipe that determine the model, as far as they are not the defaults.

        So a key that a later version adds does not have everything made again.
        """
        given = self.config.model_dump(mode="json", exclude_defaults=True)
        return {key: value for key, value in given.items() if key not in ELSEWHERE}

    @property
    def trains(self) -> bool:
        """Return True."""
        return True

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Train, or continue to."""
        places = dict(inputs)
        if "init" in places:
            places["init"] = str(Path(places["init"]) / EXPORT)
        config = self.config.model_copy(update={**places, "device": cluster.device})
        training.train(
            config, folder, address=cluster.address, resume=(folder / "run.json").exists(),
            report=lambda line: say(messages.metrics(line)), note=say,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Label(Step):
    """Pseudo strong labels by the teacher."""

    piece_s: float

    @property
    def options(self) -> SegmentOptions:
        """Length and spacing of the segments, and the scores to keep for each."""
        return SegmentOptions(piece_s=self.piece_s)

    @property
    def settings(self) -> dict[str, Any]:
        """Return the options that are given."""
        return {name: value for name, value in self.options.described().items() if value is not None}

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Label the clips."""
        where: dict[str, Any] = {"workers": cluster.workers, "address": cluster.address, "device": cluster.device}
        teacher = str(Path(inputs["teacher"]) / EXPORT)
        labelled, _ = label(inputs["data"], folder, teacher, self.options, **where, report=_shards(say))
        say(f"{labelled:,} pieces are labelled")


@dataclass(frozen=True, eq=False)
class Tag(Step):
    """The scores of the clips of the evaluation set."""

    audio: Path
    arch: str
    delay_s: float
    checkpoint: Path | None = None
    """A published checkpoint; None: the model of the input."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the delay and the checkpoint."""
        sha256 = self.checkpoint and sha256_of(self.checkpoint)
        return {"delay_s": self.delay_s, "checkpoint_sha256": sha256}

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Tag the clips."""
        model = str(self.checkpoint or Path(inputs["model"]) / EXPORT)
        arch = self.arch if self.checkpoint else None
        options = TagOptions(
            (str(self.audio),), out=folder, model=model, arch=arch, delay_s=self.delay_s, workers=cluster.workers,
            address=cluster.address, device=cluster.device,  # type: ignore[arg-type]
        )  # fmt: skip
        done = tagging.run(options, plan(options), lambda progress: None)
        say(f"{done.recordings:,} clips: {', '.join(f'{n:,} {status}' for status, n in done.statuses.items())}")


@dataclass(frozen=True, eq=False)
class Evaluate(Step):
    """The figures of a row, against weak labels for Tables 1 and 2, strong ones for Table 3."""

    kind: str
    truth: Path | None
    """File of labels; None: AudioSet's own, as satpipe finds them."""

    @property
    def settings(self) -> dict[str, Any]:
        """Return the kind and the content of the labels."""
        return {"kind": self.kind, "truth": self.truth and sha256_of(self.truth)}

    def run(self, folder: Path, inputs: Mapping[str, str], cluster: Cluster, say: Say) -> None:
        """Evaluate the scores, with the paper's threshold of 0.5."""
        truth = {self.kind: self.truth or AUDIOSET}
        write(evaluate(inputs["scores"], weak=truth.get("weak"), strong=truth.get("strong"), bootstrap=0), folder)


def evaluations(
    rows: Iterable[Row], kind: str, audioset: AudioSet, *, sizes: Sequence[str], recipes: Path | None
) -> list[Evaluate]:
    """Return the last step of each row that can be made by training models of some sizes.

    Args:
        rows: Rows of the tables.
        kind: weak or strong.
        audioset: The data.
        sizes: Sizes of the models to train, the largest last: it is the teacher.
        recipes: Folder of configurations that replace those of the same name.

    Raises:
        ConfigError: A configuration cannot be read.
    """
    found = _Trainings(audioset, sizes[-1], recipes)
    return [_evaluate(row, kind, audioset, {"model": (found.model(row),)}) for row in rows if row.size in sizes]


def published_evaluations(rows: Iterable[Row], kind: str, audioset: AudioSet, checkpoints: Path) -> list[Evaluate]:
    """Return the last step of each row whose published checkpoint is in a folder.

    Raises:
        ConfigError: The folder has none of them.
    """
    found: list[Evaluate] = []
    rows = list(rows)
    for row in rows:
        names = (PUBLISHED[row.arch].file, f"{row.arch}.pt", f"{row.arch}.safetensors")
        path = next((checkpoints / name for name in names if (checkpoints / name).is_file()), None)
        if path:
            found.append(_evaluate(row, kind, audioset, {}, path))
    if not found:
        examples = ", ".join(sorted({PUBLISHED[row.arch].file for row in rows}))
        raise ConfigError(f"{checkpoints} has none of the published checkpoints of this table: {examples}")
    return found


def _evaluate(
    row: Row, kind: str, audioset: AudioSet, model: Mapping[str, tuple[Step, ...]], checkpoint: Path | None = None
) -> Evaluate:
    name = row.arch if get_config(row.arch).streaming else f"{row.arch}_{row.delay_s:g}s"
    tag = Tag(f"tag_{name}", model, audioset.eval_audio, row.arch, row.delay_s, checkpoint)
    truth = audioset.eval_segments if kind == "weak" else audioset.eval_strong
    return Evaluate(f"{kind}_{name}", {"scores": (tag,)}, kind, truth)


class _Trainings:
    """The steps of the paper's training pipeline for AudioSet."""

    def __init__(self, audioset: AudioSet, teacher: str, recipes: Path | None) -> None:
        """Declare the training sets; `teacher` is the size of the model that labels pieces."""
        self._teacher, self._recipes = teacher, recipes
        self._data = tuple(
            Prepare(f"set_{path.stem}", {}, audioset.train_audio, path) for path in audioset.train_segments
        )
        self._eval = (Prepare("set_eval", {}, audioset.eval_audio, audioset.eval_segments),)

    def model(self, row: Row) -> Step:
        """Return the step that trains the model of a row."""
        if not get_config(row.arch).streaming:
            return self._full(row.size)
        piece_s = CHUNKS_PER_PIECE * row.delay_s
        inputs = {"data": self._data, "teacher": (self._full(self._teacher),)}
        labels = Label(f"labels_{piece_s:g}s", inputs, piece_s)
        return self._train("sat", row.recipe, labels=(labels,), init=(self._mae(row.size),))

    def _full(self, size: str) -> Step:
        return self._train("full", f"full_{size}", init=(self._mae(size),))

    def _mae(self, size: str) -> Step:
        return self._train("mae", f"mae_{size}")

    def _train(self, stage: str, recipe: str, **more: tuple[Step, ...]) -> Train:
        inputs = {"data": self._data, "validation": self._eval, **more}
        given = self._recipes / f"{recipe}.yaml" if self._recipes else None
        path = str(given) if given and given.is_file() else recipe
        placeholders = [f"{role}={role}" for role in inputs]
        return Train(recipe, inputs, stage, path, load_config(stage, path, placeholders))


def _shards(say: Say) -> Any:
    return lambda done, total: say(f"{done} of {total} shards")
