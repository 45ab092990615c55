"""Turn training sets into batches. Threads decode batches ahead while the model trains.

All randomness is a function of seed, epoch and position, so that a run that continues in the middle of an epoch gets
the same batches.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.training_data.shards import Shards
from satpipe.pipeline.training_data.teachers import ChunkLabels, Segments
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ
from satpipe.sat.printable import counted
from torch import Tensor

BLOCK_BATCHES = 8  # batches whose compressed audio is read together
AHEAD_BATCHES = 4  # batches decoded ahead
DECODE_THREADS = 4
Indices = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass
class Batch:
    """The input of one training step.

    Attributes:
        inputs: Waveforms [B, n] at 16 kHz, or log-mel values [B, 64, F].
        labels: From 0 to 1, [B, 527]; or [B, 1 + N, 527], those of a sequence and of each of its N chunks; None for a
            set without labels.
        clips: Names of the clips.
    """

    inputs: Tensor
    labels: Tensor | None
    clips: list[str]


@dataclass
class Examples:
    """Examples that batches are drawn from.

    Attributes:
        shards: The training set.
        clips: Clip number of each example, [N].
        starts_s: Start of each example in its clip, [N].
        labels: Returns labels of examples by number, [n, 527] or [n, 1 + N, 527]; None for a set without labels.
        weights: Relative probability of drawing each example, [N]; None if all are equal.
    """

    shards: Shards
    clips: Indices
    starts_s: npt.NDArray[np.float32]
    labels: Callable[[Indices], npt.NDArray[np.float32]] | None
    weights: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.clips)


def whole_clips(shards: Shards, *, labelled: bool, balance: float = 0.0, floor: float = 1.0) -> Examples:
    """Return every clip as an example, with its weak labels if `labelled`.

    Raises:
        ConfigError: No clip has labels.
    """
    numbers = np.flatnonzero(shards.labelled) if labelled else np.arange(len(shards), dtype=np.int64)
    if not len(numbers):
        raise ConfigError(f"no clip in {shards.folder} has labels; add them with `satpipe prepare --table`")
    starts_s = np.zeros(len(numbers), np.float32)

    def labels(examples: Indices) -> npt.NDArray[np.float32]:
        dense = np.zeros((len(examples), CLASSES), np.float32)
        for row, number in enumerate(numbers[examples]):
            dense[row, shards.labels[number]] = 1.0
        return dense

    weights = None
    if labelled and balance:
        rarity = (shards.labels.counts(classes=CLASSES) + floor) ** -balance
        known = shards.labels.lengths[numbers] > 0
        weights = np.where(known, shards.labels.sums(rarity)[numbers], rarity.min())
    return Examples(shards, numbers, starts_s, labels if labelled else None, weights)


def labelled_segments(
    shards: Shards, segments: Segments, *, balance: float = 0.0, floor: float = 1.0, chunks: ChunkLabels | None = None
) -> Examples:
    """Return every segment that a teacher labelled as an example, with the labels of its chunks if they are given."""

    def labels(examples: Indices) -> npt.NDArray[np.float32]:
        whole = segments.labels(examples)
        return whole if chunks is None else np.concatenate([whole[:, None], chunks.labels(examples)], 1)

    weights = None
    if balance:
        rarity = (segments.class_sums() + floor) ** -balance
        weights = segments.weighted_sums(rarity)
        weights += 0.05 * np.median(weights)
    return Examples(shards, segments.numbers, segments.starts_s, labels, weights)


class Feed:
    """Batches of crops of clips, for one of several workers.

    Attributes:
        steps: Batches per epoch and worker.
    """

    def __init__(
        self, examples: Examples, *, crop_samples: int, batch: int, per_epoch: int, seed: int, rank: int, world: int,
        replacement: bool = False,
    ) -> None:  # fmt: skip
        """Count the batches.

        Args:
            examples: Examples to draw from.
            crop_samples: Length of a crop at 16 kHz; shorter clips are padded with silence.
            batch: Crops per batch of this worker.
            per_epoch: Examples per epoch, over all workers; 0: as many as there are.
            seed: Random seed.
            rank: Number of this worker.
            world: Number of workers.
            replacement: Draw with replacement. Weighted examples are also drawn in this way if an epoch has as many as
                there are: a draw of all without replacement would ignore the weights.

        Raises:
            ConfigError: An epoch has fewer examples than one batch for each worker.
        """
        self._examples = examples
        self._crop_samples = crop_samples
        self._batch, self._rank, self._world, self._seed = batch, rank, world, seed
        weighted = examples.weights is not None
        self._replacement = replacement or (weighted and not 0 < per_epoch < len(examples))
        self._per_epoch = per_epoch or len(examples)
        if not self._replacement:
            self._per_epoch = min(self._per_epoch, len(examples))
        self.steps = self._per_epoch // (batch * world)
        if not self.steps:
            raise ConfigError(
                f"an epoch has {counted(self._per_epoch, 'example')}, fewer than a batch of {batch * world}: "
                "lower batch"
            )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `first` on."""
        order = self._order(epoch)
        blocks = [order[b : min(b + BLOCK_BATCHES, self.steps)] for b in range(first, self.steps, BLOCK_BATCHES)]
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            for numbers, crops in _ahead(self._decoding(blocks, pool), AHEAD_BATCHES):
                yield _batch(self._examples, numbers, (crop.result() for crop in crops))

    def _decoding(
        self, blocks: list[Indices], pool: ThreadPoolExecutor
    ) -> Iterator[tuple[Indices, list[Future[Samples]]]]:
        """Yield the examples of each batch and their crops, which are being decoded."""
        examples, samples = self._examples, self._crop_samples
        for block, reading in _ahead(((block, pool.submit(self._read, block)) for block in blocks), 1):
            audio = reading.result()
            for numbers in block:
                yield numbers, [pool.submit(crop, examples, audio[examples.clips[n]], n, samples) for n in numbers]

    def _order(self, epoch: int) -> Indices:
        """Return the examples of each batch of this worker, [steps, batch]."""
        rng = np.random.default_rng((self._seed, epoch))
        count, weights = len(self._examples), self._examples.weights
        if self._replacement:
            chances = None if weights is None else weights / weights.sum()
            drawn = rng.choice(count, self._per_epoch, p=chances)
        elif weights is None:
            drawn = rng.permutation(count)[: self._per_epoch]
        else:  # the largest of weighted Gumbel keys: a weighted draw without replacement
            keys = np.log(weights + 1e-30) + rng.gumbel(size=count)
            drawn = rng.permutation(np.argpartition(-keys, self._per_epoch)[: self._per_epoch])
        whole = self.steps * self._batch * self._world
        return drawn[:whole].reshape(self.steps, self._world, self._batch)[:, self._rank]

    def _read(self, block: Indices) -> dict[int, bytes]:
        return self._examples.shards.audio(np.unique(self._examples.clips[block.reshape(-1)]))


def _ahead(started: Iterable[T], count: int) -> Iterator[T]:
    """Yield the items of an iterable with a lag of `count` items: creating the later items has started their work."""
    waiting: deque[T] = deque()
    for item in started:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def in_order(
    examples: Examples, crop_samples: int, batch: int, rank: int, world: int
) -> Iterator[tuple[Indices, Batch]]:
    """Yield this worker's share of the examples once, in order: numbers and batches."""
    mine = np.arange(rank, len(examples), world, dtype=np.int64)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(mine), batch):
            numbers = mine[start : start + batch]
            audio = examples.shards.audio(np.unique(examples.clips[numbers]))
            encoded = [audio[clip] for clip in examples.clips[numbers].tolist()]
            crops = pool.map(crop, repeat(examples), encoded, numbers.tolist(), repeat(crop_samples))
            yield numbers, _batch(examples, numbers, crops)


def crop(examples: Examples, audio: bytes, example: int, samples: int) -> Samples:
    """Decode a clip and cut an example out of it, padded with silence beyond the clip's end."""
    clip = examples.shards.decode(int(examples.clips[example]), audio)
    start = min(int(examples.starts_s[example] * SAMPLE_RATE_HZ), max(0, len(clip) - samples))
    part = clip[start : start + samples]
    return np.pad(part, (0, samples - len(part)))


def _batch(examples: Examples, numbers: Indices, crops: Iterable[Samples]) -> Batch:
    waveforms = torch.from_numpy(np.stack(list(crops)))
    labels = None if examples.labels is None else torch.from_numpy(examples.labels(numbers))
    return Batch(waveforms, labels, [examples.shards.clips[c] for c in examples.clips[numbers]])
