"""Training sets to batches: which clips, in which order, decoded ahead by threads while the model trains.

Everything random is a function of (seed, epoch, place), so that a run that continues in the middle of an epoch gets
the very batches it would have got.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
import torch
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.training_data.shards import Shards, decode_clip
from satpipe.pipeline.training_data.teachers import Segments
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import CLASSES, SAMPLE_RATE_HZ
from torch import Tensor

BLOCK_BATCHES = 8  # batches whose compressed audio is read at once
AHEAD_BATCHES = 4  # batches decoded ahead
DECODE_THREADS = 4
Indices = npt.NDArray[np.int64]


@dataclass
class Batch:
    """What a step trains on.

    Attributes:
        inputs: Waveforms [B, n] at 16 kHz, or log-mel values [B, 64, F].
        labels: [B, 527] in 0 to 1; None where there are none.
        clips: Names of the clips.
    """

    inputs: Tensor
    labels: Tensor | None
    clips: list[str]


@dataclass
class Examples:
    """What can be drawn.

    Attributes:
        shards: Where the audio is.
        clips: Number of the clip of each example, [N].
        starts_s: Where in the clip it starts, [N].
        labels: Gives labels [n, 527] of examples by number; None where there are none.
        weights: How likely each is drawn, [N]; None for all alike.
    """

    shards: Shards
    clips: Indices
    starts_s: npt.NDArray[np.float32]
    labels: Callable[[Indices], npt.NDArray[np.float32]] | None
    weights: npt.NDArray[np.float64] | None

    def __len__(self) -> int:
        return len(self.clips)


def whole_clips(shards: Shards, *, labelled: bool, balance: float = 0.0, floor: float = 1.0) -> Examples:
    """Every clip is an example, with its weak labels if `labelled`.

    Raises:
        ConfigError: No clip has labels.
    """
    numbers = np.arange(len(shards), dtype=np.int64)
    if labelled:
        numbers = np.array([n for n in numbers if shards.labels[n] is not None], np.int64)
        if not len(numbers):
            raise ConfigError(f"no clip in {shards.folder} has labels; `satpipe prepare --table` gives them")
    starts_s = np.zeros(len(numbers), np.float32)

    def labels(examples: Indices) -> npt.NDArray[np.float32]:
        dense = np.zeros((len(examples), CLASSES), np.float32)
        for row, number in enumerate(numbers[examples]):
            dense[row, shards.labels[number]] = 1.0
        return dense

    weights = None
    if labelled and balance:
        known = [shards.labels[n] or [] for n in numbers]
        sums = np.bincount(np.concatenate([np.array(k, np.int64) for k in known]), minlength=CLASSES)
        rarity = (sums + floor) ** -balance
        weights = np.array([rarity[k].sum() if k else rarity.min() for k in known])
    return Examples(shards, numbers, starts_s, labels if labelled else None, weights)


def labelled_segments(shards: Shards, pieces: Segments, *, balance: float = 0.0, floor: float = 1.0) -> Examples:
    """Every piece that a teacher labelled is an example."""
    weights = None
    if balance:
        rarity = (pieces.class_sums() + floor) ** -balance
        weights = np.concatenate([pieces.labels(part) @ rarity for part in np.array_split(np.arange(len(pieces)), 64)])
        weights += 0.05 * np.median(weights)
    return Examples(shards, pieces.numbers, pieces.starts_s, pieces.labels, weights)


class Feed:
    """Batches of crops of clips, for one of several workers."""

    def __init__(
        self, examples: Examples, *, crop_samples: int, batch: int, per_epoch: int, seed: int, rank: int, world: int
    ) -> None:
        """Make ready.

        Args:
            examples: What is drawn from.
            crop_samples: Length of a crop at 16 kHz; what is shorter is padded with silence.
            batch: Crops of a batch, for this worker.
            per_epoch: Examples of an epoch, over all workers, drawn without replacement; 0: all.
            seed: Of everything random.
            rank: Of this worker.
            world: How many there are.

        Raises:
            ConfigError: There is not even one batch for each worker.
        """
        self._examples = examples
        self._crop_samples = crop_samples
        self._batch, self._rank, self._world, self._seed = batch, rank, world, seed
        self._per_epoch = min(per_epoch or len(examples), len(examples))
        self.steps = self._per_epoch // (batch * world)
        """Batches of an epoch, for each worker."""
        if not self.steps:
            raise ConfigError(
                f"{self._per_epoch} examples are not one batch of {batch} for each of {world} workers; lower batch"
            )

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `first` on."""
        order = self._order(epoch)
        with ThreadPoolExecutor(DECODE_THREADS) as pool:
            decoded: deque[tuple[Indices, list[Future[Samples]]]] = deque()
            blocks = range(first, self.steps, BLOCK_BATCHES)
            wanted = [order[b : min(b + BLOCK_BATCHES, self.steps)] for b in blocks]
            reading = pool.submit(self._read, wanted[0]) if wanted else None
            for number, block in enumerate(wanted):
                assert reading is not None
                audio = reading.result()
                reading = pool.submit(self._read, wanted[number + 1]) if number + 1 < len(wanted) else None
                for examples in block:
                    futures = [pool.submit(self._crop, audio[self._examples.clips[e]], e) for e in examples.tolist()]
                    decoded.append((examples, futures))
                    if len(decoded) > AHEAD_BATCHES:
                        yield self._collate(*decoded.popleft())
            while decoded:
                yield self._collate(*decoded.popleft())

    def _order(self, epoch: int) -> Indices:
        """Examples of each of this worker's batches, [steps, batch]; neighbours in the order lie in the same blocks."""
        rng = np.random.default_rng((self._seed, epoch))
        examples = self._examples
        if self._per_epoch == len(examples):
            drawn = rng.permutation(len(examples))
        elif examples.weights is None:
            drawn = rng.permutation(len(examples))[: self._per_epoch]
        else:  # the largest of weighted Gumbel keys: a weighted draw without replacement
            keys = np.log(examples.weights + 1e-30) + rng.gumbel(size=len(examples))
            drawn = rng.permutation(np.argpartition(-keys, self._per_epoch)[: self._per_epoch])
        whole = self.steps * self._batch * self._world
        return drawn[:whole].reshape(self.steps, self._world, self._batch)[:, self._rank]

    def _read(self, block: Indices) -> dict[int, bytes]:
        return self._examples.shards.audio(np.unique(self._examples.clips[block.reshape(-1)]))

    def _crop(self, audio: bytes, example: int) -> Samples:
        return crop(self._examples, audio, example, self._crop_samples)

    def _collate(self, examples: Indices, futures: list[Future[Samples]]) -> Batch:
        waveforms = torch.from_numpy(np.stack([future.result() for future in futures]))
        labels = None if self._examples.labels is None else torch.from_numpy(self._examples.labels(examples))
        return Batch(waveforms, labels, [self._examples.shards.clips[c] for c in self._examples.clips[examples]])


def in_order(
    examples: Examples, crop_samples: int, batch: int, rank: int, world: int
) -> Iterator[tuple[Indices, Batch]]:
    """Yield every example once, in order, this worker's share of them: numbers and batches."""
    mine = np.arange(rank, len(examples), world, dtype=np.int64)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for start in range(0, len(mine), batch):
            numbers = mine[start : start + batch]
            audio = examples.shards.audio(np.unique(examples.clips[numbers]))
            encoded = [audio[clip] for clip in examples.clips[numbers].tolist()]
            crops = pool.map(crop, repeat(examples), encoded, numbers.tolist(), repeat(crop_samples))
            waveforms = torch.from_numpy(np.stack(list(crops)))
            labels = None if examples.labels is None else torch.from_numpy(examples.labels(numbers))
            yield numbers, Batch(waveforms, labels, [examples.shards.clips[c] for c in examples.clips[numbers]])


def crop(examples: Examples, audio: bytes, example: int, samples: int) -> Samples:
    """Decode a clip and cut an example out of it; what lies past the clip's end is silence."""
    clip = decoded(examples.shards, int(examples.clips[example]), audio)
    start = min(int(examples.starts_s[example] * SAMPLE_RATE_HZ), max(0, len(clip) - samples))
    part = clip[start : start + samples]
    return np.pad(part, (0, samples - len(part)))


def decoded(shards: Shards, clip: int, audio: bytes) -> Samples:
    """Decode a clip to 16 kHz.

    Raises:
        ConfigError: It cannot be decoded.
    """
    try:
        return decode_clip(audio, SAMPLE_RATE_HZ)[0]
    except AudioError as error:
        raise ConfigError(f"{shards.clips[clip]} is {error}") from error
