"""SAT as a tagger: log-mel chunks of a stream, memory from chunk to chunk, many chunks per batch."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from satpipe.sat.model.batching import BATCH_CHUNKS, batch_chunks_for, score_chunks
from satpipe.sat.model.config import CENTRE_SAMPLES, HOP_SAMPLES, PATCH_SAMPLES, Cut
from satpipe.sat.model.cutting import chunk_samples, context_samples
from satpipe.sat.model.finite import check_finite
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT
from satpipe.sat.model.precision import dtype_for
from satpipe.sat.model.streaming import ChunkStream
from satpipe.sat.taggers.interface import CPU, Keyed, Tagger
from torch import Tensor
from torch.nn import functional as F


class SATTagger(Tagger):
    """A SAT, streaming or full-context, in evaluation mode and on `device`."""

    chunk_limit_s = 0.0
    lookahead_samples = CENTRE_SAMPLES  # the last frame of a chunk reaches half a window into the next one
    model: SAT

    def __init__(
        self,
        model: SAT,
        cut: Cut = "gapless",
        device: torch.device = CPU,
        batch_chunks: int = BATCH_CHUNKS,
        *,
        embeddings: bool = False,
    ) -> None:
        self.model, self.config = model, model.config
        self.cut: Cut = cut
        self.device, self.batch_chunks, self.embeddings = device, batch_chunks, embeddings
        self.log_mel = LogMel().to(device)

    @property
    def chunk_samples(self) -> int:
        """Samples from the start of a chunk to the start of the next, of whichever grid."""
        return chunk_samples(self.config, self.cut)

    def context_samples(self, start_chunk: int) -> int:
        """Return the samples before its start that the first frame of a chunk covers."""
        return context_samples(self.cut, start_chunk)

    @property
    def embedding_size(self) -> int:
        """Width of the model."""
        return self.model.config.width

    def network_input(self, chunk: Any) -> Tensor:
        """Shape: [1, 64, F]."""
        return chunk.log_mel[None].to(self.device)  # type: ignore[no-any-return]

    def tokens(self, samples: int) -> int:
        """Return the tokens of a whole chunk."""
        return self.model.config.chunk_tokens

    def chunks(self, start_chunk: int = 0) -> ChunkStream:
        """Start cutting a recording into chunks."""
        return ChunkStream(self.log_mel, self.model.config, self.cut, start_chunk)

    def score(self, chunks: Iterable[Keyed]) -> Iterator[tuple[Any, Tensor]]:
        """Score chunks, layer by layer within a recording if the configuration allows it."""
        return score_chunks(self.model, chunks, self.batch_chunks, device=self.device, embeddings=self.embeddings)

    def forward(self, features: Tensor) -> Tensor:
        """Shape: log-mel [B, 64, F], clamped -> scores [B, 527] with an empty memory."""
        return self.model(features)[0]  # type: ignore[no-any-return]

    @torch.no_grad()
    def scores(self, waveforms: Tensor) -> Tensor:
        """Score segments with `segment_scores`; the result is on the CPU."""
        return segment_scores(self.model, self.log_mel, waveforms.to(self.device)).cpu()


def prepared(
    model: SAT, cut: Cut, device: torch.device | None, precision: str, batch_chunks: int | None, *, embeddings: bool
) -> SATTagger:
    """Return a tagger with this model, which is moved to the device and the precision.

    Raises:
        ConfigError: The device does not support the precision.
    """
    device = device or CPU
    model = model.to(device).to_precision(dtype_for(precision, device))
    return SATTagger(model, cut, device, batch_chunks or batch_chunks_for(device), embeddings=embeddings)


def segment_scores(model: SAT, log_mel: LogMel, waveforms: Tensor) -> Tensor:
    """Return the mean scores over the whole chunks of each segment; the memory is empty at the start of a segment.

    A segment shorter than a chunk is read as one chunk, as a full-context model reads one of up to its chunk length.

    Shape:
        [B, n] samples at 16 kHz -> [B, 527]
    """
    samples = max(PATCH_SAMPLES, waveforms.shape[-1])
    frames = log_mel(F.pad(waveforms, (0, samples - waveforms.shape[-1])))
    frames = frames[..., : samples // HOP_SAMPLES]
    memory, chunk_scores = None, []
    for chunk in frames.split(model.config.chunk_frames, dim=-1):
        if chunk.shape[-1] < min(model.config.chunk_frames, frames.shape[-1]):
            break  # what remains is shorter than a chunk
        scores, memory = model(clamp_dynamic_range(chunk), memory)
        chunk_scores.append(scores)
    mean = torch.stack(chunk_scores).mean(0)
    check_finite(mean, model, lambda row: f"segment {row} of a batch")
    return mean
