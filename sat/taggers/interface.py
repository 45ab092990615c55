"""One interface for all taggers: SAT, other published models, and your own taggers.

A tagger cuts the samples of a recording into chunks (`chunks`) and scores them in batches (`score`); its `config`
states how long a chunk is and on how many earlier chunks its score depends. `satpipe tag` needs no more than this, so
spans, workers, tables and the treatment of broken files are the same for all taggers.

SAT cuts log-mel frames and carries memory (`satpipe.sat.taggers.sat`). Any other tagger scores chunks of waveform
independently: it is a subclass of `Tagger` that implements `forward` and sets the class attributes that differ. Its
delay is a whole number of milliseconds, so that times are whole samples at 16 kHz.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.batching import batches
from satpipe.sat.model.config import SAMPLE_RATE_HZ, ChunkConfig, Cut
from satpipe.sat.model.grids import score_stretches
from satpipe.sat.model.outputs import join, split
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.taggers.loaded import SHORTEST_MS, LoadedTagger
from satpipe.sat.taggers.waveform_chunks import Chunks, WaveformChunkStream
from torch import Tensor, nn
from torch.nn import functional as F

Keyed = tuple[Any, Any]
"""A key chosen by the caller, and a chunk from the tagger's `chunks`."""

CPU = torch.device("cpu")
BATCH_CHUNKS = 4  # few, since some taggers pad each chunk to 10 s


class Tagger(ABC):
    """Scores recordings for AudioSet's 527 classes, chunk by chunk.

    Subclasses implement `forward` and override the class attributes that differ. A subclass that carries something
    from chunk to chunk also sets `warmup_chunks` and implements `score`.
    """

    rate_hz: int = SAMPLE_RATE_HZ
    """Sampling rate of the input."""
    delay_s: float = 10.0
    """Default length of a chunk in seconds."""
    longest_s: float = 10.0
    """Maximum length of a chunk in seconds."""
    shortest_ms: int = SHORTEST_MS
    """Minimum length of a chunk in milliseconds; shorter ones are padded with silence."""
    warmup_chunks: int = 0
    """Number of earlier chunks on which a score depends."""
    mids: Sequence[str] | None = None
    """AudioSet's mids of the outputs, in their order; None for the 527 classes in AudioSet's order."""
    model: nn.Module | None = None
    """The network that is moved to the device; None for a tagger without one."""
    needs_weights: bool = False
    """True if the tagger has random weights unless a file is given; random weights serve only to measure its cost."""
    weights_example: str = "FILE"
    """An example of a file name, for messages."""
    packages: Sequence[str] = ()
    """Distributions whose versions are recorded in `run.json`."""
    chunk_limit_s: float = 30.0
    """Seconds per chunk that are added to the time limit after which a worker is treated as hung."""

    config: ChunkConfig
    """How recordings are read; set by `prepared`."""
    batch_chunks: int = BATCH_CHUNKS
    """Chunks per batch; set by `prepared`."""
    device: torch.device = CPU
    """Device of the model; set by `prepared`."""
    embeddings: bool = False
    """True if the embedding of a chunk follows its scores (`satpipe.sat.model.outputs`); set by `prepared`."""

    @abstractmethod
    def forward(self, features: Tensor) -> Tensor:
        """Score segments independently.

        Shape:
            result of `features` for B segments -> scores in 0 to 1, [B, outputs]
        """

    @property
    def embedding_size(self) -> int:
        """Number of values of an embedding; 0: the tagger has none, and no `forward_and_embed`."""
        return 0

    def forward_and_embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Score segments as `forward` does, and also return their embeddings.

        Shape:
            result of `features` for B segments -> scores [B, outputs], embeddings [B, `embedding_size`]
        """
        raise NotImplementedError

    def features(self, waveforms: Tensor) -> Tensor:
        """Compute the input of `forward`, on the device of the waveforms; by default the waveforms themselves.

        Separate from `forward` so that the cost table counts the network alone.

        Shape:
            [B, n] samples at `rate_hz` in -1 to 1 -> [B, ...]
        """
        return waveforms

    def network_input(self, chunk: Any) -> Tensor:
        """Return the input of `forward` for one chunk."""
        return self._input(chunk.waveform[None])

    def tokens(self, samples: int) -> int | None:
        """Return the number of tokens of a segment of `samples` samples; None if the model has no tokens."""
        return None

    @property
    def front_end_device(self) -> torch.device:
        """Device on which `features` expects waveforms: the CPU, or the device of the model."""
        return CPU

    @property
    def chunk_samples(self) -> int:
        """Samples from the start of a chunk to the start of the next, of whichever grid, at `rate_hz`."""
        return self.config.chunk_samples * self.config.rate_hz // SAMPLE_RATE_HZ // self.config.grids

    lookahead_samples: int = 0
    """Number of samples after its end on which a chunk depends."""

    def context_samples(self, start_chunk: int) -> int:
        """Return the number of samples before its start on which a chunk depends, not counting warm-up chunks."""
        return 0

    def chunks(self, start_chunk: int = 0) -> Chunks:
        """Start cutting a recording into chunks, `context_samples` before the start of a chunk."""
        return WaveformChunkStream(
            self.chunk_samples, start_chunk, streaming=self.config.streaming, grids=self.config.grids
        )

    def score_rows(self, chunks: Iterable[Keyed]) -> Iterator[tuple[Any, Tensor]]:
        """Score the rows of the tables, given the chunks of all grids: one row starts with each chunk.

        Args:
            chunks: As for `score`.

        Yields:
            As `score`; with several grids, the scores of the stretch from the start of a chunk to that of the next.
        """
        return self.score(chunks) if self.config.grids == 1 else score_stretches(self.score, chunks, self.config)

    def score(self, chunks: Iterable[Keyed]) -> Iterator[tuple[Any, Tensor]]:
        """Score the chunks of a grid, of one recording after another, `batch_chunks` per batch.

        The composition of batches changes scores by no more than rounding.

        Args:
            chunks: Pairs of a key chosen by the caller and a chunk, in order.

        Yields:
            The key and the scores [527] of each chunk or, with `embeddings`, its outputs [527 + D] (float32, on the
            CPU), in the order given.
        """
        for batch in batches(chunks, self.batch_chunks):
            outputs = [torch.empty(0)] * len(batch)
            by_length: dict[int, list[int]] = {}
            for place, (_, chunk) in enumerate(batch):
                by_length.setdefault(len(chunk.waveform), []).append(place)
            for places in by_length.values():
                together = self._outputs(torch.stack([batch[place][1].waveform for place in places]))
                for place, row in zip(places, together, strict=True):
                    outputs[place] = row
            yield from zip((key for key, _ in batch), outputs, strict=True)

    def scores(self, waveforms: Tensor) -> Tensor:
        """Score segments independently, in the order of AudioSet's 527 classes.

        Shape:
            [B, n] samples at `rate_hz` -> [B, 527], float32, on the CPU
        """
        return split(self._outputs(waveforms))[0]

    @torch.no_grad()
    def _outputs(self, waveforms: Tensor) -> Tensor:
        shortest = -(-self.shortest_ms * self.rate_hz // 1000)
        features = self._input(F.pad(waveforms, (0, max(0, shortest - waveforms.shape[-1]))))
        if not self.embeddings:
            return self.in_order(self.forward(features))
        scores, embeddings = self.forward_and_embed(features)
        return join(self.in_order(scores), embeddings.cpu())

    def _input(self, waveforms: Tensor) -> Tensor:
        return self.features(waveforms.to(self.front_end_device)).to(self.device, self.dtype)

    def in_order(self, outputs: Tensor) -> Tensor:
        """Bring outputs into the order of AudioSet's classes.

        Shape:
            [B, outputs] -> [B, 527], float32, on the CPU

        Raises:
            LabelError: The number of outputs is not that of `mids`.
        """
        named = len(self.order if self.mids is None else self.mids)
        if outputs.ndim != 2 or outputs.shape[1] != named:
            raise LabelError(f"{type(self).__name__} returned scores {list(outputs.shape)} for {named} classes")
        return outputs[:, self.order].float().cpu()

    @cached_property
    def order(self) -> list[int]:
        """Position among the outputs of each of the 527 classes.

        Raises:
            LabelError: A class is missing or occurs twice.
        """
        wanted = [label.mid for label in weak_labels()]
        mids = wanted if self.mids is None else list(self.mids)
        place = {mid: number for number, mid in enumerate(mids)}
        missing = [mid for mid in wanted if mid not in place]
        if missing or len(place) < len(mids):
            problem = f"{', '.join(missing[:4])} missing" if missing else "a class twice"
            raise LabelError(
                f"{type(self).__name__} must have the 527 classes of AudioSet; it has {len(mids)} outputs, {problem}"
            )
        return [place[mid] for mid in wanted]

    @property
    def dtype(self) -> torch.dtype:
        """Type in which the model computes."""
        parameters = iter(()) if self.model is None else self.model.parameters()
        return next((parameter.dtype for parameter in parameters), torch.float32)

    def prepared(
        self,
        config: ChunkConfig,
        device: torch.device,
        precision: str,
        batch_chunks: int | None,
        *,
        embeddings: bool = False,
    ) -> "Tagger":
        """Return a copy of this tagger, ready to tag with `config` on `device`.

        Raises:
            ConfigError: The tagger or the device does not support the precision.
        """
        if self.model is None and precision != "fp32":
            raise ConfigError(f"{config.name} does not support --precision {precision}; omit the option")
        prepared = copy.copy(self)
        prepared.config, prepared.device, prepared.embeddings = config, device, embeddings
        prepared.batch_chunks = batch_chunks or self.batch_chunks
        if self.model is not None:
            dtype = dtype_for(precision, device)
            model = self.model if dtype == torch.float32 else copy.deepcopy(self.model)  # whose weights are not rounded
            prepared.model = model.to(device, dtype)
        return prepared


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

    @property
    def embedding_size(self) -> int:
        """Number of values of an embedding; 0: the tagger has none."""
        return self.instance.embedding_size

    @property
    def has_network(self) -> bool:
        """True if the tagger has a network, which computes in any precision; one without only computes in fp32."""
        return self.instance.model is not None

    def _prepared(
        self, cut: Cut, device: torch.device | None, precision: str, batch_chunks: int | None, *, embeddings: bool
    ) -> Tagger:
        return self.instance.prepared(self.config, device or CPU, precision, batch_chunks, embeddings=embeddings)
