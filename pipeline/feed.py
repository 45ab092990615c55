"""Training sets to batches: which clips, in which order, decoded ahead by threads while the model trains.

Everything random is a function of (seed, epoch, place), so that a run that continues in the middle of an epoch gets
the very batches it would have got.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.decode import Samples
from pipeline.shards import Shards, decode
from pipeline.teachers import Pieces
from sat import augment
from sat.config import CLASSES, HOP_SAMPLES, SAMPLE_RATE_HZ
from sat.errors import AudioError, ConfigError
from sat.frontend import LogMel, clamp_dynamic_range
from sat.tagger import Tagger

BLOCK_BATCHES = 8  # batches whose compressed audio is read at once
AHEAD_BATCHES = 4  # batches decoded ahead
DECODE_THREADS = 4
VIEWS_AT_ONCE = 32
KEPT_SAMPLES = 2**31  # decoded clips that are kept in memory as 16-bit numbers: 37 hours, 4 GiB
JITTER_SAMPLES = SAMPLE_RATE_HZ  # 1 s
PLAIN_SHARE, NOISE_SHARE = 0.15, 0.03
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


def labelled_pieces(shards: Shards, pieces: Pieces, *, balance: float = 0.0, floor: float = 1.0) -> Examples:
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
    for start in range(0, len(mine), batch):
        numbers = mine[start : start + batch]
        audio = examples.shards.audio(np.unique(examples.clips[numbers]))
        crops = np.stack([crop(examples, audio[examples.clips[n]], n, crop_samples) for n in numbers.tolist()])
        labels = None if examples.labels is None else torch.from_numpy(examples.labels(numbers))
        yield (
            numbers,
            Batch(torch.from_numpy(crops), labels, [examples.shards.clips[c] for c in examples.clips[numbers]]),
        )


def crop(examples: Examples, audio: bytes, example: int, samples: int) -> Samples:
    """Decode a clip and cut an example out of it; what lies past the clip's end is silence."""
    return cut_out(examples, decoded(examples, audio, example), example, samples)


def decoded(examples: Examples, audio: bytes, example: int) -> Samples:
    """Decode the clip of an example.

    Raises:
        ConfigError: It cannot be decoded.
    """
    try:
        return decode(audio, SAMPLE_RATE_HZ)[0]
    except AudioError as error:
        raise ConfigError(f"{examples.shards.clips[examples.clips[example]]} is {error}") from error


def cut_out(examples: Examples, clip: Samples, example: int, samples: int, offset: int = 0) -> Samples:
    """Cut an example out of its decoded clip; what lies past the clip's end is silence."""
    last = max(0, len(clip) - samples)
    start = min(max(0, int(examples.starts_s[example] * SAMPLE_RATE_HZ) + offset), last)
    part = clip[start : start + samples]
    return np.pad(part, (0, samples - len(part)))


class Views:
    """Batches of views: crops that are altered, mixed, and then labelled by a teacher as they sound now.

    An epoch's views are made while the epoch before is trained on, and each is used `reuse` times; as log-mel values
    they take 49 kB each.
    """

    def __init__(
        self, examples: Examples, teacher: Tagger, *, chunk_frames: int, batch: int, per_epoch: int, reuse: int,
        mix: float, seed: int, rank: int, world: int,
    ) -> None:  # fmt: skip
        """Make ready.

        Args:
            examples: What is drawn from, with replacement; their labels are not looked at.
            teacher: Labels the views.
            chunk_frames: Frames of one of the two chunks of a view.
            batch: Views of a batch, for this worker.
            per_epoch: Views of an epoch, over all workers.
            reuse: How often each is used within its epoch.
            mix: Share of the views that are two sounds.
            seed: Of everything random.
            rank: Of this worker.
            world: How many there are.

        Raises:
            ConfigError: There is not even one batch for each worker.
        """
        self._examples, self._teacher = examples, teacher
        self._chunk_frames, self._batch, self._reuse, self._mix = chunk_frames, batch, reuse, mix
        self._seed, self._rank, self._count = seed, rank, (per_epoch or len(examples)) // world
        self._log_mel = LogMel()
        self._decoded: dict[int, npt.NDArray[np.int16]] = {}
        self._room = KEPT_SAMPLES
        self._maker = ThreadPoolExecutor(1)
        self._made: dict[int, Future[tuple[Tensor, Tensor]]] = {}
        self.steps = self._count * reuse // batch
        if not self.steps:
            raise ConfigError(f"{self._count} views are less than one batch of {batch}; lower batch")

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `first` on."""
        self._made = {n: made for n, made in self._made.items() if n == epoch}  # make room first
        for ahead in (epoch, epoch + 1):
            if ahead not in self._made:
                self._made[ahead] = self._maker.submit(self.make, ahead)
        views, labels = self._made[epoch].result()
        rng = np.random.default_rng((self._seed, epoch, self._rank, 1))
        order = np.concatenate([rng.permutation(self._count) for _ in range(self._reuse)])
        for step in range(first, self.steps):
            rows = torch.from_numpy(order[step * self._batch : (step + 1) * self._batch])
            yield Batch(views[rows].float(), labels[rows].float(), [f"view {row} of epoch {epoch}" for row in rows])

    def make(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Make the views of an epoch: log-mel [N, 64, 2 F] and labels [N, 527], both in half precision."""
        rng = np.random.default_rng((self._seed, epoch, self._rank))
        views = torch.empty(self._count, 64, 2 * self._chunk_frames, dtype=torch.float16)
        labels = torch.empty(self._count, CLASSES, dtype=torch.float16)
        for start in range(0, self._count, VIEWS_AT_ONCE):
            part = slice(start, min(self._count, start + VIEWS_AT_ONCE))
            waveforms = self._waveforms(part.stop - part.start, rng)
            labels[part] = self._teacher.scores(resample(waveforms, self._teacher.rate_hz)).half()
            frames = self._log_mel(waveforms)[..., : 2 * self._chunk_frames].split(self._chunk_frames, -1)
            views[part] = torch.cat([clamp_dynamic_range(chunk) for chunk in frames], -1).half()
        return views, labels

    def _waveforms(self, count: int, rng: np.random.Generator) -> Tensor:
        plain = self._draw(count, rng)
        first, second = (
            augment.colour(augment.speed(crops, rng, 0.4, 0.3), rng, equalised=0.35, reverberant=0.12)
            for crops in (plain, self._draw(count, rng))
        )
        second[: rng.binomial(count, NOISE_SHARE)] = augment.noise(1, second.shape[1], rng)
        mixed = augment.overlay(first, second, rng, self._mix)
        untouched = torch.from_numpy(rng.random(count) < PLAIN_SHARE)
        return augment.level(torch.where(untouched[:, None], plain, mixed), rng, 5.0)

    def _draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Crops of `count` examples, each begun up to a second earlier or later, short ones anywhere in silence."""
        examples, samples = self._examples, 2 * self._chunk_frames * HOP_SAMPLES
        chances = None if examples.weights is None else examples.weights / examples.weights.sum()
        drawn = rng.choice(len(examples), count, p=chances)
        wanted = np.unique(examples.clips[drawn])
        audio = examples.shards.audio(
            np.array([clip for clip in wanted.tolist() if clip not in self._decoded], np.int64)
        )
        crops = torch.zeros(count, samples)
        for row, example in enumerate(drawn.tolist()):
            offset = int(rng.integers(-JITTER_SAMPLES, JITTER_SAMPLES))
            part = cut_out(examples, self._decode(audio, example), example, samples, offset)
            length = min(samples, int(examples.shards.durations_s[examples.clips[example]] * SAMPLE_RATE_HZ))
            crops[row] = torch.from_numpy(np.roll(part, int(rng.integers(0, samples - length + 1))))
        return crops

    def _decode(self, audio: dict[int, bytes], example: int) -> Samples:
        """Decode a clip, and keep it while there is room: decoding takes longer than all that is done to a view."""
        clip = int(self._examples.clips[example])
        kept = self._decoded.get(clip)
        if kept is None:
            kept = np.round(decoded(self._examples, audio[clip], example).clip(-1, 1) * 32767).astype(np.int16)
            if len(kept) <= self._room:
                self._room -= len(kept)
                self._decoded[clip] = kept
        return kept.astype(np.float32) / np.float32(32767)


def resample(waveforms: Tensor, rate_hz: int) -> Tensor:
    """16 kHz to the rate of a teacher, by Fourier transform: nothing is added above 8 kHz.

    Shape:
        [B, n] -> [B, n rate_hz / 16000]
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return waveforms
    length = waveforms.shape[-1] * rate_hz // SAMPLE_RATE_HZ
    resampled: Tensor = torch.fft.irfft(torch.fft.rfft(waveforms) * (rate_hz / SAMPLE_RATE_HZ), n=length)
    return resampled
