"""One interface for everything that tags: SAT, other people's models, a tagger of your own.

A tagger reads samples at its own rate, cuts them into chunks (`chunks`), and scores chunks of one recording after the
other in batches (`score`); it says how long a chunk is and how many chunks before a chunk its score depends on
(`config`). `satpipe tag` asks no more, so that spans, workers, broken files and tables are the same for all.

SAT cuts log-mel frames and carries a memory: `satpipe.sat.taggers.sat`. A peer reads pieces of waveform, each
by itself: it is a
subclass that implements `forward`, with the class attributes that differ, and gets everything else from `Tagger`. Its
delay is whatever the person asks for, a whole number of milliseconds, so that times stay whole samples at 16 kHz.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, Self

import torch
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.batching import batches
from satpipe.sat.model.config import PATCH_SAMPLES, SAMPLE_RATE_HZ, ChunkConfig
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.model.streaming import Cut
from torch import Tensor, nn
from torch.nn import functional as F

Keyed = tuple[Any, Any]
"""A key of the caller's, and a chunk as the tagger's `chunks` makes them."""

CPU = torch.device("cpu")
PEER_BATCH_CHUNKS = 4  # few, since some pad each chunk to 10 s
SHORTEST_MS = 1000 * PATCH_SAMPLES // SAMPLE_RATE_HZ  # as for SAT


class Chunks(Protocol):
    """Cuts the samples of one recording, in blocks of any size, into chunks with an `index`."""

    def push(self, samples: Tensor) -> list[Any]:
        """Take samples [n] at the tagger's rate, return the chunks that are now complete."""

    def finish(self) -> list[Any]:
        """End the recording here, return what is left of it."""


@dataclass(frozen=True)
class ExternalConfig:
    """How a tagger that is not SAT reads: what `ModelConfig` is for SAT."""

    name: str
    rate_hz: int
    """Of the samples it takes."""
    delay_ms: int
    """Read at a time."""
    longest_ms: int
    """The most it can read at a time."""
    shortest_ms: int = SHORTEST_MS
    """The least; a recording that is shorter is padded with silence."""
    warmup_chunks: int = 0
    """Chunks before a chunk that its score depends on; 0: each stands alone."""

    @property
    def script_chunk_s(self) -> float:
        """The delay in seconds."""
        return self.delay_ms / 1000

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk at 16 kHz, whatever its own rate."""
        return self.delay_ms * SAMPLE_RATE_HZ // 1000

    @property
    def streaming(self) -> bool:
        """Whether something is carried from chunk to chunk."""
        return self.warmup_chunks > 0

    def without_memory(self) -> "ExternalConfig":
        """The same tagger with each chunk alone."""
        return replace(self, warmup_chunks=0)

    def with_delay(self, delay_s: float) -> "ExternalConfig":
        """The same tagger reading `delay_s` at a time.

        Raises:
            ConfigError: It cannot read so much or so little, or that is no whole number of its samples.
        """
        if not self.shortest_ms <= 1000 * delay_s <= self.longest_ms:
            raise ConfigError(
                f"a delay of {delay_s:g} s: {self.name} reads from {self.shortest_ms / 1000:g} s to "
                f"{self.longest_ms / 1000:g} s at a time"
            )
        delay_ms = round(1000 * delay_s)
        if abs(delay_ms - 1000 * delay_s) > 1e-6 or delay_ms * self.rate_hz % 1000:
            raise ConfigError(
                f"a delay of {delay_s:g} s: {self.name} takes whole milliseconds, and whole samples at "
                f"{self.rate_hz:,} Hz"
            )
        return replace(self, delay_ms=delay_ms)


@dataclass(frozen=True)
class WaveformChunk:
    """One chunk of a recording as a waveform.

    Attributes:
        index: Of the chunk in its recording.
        waveform: [n] samples; fewer in the last chunk.
        first: Nothing is carried over from the chunk before.
    """

    index: int
    waveform: Tensor
    first: bool


class Tagger(ABC):
    """Gives scores of AudioSet's 527 classes to recordings, chunk by chunk.

    Subclasses implement `forward`, and set the class attributes that are not as here. One that carries something from
    chunk to chunk sets `warmup_chunks` and implements `score` too.
    """

    rate_hz: int = SAMPLE_RATE_HZ
    """Sampling rate of the waveforms it takes."""
    delay_s: float = 10.0
    """Seconds read at a time, unless the person says otherwise."""
    longest_s: float = 10.0
    """Most seconds it can read at a time."""
    shortest_ms: int = SHORTEST_MS
    """Least milliseconds it can read; what is shorter is padded with silence."""
    warmup_chunks: int = 0
    """Chunks before a chunk that its score depends on."""
    mids: Sequence[str] | None = None
    """AudioSet's ids of its outputs, in their order; None: they are the 527 in AudioSet's order."""
    model: nn.Module | None = None
    """What is moved to the device and has the parameters."""
    needs_weights: bool = False
    """Without a file of weights its weights are random: good to measure what it costs, not to tag with."""
    weights_example: str = "FILE"
    """What to name as weights, for messages."""
    packages: Sequence[str] = ()
    """Distributions that it is made of, whose versions belong into `run.json`."""
    chunk_limit_s: float = 30.0
    """Seconds of work on a chunk after which a worker counts as hung, besides what all are given."""

    config: ChunkConfig
    """How it is used; set by `prepared`."""
    batch_chunks: int = PEER_BATCH_CHUNKS
    """Chunks to run at once; set by `prepared`."""
    device: torch.device = CPU
    """Where the model is; set by `prepared`."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Score pieces, each by itself.

        Shape:
            what `features` returns, of B pieces -> scores in 0 to 1, [B, outputs]
        """

    def features(self, waveforms: Tensor) -> Tensor:
        """Make of waveforms what `forward` takes, where they are; the same waveforms if this is not implemented.

        Apart from `forward` so that the cost table counts the model alone.

        Shape:
            [B, n] samples at `rate_hz` in -1 to 1 -> [B, ...]
        """
        return waveforms

    def network_input(self, chunk: Any) -> Tensor:
        """What `forward` takes, of one chunk."""
        return self._input(chunk.waveform[None])

    def tokens(self, samples: int) -> int | None:
        """Tokens that a piece of so many samples becomes; None where there is no such thing."""
        return None

    @property
    def front_end_device(self) -> torch.device:
        """Where `features` wants waveforms: the CPU, unless it can do its work beside the model."""
        return CPU

    @property
    def chunk_samples(self) -> int:
        """Samples from the start of a chunk to the start of the next, at its own rate."""
        return self.config.chunk_samples * self.config.rate_hz // SAMPLE_RATE_HZ

    lookahead_samples: int = 0
    """Samples after a chunk's end that it reaches into."""

    def context_samples(self, start_chunk: int) -> int:
        """Samples before a chunk's start that it reaches back to, without warm-up chunks."""
        return 0

    def chunks(self, start_chunk: int = 0) -> Chunks:
        """Begin to cut a recording, `context_samples` before the start of a chunk."""
        return WaveformChunkStream(self.chunk_samples, start_chunk, streaming=self.config.streaming)

    def score(self, chunks: Iterable[Keyed]) -> Iterator[tuple[Any, Tensor]]:
        """Score chunks of one recording after the other, `batch_chunks` at a time.

        Which chunks share a batch changes no score by more than rounding.

        Args:
            chunks: Pairs of a key of the caller's and a chunk, in order.

        Yields:
            The key and the scores [527] (float32, on the CPU) of each chunk, in the order given.
        """
        for batch in batches(chunks, self.batch_chunks):
            scores = [torch.empty(0)] * len(batch)
            by_length: dict[int, list[int]] = {}
            for place, (_, piece) in enumerate(batch):
                by_length.setdefault(len(piece.waveform), []).append(place)
            for places in by_length.values():
                together = self.scores(torch.stack([batch[place][1].waveform for place in places]))
                for place, score in zip(places, together, strict=True):
                    scores[place] = score
            yield from zip((key for key, _ in batch), scores, strict=True)

    @torch.no_grad()
    def scores(self, waveforms: Tensor) -> Tensor:
        """Score pieces, each by itself, in the order of AudioSet's 527 classes.

        Shape:
            [B, n] samples at `rate_hz` -> [B, 527], float32, on the CPU
        """
        shortest = -(-self.shortest_ms * self.rate_hz // 1000)
        padded = F.pad(waveforms, (0, max(0, shortest - waveforms.shape[-1])))
        return self.in_order(self.forward(self._input(padded)))

    def _input(self, waveforms: Tensor) -> Tensor:
        return self.features(waveforms.to(self.front_end_device)).to(self.device, self.dtype)

    def in_order(self, outputs: Tensor) -> Tensor:
        """Put outputs into the order of AudioSet's classes.

        Shape:
            [B, outputs] -> [B, 527], float32, on the CPU

        Raises:
            LabelError: There are not as many as `mids` names.
        """
        named = len(self.order if self.mids is None else self.mids)
        if outputs.ndim != 2 or outputs.shape[1] != named:
            raise LabelError(f"{type(self).__name__} gives scores {list(outputs.shape)}, but names {named} classes")
        return outputs[:, self.order].float().cpu()

    @cached_property
    def order(self) -> list[int]:
        """Which output each of the 527 classes is.

        Raises:
            LabelError: A class is missing, or there are two of it.
        """
        wanted = [label.mid for label in weak_labels()]
        mids = wanted if self.mids is None else list(self.mids)
        place = {mid: number for number, mid in enumerate(mids)}
        missing = [mid for mid in wanted if mid not in place]
        if missing or len(place) < len(mids):
            problem = f"lacks {', '.join(missing[:4])}" if missing else "has a class twice"
            raise LabelError(
                f"{type(self).__name__} has {len(mids)} outputs and {problem}: the 527 classes of AudioSet are wanted"
            )
        return [place[mid] for mid in wanted]

    @property
    def dtype(self) -> torch.dtype:
        """What the model computes in."""
        parameters = iter(()) if self.model is None else self.model.parameters()
        return next((parameter.dtype for parameter in parameters), torch.float32)

    def prepared(self, config: ChunkConfig, device: torch.device, precision: str, batch_chunks: int | None) -> "Tagger":
        """Return this tagger, made ready to be used as `config` says.

        Raises:
            ConfigError: It cannot run in that precision.
        """
        if self.model is None and precision != "fp32":
            raise ConfigError(f"{config.name} does not run in {precision}; leave --precision out")
        prepared = copy.copy(self)
        prepared.config, prepared.device = config, device
        prepared.batch_chunks = batch_chunks or self.batch_chunks
        if self.model is not None:
            self.model.to(device, dtype_for(precision, device))
        return prepared


class WaveformChunkStream:
    """Cuts the samples of one recording, in blocks of any size, into pieces of equal length."""

    def __init__(self, samples: int, start_chunk: int, *, streaming: bool) -> None:
        self._samples = samples
        self._start = self._index = start_chunk
        self._streaming = streaming
        self._pending = torch.empty(0)

    def push(self, samples: Tensor) -> list[WaveformChunk]:
        """Take samples [n], return the pieces that are now complete."""
        self._pending = torch.cat([self._pending, samples])
        whole = len(self._pending) // self._samples * self._samples
        pieces = self._pending[:whole].split(self._samples) if whole else ()
        self._pending = self._pending[whole:].clone()  # lets go of what is done with
        return [self._piece(piece) for piece in pieces]

    def finish(self) -> list[WaveformChunk]:
        """End the recording here, return what is left of it: a shorter piece, or none."""
        return [self._piece(self._pending)] if len(self._pending) else []

    def _piece(self, waveform: Tensor) -> WaveformChunk:
        piece = WaveformChunk(self._index, waveform, first=not self._streaming or self._index == self._start)
        self._index += 1
        return piece


@dataclass(frozen=True, kw_only=True)
class LoadedTagger(ABC):
    """A tagger whose weights are loaded, but which is not on a device yet; workers receive it in this form.

    Attributes:
        config: How the tagger reads a recording.
        sha256: Of the weights, or of whatever else identifies the tagger.
        source: Where the weights came from, for people.
        metadata: What the weights' file states about itself.
    """

    config: ChunkConfig
    sha256: str
    source: str
    metadata: dict[str, str]

    @property
    @abstractmethod
    def has_memory(self) -> bool:
        """True if the tagger can carry something from chunk to chunk, even where `config` switches it off."""

    @abstractmethod
    def tagger(
        self,
        cut: Cut = "gapless",
        device: torch.device = CPU,
        precision: str = "fp32",
        batch_chunks: int | None = None,
    ) -> Tagger:
        """Return the tagger, ready to tag.

        Args:
            cut: Chunking mode; taggers that read waveforms have only one.
            device: Where the model runs.
            precision: One of `satpipe.sat.model.precision.PRECISIONS`.
            batch_chunks: Chunks to run at once; None: as many as suit the tagger and the device.

        Raises:
            ConfigError: The tagger or the device does not support that precision.
        """

    def adapted(self, delay_s: float | None = None, *, memory: bool = True) -> Self:
        """Return the same weights with another delay in seconds, or without memory.

        Raises:
            ConfigError: The model does not allow that delay.
        """
        config = self.config if delay_s is None else self.config.with_delay(delay_s)
        return replace(self, config=config if memory else config.without_memory())


@dataclass(frozen=True, kw_only=True)
class LoadedExternalTagger(LoadedTagger):
    """A loaded tagger other than SAT.

    Attributes:
        instance: The tagger, not prepared for a device yet.
    """

    instance: Tagger

    @property
    def has_memory(self) -> bool:
        """True if the tagger can carry something from chunk to chunk, even where `config` switches it off."""
        return self.instance.warmup_chunks > 0

    def tagger(
        self,
        cut: Cut = "gapless",
        device: torch.device = CPU,
        precision: str = "fp32",
        batch_chunks: int | None = None,
    ) -> Tagger:
        """Prepare the tagger and return it."""
        return self.instance.prepared(self.config, device, precision, batch_chunks)
