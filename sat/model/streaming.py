"""From samples to scores, online: cut a stream of samples into chunks and tag each as soon as it is complete."""

from dataclasses import dataclass

import torch
from satpipe.sat.model.config import CUTS as CUTS
from satpipe.sat.model.config import (
    FREQUENCY_PATCHES,
    HOP_SAMPLES,
    MEL_BANDS,
    PATCH_FRAMES,
    PATCH_SAMPLES,
    SAMPLE_RATE_HZ,
    ChunkConfig,
    ModelConfig,
)
from satpipe.sat.model.config import Cut as Cut
from satpipe.sat.model.frontend import CENTRE_SAMPLES, LogMel, LogMelStream, clamp_dynamic_range, to_device
from satpipe.sat.model.network import SAT, Memory
from torch import Tensor
from torch.nn import functional as F


def chunk_samples(config: ChunkConfig, cut: Cut) -> int:
    """Samples from the start of a chunk to the start of the next, at 16 kHz."""
    return config.chunk_samples if cut == "gapless" else round(config.script_chunk_s * SAMPLE_RATE_HZ)


def count_chunks(config: ChunkConfig, cut: Cut, samples: int) -> int:
    """Chunks of a recording of that many samples at 16 kHz; a last one that is not full counts."""
    return -(-samples // chunk_samples(config, cut))


def context_samples(cut: Cut, start_chunk: int) -> int:
    """Samples before a chunk's start that its first frame reaches back to."""
    return CENTRE_SAMPLES if cut == "gapless" and start_chunk > 0 else 0


@dataclass(frozen=True)
class Chunk:
    """One chunk of a recording, ready for the model.

    Attributes:
        index: Of the chunk in its recording; -1 for the digital silence that warms the memory in the script cut.
        log_mel: [64, F] dB, clamped. F is the configuration's `chunk_frames`, less in the last chunk.
        first: The memory is empty before it.
    """

    index: int
    log_mel: Tensor
    first: bool


class ChunkStream:
    """Cuts the samples of one recording, in blocks of any size, into chunks.

    Args:
        log_mel: The front end; the chunks are where it is.
        config: Of the model the chunks are for.
        cut: How to cut.
        start_chunk: Chunk to start with. The samples pushed must begin `context_samples(cut, start_chunk)` before
            the start of that chunk.
    """

    def __init__(self, log_mel: LogMel, config: ModelConfig, cut: Cut = "gapless", start_chunk: int = 0) -> None:
        self._log_mel = log_mel
        self._config = config
        self._cut: Cut = cut
        self._index = self._start = start_chunk
        self._context = context_samples(cut, start_chunk)
        self._pushed = -self._context  # samples from the start of the first chunk on
        self._frames = LogMelStream(log_mel, inside=self._context > 0)
        shape = (MEL_BANDS, 0) if cut == "gapless" else (0,)
        self._pending = torch.empty(shape, device=log_mel.window.device)  # of the next chunk
        self._finished = False

    def push(self, samples: Tensor) -> list[Chunk]:
        """Take samples [n], return the chunks that are now complete.

        Raises:
            ValueError: The samples are not one row of floating-point numbers, or the recording was finished.
        """
        if samples.ndim != 1 or not samples.is_floating_point():
            raise ValueError(
                f"samples are {samples.dtype} of shape {list(samples.shape)}: float of shape [n] is wanted"
            )
        if self._finished:
            raise ValueError("the recording was finished; a new one takes a new stream")
        samples = to_device(samples.float(), self._pending.device)
        self._pushed += len(samples)
        gapless = self._cut == "gapless"
        size = self._config.chunk_frames if gapless else chunk_samples(self._config, self._cut)
        self._pending = torch.cat([self._pending, self._frames.push(samples) if gapless else samples], dim=-1)
        bounds = tuple(range(size, self._pending.shape[-1] + 1, size))
        *whole, self._pending = self._pending.tensor_split(bounds, dim=-1)
        self._pending = self._pending.clone()  # lets go of what is done with
        return [chunk for piece in whole for chunk in self._emit(piece)]

    def finish(self) -> list[Chunk]:
        """End the recording here and return what is left of it: up to two chunks.

        In the gapless cut the end is padded with digital silence to a whole patch of 16 frames, so that every sample
        is seen; in the script cut frames past the last whole patch are not, but one patch there always is.

        Raises:
            ValueError: The recording was finished before.
        """
        if self._finished:
            raise ValueError("the recording was finished; a new one takes a new stream")
        chunks = self._finish()
        self._finished = True
        return chunks

    def _finish(self) -> list[Chunk]:
        if self._cut == "script":
            missing = max(0, PATCH_SAMPLES - len(self._pending))
            return self._emit(F.pad(self._pending, (0, missing))) if len(self._pending) else []
        if self._pushed <= 0:
            return []
        chunks = self.push(torch.zeros(-self._pushed % PATCH_SAMPLES))
        emitted = (self._index - self._start) * self._config.chunk_frames
        # Centring yields one frame more than the samples fill; it makes no chunk of its own.
        frames = self._pushed // HOP_SAMPLES - emitted
        rest = torch.cat([self._pending, self._frames.finish()], dim=-1)[:, :frames]
        return chunks + (self._emit(rest) if frames else [])

    def _emit(self, piece: Tensor) -> list[Chunk]:
        """Make the next chunk of a piece: frames [64, F] in the gapless cut, samples [n] in the script cut."""
        first = self._index == self._start
        before = []
        if self._cut == "script":
            piece = self._log_mel(piece)
            if first and self._config.streaming:
                before = [Chunk(-1, self._silence(), True)]
                first = False
        chunk = Chunk(self._index, clamp_dynamic_range(piece)[:, : self._config.chunk_frames], first)
        self._index += 1
        return [*before, chunk]

    def _silence(self) -> Tensor:
        """As much digital silence as the memory holds, [64, F]."""
        frames = self._config.memory_tokens // FREQUENCY_PATCHES * PATCH_FRAMES
        silence: Tensor = self._log_mel(torch.zeros(frames * HOP_SAMPLES, device=self._pending.device))
        return silence[:, :frames]

    def state_dict(self) -> dict[str, Tensor]:
        """Everything the stream remembers, to be saved and given to `load_state_dict`."""
        counters = {name: torch.tensor(getattr(self, f"_{name}")) for name in ("index", "start", "context", "pushed")}
        frames = {f"frames.{name}": tensor for name, tensor in self._frames.state_dict().items()}
        return {**counters, **frames, "pending": self._pending.clone(), "finished": torch.tensor(self._finished)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where the stream that gave `state` stood.

        Raises:
            ValueError: It was a stream of the other cut.
        """
        if state["pending"].ndim != self._pending.ndim:
            raise ValueError(f"the state is not that of a stream in the {self._cut} cut")
        self._finished = bool(state["finished"])
        for name in ("index", "start", "context", "pushed"):
            setattr(self, f"_{name}", int(state[name]))
        self._frames.load_state_dict({name: state[f"frames.{name}"] for name in ("pending", "mirrored")})
        self._pending = state["pending"].clone()


class StreamingTagger:
    """Tags one recording while it is being made.

    Example:
        >>> from satpipe.sat.model.config import get_config
        >>> tagger = StreamingTagger(SAT(get_config("SAT_T_2s")).eval())
        >>> tagger.push(torch.zeros(40_000)).shape  # 2.5 s at 16 kHz: one chunk of 1.92 s is complete
        torch.Size([1, 527])
        >>> tagger.finish().shape  # the 0.58 s that are left
        torch.Size([1, 527])
    """

    def __init__(self, model: SAT, cut: Cut = "gapless", start_chunk: int = 0) -> None:
        self._model = model
        self._chunks = ChunkStream(LogMel(), model.config, cut, start_chunk)
        self._memory: Memory | None = None

    def push(self, samples: Tensor) -> Tensor:
        """Take samples [n] at 16 kHz, return the scores [C, 527] of the C >= 0 chunks that are now complete.

        Raises:
            ValueError: The samples are not one row of floating-point numbers, or the recording was finished.
        """
        return self._score(self._chunks.push(samples))

    def finish(self) -> Tensor:
        """End the recording: the scores [C, 527] of what was left, C of 0 to 2.

        A chunk that is complete waits for the half window of samples after it, so two can be left.
        """
        return self._score(self._chunks.finish())

    @torch.inference_mode()
    def _score(self, chunks: list[Chunk]) -> Tensor:
        scores = [torch.empty(0, self._model.config.classes)]
        for chunk in chunks:
            score, self._memory = self._model(chunk.log_mel[None], None if chunk.first else self._memory)
            if chunk.index >= 0:
                scores.append(score.float())
        return torch.cat(scores)

    def state_dict(self) -> dict[str, Tensor]:
        """The whole state between two pushes as tensors, to be saved (safetensors will do) and given back."""
        memory = self._memory.blocks if self._memory else []
        return {
            **{f"chunks.{name}": tensor for name, tensor in self._chunks.state_dict().items()},
            **{f"memory.{index}": block.clone() for index, block in enumerate(memory)},
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where the tagger that gave `state` stood."""
        chunks = {name.removeprefix("chunks."): t for name, t in state.items() if name.startswith("chunks.")}
        self._chunks.load_state_dict(chunks)
        blocks = [state[f"memory.{index}"].clone() for index in range(len(state) - len(chunks))]
        self._memory = Memory(blocks) if blocks else None
