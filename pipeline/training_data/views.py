"""Views of a small training set: crops that are augmented, mixed, and then labelled by a teacher.

All of this happens on the device that is used for training; a GPU keeps the clips in its memory.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.training_data.feed import Batch, Examples, Indices
from satpipe.pipeline.training_data.segments import chunk_spans
from satpipe.pipeline.training_data.shards import Shards
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CLASSES, HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.taggers.interface import CPU, Tagger
from satpipe.sat.training import augmentation as augment
from torch import Tensor

VIEWS_AT_ONCE, GPU_VIEWS_AT_ONCE = 32, 512
KEPT_SAMPLES = 2**31  # maximum length of the decoded clips kept in memory, as 16-bit numbers: 37 hours, 4 GiB
JITTER_SAMPLES = SAMPLE_RATE_HZ  # 1 s
JOIN_GAP_SAMPLES = 2 * SAMPLE_RATE_HZ  # maximum silence between joined clips
FADE_SAMPLES = SAMPLE_RATE_HZ // 100  # of joined clips: a hard cut would click
PLAIN_SHARE, NOISE_SHARE = 0.15, 0.03
_FULL_SCALE = 32767


class Views:
    """Batches of views, for one of several workers.

    The views of an epoch, 25 kB of log-mel values per chunk of 2 s, are made while the model trains on the previous
    epoch.
    """

    def __init__(
        self, examples: Examples, teacher: Tagger, *, chunk_frames: int, batch: int, per_epoch: int, reuse: int,
        mix: float, seed: int, rank: int, world: int, device: torch.device = CPU, chunks: int = 2,
        context_chunks: int | None = None, join: float = 0.0, epochs: int | None = None,
    ) -> None:  # fmt: skip
        """Prepare to make views.

        Args:
            examples: Examples to draw from, with replacement; their labels are ignored.
            teacher: Labels the views; on `device`.
            chunk_frames: Frames of a chunk.
            batch: Views per batch of this worker.
            per_epoch: Views per epoch, over all workers.
            reuse: Number of times that each view is used within its epoch.
            mix: Share of the views that mix two sounds.
            seed: Random seed.
            rank: Number of this worker.
            world: Number of workers.
            device: Device on which views are made and kept.
            chunks: Chunks of a view.
            context_chunks: Also label each chunk, with so many chunks before it; None: label the whole view only.
            join: Share of the crops with other clips before and after their own, as in a long recording.
            epochs: Number of epochs, after which no further views are made ahead; None: any number.

        Raises:
            ConfigError: There are fewer views than one batch.
        """
        self._examples, self._teacher, self._device = examples, teacher, device
        self._chunk_frames, self._batch, self._reuse, self._mix = chunk_frames, batch, reuse, mix
        self._seed, self._rank, self._count = seed, rank, (per_epoch or len(examples)) // world
        self._at_once = GPU_VIEWS_AT_ONCE if device.type == "cuda" else VIEWS_AT_ONCE
        self._log_mel = LogMel().to(device)
        self._chunks, self._join, self._epochs = chunks, join, epochs
        self._samples = chunks * chunk_frames * HOP_SAMPLES
        # What the teacher hears, in samples: the view, and for the label of each chunk that chunk and its context.
        self._heard = [(0, self._samples)]
        if context_chunks is not None:
            spans = chunk_spans(chunks, context_chunks)
            self._heard += [(first * self._samples // chunks, end * self._samples // chunks) for first, end in spans]
        self._clips = ClipCache(examples.shards, self._samples, device)
        weights = examples.weights
        self._chances = None if weights is None else np.cumsum(weights / weights.sum())
        self._maker = ThreadPoolExecutor(1)
        self._made: dict[int, Future[tuple[Tensor, Tensor]]] = {}
        self.steps = self._count * reuse // batch
        if not self.steps:
            raise ConfigError(f"{self._count} views are fewer than a batch of {batch}; lower batch")

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `first` on."""
        self._made = {n: made for n, made in self._made.items() if n == epoch}  # frees memory first
        for ahead in (epoch, epoch + 1):
            if ahead not in self._made and ahead != self._epochs:
                self._made[ahead] = self._maker.submit(self.make, ahead)
        views, labels = self._made[epoch].result()
        rng = np.random.default_rng((self._seed, epoch, self._rank, 1))
        order = np.concatenate([rng.permutation(self._count) for _ in range(self._reuse)])
        for step in range(first, self.steps):
            numbers = order[step * self._batch : (step + 1) * self._batch]
            rows = torch.from_numpy(numbers).to(self._device)
            yield Batch(views[rows].float(), labels[rows].float(), [f"view {n} of epoch {epoch}" for n in numbers])

    @torch.no_grad()
    def make(self, epoch: int) -> tuple[Tensor, Tensor]:
        """Make the views of an epoch, both in half precision: log-mel [N, 64, C F], and labels.

        Labels are [N, 527], or [N, 1 + C, 527] of the views and their C chunks.
        """
        rng = np.random.default_rng((self._seed, epoch, self._rank))
        size = self._chunks * self._chunk_frames
        views = torch.empty(self._count, 64, size, dtype=torch.float16, device=self._device)
        labels = torch.empty(self._count, len(self._heard), CLASSES, dtype=torch.float16, device=self._device)
        for start in range(0, self._count, self._at_once):
            part = slice(start, min(self._count, start + self._at_once))
            waveforms = self._waveforms(part.stop - part.start, rng)
            for row, (begin, end) in enumerate(self._heard):
                heard = resample(waveforms[:, begin:end], self._teacher.rate_hz)
                labels[part, row] = self._teacher.scores(heard).half()
            frames = self._log_mel(waveforms)[..., :size].split(self._chunk_frames, -1)
            views[part] = torch.cat([clamp_dynamic_range(chunk) for chunk in frames], -1).half()
        return views, labels.squeeze(1)

    def _waveforms(self, count: int, rng: np.random.Generator) -> Tensor:
        plain = self._draw(count, rng)
        first, second = (
            augment.colour(augment.speed(crops, rng, 0.4, 0.3), rng, equalised=0.35, reverberant=0.12)
            for crops in (plain, self._draw(count, rng))
        )
        noisy = rng.binomial(count, NOISE_SHARE)
        if noisy:
            second[:noisy] = augment.noise(second[:noisy], rng)
        mixed = augment.overlay(first, second, rng, self._mix)
        untouched = torch.from_numpy(rng.random((count, 1)) < PLAIN_SHARE).to(self._device)
        return augment.level(torch.where(untouched, plain, mixed), rng, 5.0)

    def _draw(self, count: int, rng: np.random.Generator) -> Tensor:
        """Return crops of `count` examples, of which a share is joined with other clips."""
        if not self._join:
            return self._draw_single(count, rng)
        joined = torch.from_numpy(rng.random(count) < self._join).to(self._device)
        crops = torch.empty(count, self._samples, device=self._device)
        crops[joined] = self._draw_joined(int(joined.sum()), rng)
        crops[~joined] = self._draw_single(int((~joined).sum()), rng)
        return crops

    def _draw_joined(self, count: int, rng: np.random.Generator) -> Tensor:
        """Return crops in which an example starts anywhere, with other clips before and after its own.

        Half of the clips follow each other at once, the others after up to JOIN_GAP_SAMPLES of silence.
        """
        samples = self._samples
        drawn = self._draw_examples(3 * count, rng).reshape(3, count)
        clips = self._examples.clips[drawn]
        lengths = self._clips.load(clips.reshape(-1)).reshape(3, count)
        gaps = rng.integers(0, JOIN_GAP_SAMPLES, (2, count)) * rng.integers(0, 2, (2, count))
        starts = (self._examples.starts_s[drawn[0]] * SAMPLE_RATE_HZ).astype(np.int64)
        place = rng.integers(-JITTER_SAMPLES, samples - JITTER_SAMPLES, count) - starts
        places = (place, place - gaps[0] - lengths[1], place + lengths[0] + gaps[1])  # of the clips in the crops
        crops = torch.zeros(count, samples, device=self._device)
        for own, where, length in zip(clips, places, lengths, strict=True):
            crops += self._clips.crops(own, (-where).clip(-samples, length), FADE_SAMPLES)
        return crops

    def _draw_examples(self, count: int, rng: np.random.Generator) -> Indices:
        if self._chances is None:
            return rng.integers(0, len(self._examples), count)
        return np.searchsorted(self._chances, rng.random(count), "right").clip(max=len(self._examples) - 1)

    def _draw_single(self, count: int, rng: np.random.Generator) -> Tensor:
        """Return crops of examples, each shifted by up to a second; short clips are surrounded by silence."""
        examples, samples = self._examples, self._samples
        drawn = self._draw_examples(count, rng)
        clips = examples.clips[drawn]
        lengths = self._clips.load(clips)
        offsets = rng.integers(-JITTER_SAMPLES, JITTER_SAMPLES, count)
        begins = (examples.starts_s[drawn] * SAMPLE_RATE_HZ).astype(np.int64) + offsets
        begins = begins.clip(0, (lengths - samples).clip(min=0))
        silence = rng.integers(0, (samples - lengths).clip(min=0) + 1)  # before a short clip
        return self._clips.crops(clips, begins - silence)


class ClipCache:
    """Keeps decoded clips in memory: decoding takes longer than all other work on a view."""

    def __init__(
        self, shards: Shards, crop_samples: int, device: torch.device, room_samples: int = KEPT_SAMPLES
    ) -> None:
        """Allocate the memory.

        Args:
            shards: The training set.
            crop_samples: Length of a crop.
            device: Device on which clips are kept and cut.
            room_samples: Size of the cache, which is emptied when full, and grows if one call of `load` needs more.
        """
        self._shards, self._crop_samples, self._device = shards, crop_samples, device
        every = np.arange(len(shards), dtype=np.int64)
        self._samples = torch.empty(0, dtype=torch.int16, device=device)
        self._starts, self._lengths = np.full(len(every), -1, np.int64), np.zeros(len(every), np.int64)
        self._forget(at_least=min(room_samples, self._most_samples(every)))

    def load(self, clips: Indices) -> Indices:
        """Decode clips that are not in memory; return the lengths of all in samples, in the order given.

        Raises:
            ConfigError: A clip cannot be decoded.
        """
        wanted = np.unique(clips)
        missing = wanted[self._starts[wanted] < 0]
        if self._end + self._most_samples(missing) > len(self._samples) - self._crop_samples:
            missing = wanted
            self._forget(at_least=self._most_samples(wanted))
        if decoded := self._decode(missing):
            lengths = np.array([len(clip) for clip in decoded])
            self._lengths[missing] = lengths
            self._starts[missing] = self._end + np.cumsum(lengths) - lengths
            together = np.round(np.concatenate(decoded).clip(-1, 1) * _FULL_SCALE).astype(np.int16)
            self._samples[self._end : self._end + len(together)] = torch.from_numpy(together)
            self._end += len(together)
        return self._lengths[clips]

    def crops(self, clips: Indices, begins: Indices, fade_samples: int = 0) -> Tensor:
        """Cut crops out of loaded clips, padded with silence before a clip's start and after its end.

        Args:
            clips: Clip of each crop, [n].
            begins: Start of each crop in its clip in samples, [n].
            fade_samples: Length of a linear fade at both ends of a clip.

        Returns:
            Samples from -1 to 1, [n, crop_samples].
        """
        starts, first, end = torch.from_numpy(
            np.stack([self._starts[clips] + begins, -begins, self._lengths[clips] - begins])
        ).to(self._device)
        cut = self._samples.unfold(0, self._crop_samples, 1)[starts] / _FULL_SCALE
        places = torch.arange(self._crop_samples, device=self._device)
        if fade_samples:
            inside = torch.minimum(places - first[:, None], end[:, None] - 1 - places)  # samples from the nearer end
            cut *= (inside / fade_samples).clamp(0, 1)
        return cut.masked_fill_((places < first[:, None]) | (places >= end[:, None]), 0.0)

    def _most_samples(self, clips: Indices) -> int:
        """Return an upper bound of the total length of clips; their stated durations are rounded."""
        return int(self._shards.durations_s[clips].sum(dtype=np.float64) * SAMPLE_RATE_HZ) + len(clips) * PATCH_SAMPLES

    def _forget(self, at_least: int) -> None:
        """Empty the cache; allocate this number of samples, plus the length of a crop at either end."""
        needed = at_least + 2 * self._crop_samples
        if needed > len(self._samples):
            self._samples = torch.empty(needed, dtype=torch.int16, device=self._device)
        self._starts[:] = -1
        self._end = self._crop_samples

    def _decode(self, clips: Indices) -> list[Samples]:
        audio = self._shards.audio(clips)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            return list(pool.map(lambda clip: self._shards.decode(clip, audio[clip]), clips.tolist()))


def resample(waveforms: Tensor, rate_hz: int) -> Tensor:
    """Resample from 16 kHz to the rate of a teacher by Fourier transform, which adds nothing above 8 kHz.

    Shape:
        [B, n] -> [B, n rate_hz / 16000]
    """
    if rate_hz == SAMPLE_RATE_HZ:
        return waveforms
    length = waveforms.shape[-1] * rate_hz // SAMPLE_RATE_HZ
    resampled: Tensor = torch.fft.irfft(torch.fft.rfft(waveforms) * (rate_hz / SAMPLE_RATE_HZ), n=length)
    return resampled
