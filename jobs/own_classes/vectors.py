"""The embeddings of labelled examples: from their audio, or from the table of an output folder."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth import match
from satpipe.jobs.options.own_classes import LearnOptions
from satpipe.jobs.own_classes.labels import Example, Labelled
from satpipe.pipeline.recordings.find import Search, Source
from satpipe.pipeline.tables.chunk_embeddings import ChunkEmbeddings, map_embeddings, size_of_embeddings
from satpipe.pipeline.tables.open_folder import Part, Tables, side_by_side
from satpipe.pipeline.tagging.embed import Stretch, embed, recording_of, tagger_of
from satpipe.sat.errors import AudioError, SatpipeError, TruthError
from satpipe.sat.labels import find, is_known
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.cpu import threads
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.sat import SATTagger
from satpipe.sat.weights.registry import resolve

BEYOND_S = 0.05  # an example may end this much after its recording
SHOWN = 3  # problems in one message
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Embedded:
    """Labelled examples with their embeddings.

    Attributes:
        examples: Those whose audio can be used.
        vectors: The mean over the chunks of each, [n, D].
        model_sha256: Of the model's weights.
        model: Its name.
        chunk_s: Length of a chunk.
        notes: Which were left out, and why.
    """

    examples: tuple[Example, ...]
    vectors: Vectors
    model_sha256: str
    model: str
    chunk_s: float
    notes: tuple[str, ...]
    known_weight: Vectors | None = None
    """Weights of AudioSet's classes of the same names, see `satpipe.jobs.own_classes.fit.Examples`."""


def from_audio(labelled: Labelled, options: LearnOptions) -> Embedded:
    """Compute the embeddings of examples, several recordings at the same time.

    Each example is read with nothing carried over from the audio before it.

    Raises:
        ConfigError: The model does not exist or has no embeddings, or the folder of the recordings does not exist.
        TruthError: A recording is not found, an example is outside its recording, or none can be used.
    """
    checkpoint = resolve(options.model, options.arch)
    tagger = checkpoint.tagger(embeddings=True)  # an error at once if it has none
    sources = _sources(labelled, options)
    jobs = [(sources[name], rows) for name, rows in _by_recording(labelled.examples).items()]
    own = threading.local()

    def read(job: tuple[Source, list[Example]]) -> "list[Vectors | str] | TruthError":
        if not hasattr(own, "tagger"):
            own.tagger = checkpoint.tagger(embeddings=True)
        return _read(*job, own.tagger)

    with threads(1):
        found = list(side_by_side(read, jobs))
    vectors: dict[Example, Vectors | str] = {}
    outside = []
    for (_, examples), several in zip(jobs, found, strict=True):
        if isinstance(several, TruthError):
            outside.append(several)
        else:
            vectors.update(zip(examples, several, strict=True))
    refuse(outside)
    found_ones = embedded(labelled, vectors, checkpoint.sha256, checkpoint.config.name, checkpoint.config.chunk_samples)
    return replace(found_ones, known_weight=_known_weight(tagger, labelled.classes))


def embedded(
    labelled: Labelled, vectors: "Mapping[Example, Vectors | str]", sha256: str, model: str, chunk_samples: int
) -> Embedded:
    """Return the examples that have an embedding, in the order of the labels; for the others, `vectors` has the reason.

    Raises:
        TruthError: None has.
    """
    used = [each for each in labelled.examples if not isinstance(vectors[each], str)]
    unused = list(dict.fromkeys(str(vectors[each]) for each in labelled.examples if isinstance(vectors[each], str)))
    if not used:
        raise TruthError("no labelled example can be used:", *unused[:SHOWN])
    together = np.stack([np.asarray(vectors[each], np.float32) for each in used])
    notes = tuple(f"left out: {each}" for each in unused)
    return Embedded(tuple(used), together, sha256, model, chunk_samples / SAMPLE_RATE_HZ, notes)


def _read(source: Source, examples: Sequence[Example], tagger: Tagger) -> "list[Vectors | str] | TruthError":
    """Return the embedding of each example of a recording, or why it cannot be used; or that one is outside it."""
    try:
        recording = recording_of(source)
        if recording.info.frames:
            check_inside(examples, recording.info.duration_s)
    except AudioError as error:
        return [f"{source.recording}: {error}"] * len(examples)
    except TruthError as error:
        return error
    results = embed([Stretch(recording, each.start_s, each.end_s) for each in examples], tagger)
    silence = f"{source.recording}: it is digital silence"
    return [
        result.problem if result.problem else silence if not result.peak else result.embeddings.mean(0)
        for result in results
    ]


def refuse(outside: Sequence[TruthError]) -> None:
    """Raise an error that lists examples outside their recordings, if there are any."""
    if outside:
        more = [f"and {len(outside) - SHOWN} more"] if len(outside) > SHOWN else []
        raise TruthError("labelled examples are outside their recordings:", *map(str, outside[:SHOWN]), *more)


def check_inside(examples: Iterable[Example], duration_s: float) -> None:
    """Make sure that examples lie in their recording.

    Raises:
        TruthError: One does not.
    """
    for each in examples:
        if each.start_s >= duration_s or (each.end_s or 0.0) > duration_s + BEYOND_S:
            raise TruthError(
                f"{each.recording} from {each.start_s:g} s to {each.end_s:g} s: it is {duration_s:g} s long"
            )


def _by_recording(examples: Iterable[Example]) -> dict[str, list[Example]]:
    found: dict[str, list[Example]] = {}
    for each in examples:
        found.setdefault(each.recording, []).append(each)
    return found


def _sources(labelled: Labelled, options: LearnOptions) -> Mapping[str, Source]:
    """Return the file of each labelled recording."""
    folder = str(options.recordings or labelled.folder)
    found = {source.recording: source for source in Search((folder,))}
    names = list(dict.fromkeys(each.recording for each in labelled.examples))
    return {name: found[there] for name, there in matched(names, list(found), folder).items()}


def matched(names: Sequence[str], there: Sequence[str], where: object) -> dict[str, str]:
    """Return the recording of each name in labels.

    Raises:
        TruthError: A name is not found, or is ambiguous.
    """
    pairs = match(names, there)
    if pairs.missing:
        more = f" and {len(pairs.missing) - SHOWN} more" if len(pairs.missing) > SHOWN else ""
        raise TruthError(
            f"{where} has no recording {', '.join(pairs.missing[:SHOWN])}{more}: name the folder of the labelled "
            "recordings with --recordings, or a tagged folder with --embeddings-from"
        )
    return {
        names[clip]: there[recording]
        for clip, recording in zip(pairs.clip.tolist(), pairs.recording.tolist(), strict=True)
    }


def from_tables(labelled: Labelled, options: LearnOptions) -> Embedded:
    """Read the embeddings of examples from an output folder: of each, the chunks whose middle lies in it.

    An example without such a chunk has the chunk at its own middle.

    Raises:
        OutputError: The folder has no embeddings, or they cannot be read.
        TruthError: A recording is not in the tables, or an example is outside its recording.
    """
    tables = Tables(options.embeddings_from, scores=False)
    size_of_embeddings(tables)
    by_recording = _by_recording(labelled.examples)
    there = matched(list(by_recording), tables.recordings, tables.folder)
    row_of = {name: int(tables.rows([there[name]])[0]) for name in by_recording}
    outside = []
    for name, examples in by_recording.items():
        try:
            check_inside(examples, tables.duration_s[row_of[name]])
        except TruthError as error:
            outside.append(error)
    refuse(outside)
    chunk_s = tables.model["chunk_s"]
    bounds = {
        row_of[name]: [(each, *chunks_of(each, chunk_s, int(tables.slots[row_of[name]]))) for each in examples]
        for name, examples in by_recording.items()
    }
    part = Part(
        np.array(list(bounds), np.int32),
        np.array([min(begin for _, begin, _ in each) for each in bounds.values()], np.int32),
        np.array([max(end for _, _, end in each) for each in bounds.values()], np.int32),
    )

    def parts(chunks: ChunkEmbeddings) -> list[tuple[Example, Vectors]]:
        found = []
        for row in np.unique(chunks.recording).tolist():
            for example, begin, end in bounds[row]:
                here = (chunks.recording == row) & (chunks.chunk >= begin) & (chunks.chunk < end)
                if here.any():
                    found.append((example, chunks.embeddings[here]))
        return found

    pieces: dict[Example, list[Vectors]] = {}
    for several in map_embeddings(tables, part, parts):
        for example, piece in several:
            pieces.setdefault(example, []).append(piece)
    vectors: dict[Example, Vectors | str] = {
        each: np.concatenate(pieces[each]).mean(0) if each in pieces else f"{each.recording}: this part was not tagged"
        for each in labelled.examples
    }
    model = tables.model
    found = embedded(labelled, vectors, model["sha256"], model["arch"], model["chunk_samples"])
    if not any(map(is_known, labelled.classes)):
        return found
    try:
        return replace(found, known_weight=_known_weight(tagger_of(tables), labelled.classes))
    except SatpipeError as error:
        note = f"AudioSet's classes of the same names are not used, since the model is not found: {error}"
        return replace(found, notes=(*found.notes, note))


def _known_weight(tagger: Tagger, classes: Sequence[str]) -> Vectors | None:
    """Return the weights of AudioSet's classes with these names, [K, D]; NaN for other names; None if it is no SAT."""
    if not isinstance(tagger, SATTagger):
        return None
    head: Any = tagger.model.outputlayer
    norm, linear = head
    of_all: Vectors = (linear.weight * norm.weight).detach().numpy()
    places = [find(name).index if is_known(name) else None for name in classes]
    nothing = np.full(of_all.shape[1], np.nan, np.float32)
    return np.stack([nothing if place is None else of_all[place] for place in places])


def chunks_of(example: Example, chunk_s: float, slots: int) -> tuple[int, int]:
    """Return the first chunk of an example and the chunk after its last one, of a recording with so many chunks."""
    begin = ceil(example.start_s / chunk_s - 0.5)
    end_s = slots * chunk_s if example.end_s is None else example.end_s
    end = slots if example.end_s is None else ceil(end_s / chunk_s - 0.5)
    if end > begin:
        return begin, end
    middle = min(int((example.start_s + end_s) / 2 / chunk_s), slots - 1)
    return middle, middle + 1
