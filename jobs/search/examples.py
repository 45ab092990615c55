"""The examples of a search: files, or a recording of the folder."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from satpipe.jobs.options.results import SearchOptions
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.tables.chunk_embeddings import ChunkEmbeddings, map_embeddings
from satpipe.pipeline.tables.open_folder import Part, Tables
from satpipe.pipeline.tables.selection import Selection
from satpipe.pipeline.tagging.embed import Embedded, Stretch, embed, recording_of, tagger_of
from satpipe.sat.errors import AudioError, ConfigError, OutputError

QUIETEST = 2**-15
"""Peak of a silent example: less than one step of 16 bits."""


@dataclass(frozen=True, eq=False)
class Examples:
    """What to search for.

    Attributes:
        labels: Label of each example, [K].
        vectors: Their embeddings, of length 1, [K, D].
        own: The chunks of the folder that are the example; None if it is a file.
    """

    labels: list[str]
    vectors: npt.NDArray[np.float32]
    own: Part | None = None


def read_examples(tables: Tables, options: SearchOptions) -> Examples:
    """Return the examples that the options name.

    Raises:
        AudioError: An example cannot be read, is silent, or is shorter than a chunk.
        OutputError: The folder has no such recording, or no chunks of it.
        ConfigError: The model is not that of the folder, or a file does not exist.
    """
    if options.like_recording is not None:
        return _of_recording(tables, options.like_recording, options)
    given = [options.like] if isinstance(options.like, str | Path) else list(options.like or ())
    sources = list(Search(tuple(map(str, given))))
    if not sources:
        raise ConfigError(f"no sound files in {', '.join(map(str, given))}")
    if len(sources) > 1 and (options.start_s, options.end_s) != (None, None):
        raise ConfigError(
            "--start-s and --end-s apply to a single example: cut several out first, or search for one at a time"
        )
    tagger = tagger_of(tables, options.model)
    chunk_s = tagger.chunk_samples * tagger.config.grids / tagger.config.rate_hz
    stretches = []
    for source in sources:
        try:
            stretches.append(Stretch(recording_of(source), options.start_s or 0.0, options.end_s))
        except AudioError as error:
            raise AudioError(f"{source.path}: {error}") from error
    embedded = embed(stretches, tagger)
    for source, each in zip(sources, embedded, strict=True):
        _check(source.path, each, chunk_s)
    labels = [options.label or Path(source.recording).stem for source in sources]
    vectors = [_mean(each.embeddings, each.end_s - each.start_s) for each in embedded]
    return Examples(labels, np.stack(vectors))


def _check(path: str, example: Embedded, chunk_s: float) -> None:
    """Raise AudioError if a file is no example."""
    if example.problem:
        raise AudioError(f"{path}: {example.problem.partition(': ')[2]}")
    length_s = float(example.end_s[-1] - example.start_s[0])
    if length_s < chunk_s - 1e-6:
        raise AudioError(
            f"{path}: the example is {length_s:.2f} s long, but must be at least as long as a chunk of the model, "
            f"{chunk_s:g} s"
        )
    if example.peak < QUIETEST:
        raise AudioError(f"{path}: the example is silent from {example.start_s[0]:.2f} s to {example.end_s[-1]:.2f} s")


def _of_recording(tables: Tables, name: str, options: SearchOptions) -> Examples:
    selection = Selection([name], start_s=options.start_s, end_s=options.end_s)
    part = selection.part(tables)
    if len(part.recordings) > 1:
        raise ConfigError(f"--like-recording must be one recording, not {name}")
    chunks = list(map_embeddings(tables, part, _copied))
    if not chunks:
        raise OutputError(f"{tables.folder} has no chunks of {name} in this part")
    embeddings, lengths_s = (np.concatenate(each) for each in zip(*chunks, strict=True))
    return Examples([options.label or Path(name).stem], _mean(embeddings, lengths_s)[None], part)


def _copied(chunks: ChunkEmbeddings) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    return chunks.embeddings.copy(), chunks.end_s - chunks.start_s


def _mean(embeddings: npt.NDArray[np.float32], lengths_s: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the mean of embeddings [n, D], each scaled to length 1 and weighted, scaled to length 1: [D]."""
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    mean = (directions * lengths_s[:, None]).sum(0)
    direction: npt.NDArray[np.float32] = (mean / np.linalg.norm(mean)).astype(np.float32)
    return direction
