"""Online tagging: cut a stream of samples into chunks and tag each as soon as it is complete."""

from collections import deque
from dataclasses import dataclass

import torch
from satpipe.sat.model.config import (
    FREQUENCY_PATCHES,
    HOP_SAMPLES,
    MEL_BANDS,
    PATCH_FRAMES,
    PATCH_SAMPLES,
    Cut,
    ModelConfig,
)
from satpipe.sat.model.cutting import chunk_samples, context_samples
from satpipe.sat.model.finite import check_finite
from satpipe.sat.model.frontend import LogMel, LogMelStream, clamp_dynamic_range, to_device
from satpipe.sat.model.grids import Stretches
from satpipe.sat.model.network import SAT, Memory
from satpipe.sat.model.outputs import join
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Chunk:
    """One chunk of a recording, ready for the model.

    Attributes:
        index: Position of the chunk in its recording, counted over all grids; -1 for the digital silence that warms up
            the memory in script mode.
        log_mel: [64, F] dB, clamped. F is the configuration's `chunk_frames`, fewer in the last chunk.
        first: True if the memory is empty before the chunk.
        overlaps: Number of earlier chunks, of other grids, that cover the start of this one.
    """

    index: int
    log_mel: Tensor
    first: bool
    overlaps: int = 0


class ChunkStream:
    """Cuts the samples of one recording, which arrive in blocks of any size, into chunks.

    Args:
        log_mel: The front end; chunks are on its device.
        config: Configuration of the model.
        cut: Chunking mode; several grids need `gapless`.
        start_chunk: First chunk. The samples pushed must start `context_samples(cut, start_chunk)` before it.
    """

    def __init__(self, log_mel: LogMel, config: ModelConfig, cut: Cut = "gapless", start_chunk: int = 0) -> None:
        self._log_mel = log_mel
        self._config = config
        self._cut: Cut = cut
        self._index = self._start = start_chunk
        self._context = context_samples(cut, start_chunk)
        self._pushed = -self._context  # samples since the start of the first chunk
        self._frames = LogMelStream(log_mel, inside=self._context > 0)
        shape = (MEL_BANDS, 0) if cut == "gapless" else (0,)
        self._pending = torch.empty(shape, device=log_mel.window.device)  # of the next chunk
        self._finished = False

    def push(self, samples: Tensor) -> list[Chunk]:
        """Take samples [n] and return the chunks that are now complete.

        Raises:
            ValueError: The samples are not a floating-point vector, or the recording was finished.
        """
        if samples.ndim != 1 or not samples.is_floating_point():
            raise ValueError(
                f"samples must be floating-point of shape [n], not {samples.dtype} of shape {list(samples.shape)}"
            )
        if self._finished:
            raise ValueError("the recording was finished; use a new stream for the next one")
        samples = to_device(samples.float(), self._pending.device)
        self._pushed += len(samples)
        gapless = self._cut == "gapless"
        size = self._config.chunk_frames if gapless else chunk_samples(self._config, self._cut)
        self._pending = torch.cat([self._pending, self._frames.push(samples) if gapless else samples], dim=-1)
        return self._cut_off(size, self._pending.shape[-1] - size + 1)

    def _cut_off(self, size: int, stop: int) -> list[Chunk]:
        """Return the chunks of at most `size` pending frames or samples that start before `stop`."""
        starts = range(0, stop, size // self._config.grids)
        chunks = [chunk for start in starts for chunk in self._emit(self._pending[..., start : start + size])]
        rest = starts[-1] + starts.step if starts else 0
        self._pending = self._pending[..., rest:].clone()  # frees the data of finished chunks
        return chunks

    def finish(self) -> list[Chunk]:
        """End the recording and return the remaining chunks: up to two, or up to one more than there are grids.

        In gapless mode, digital silence pads the end to a whole patch of 16 frames, so that every sample is used. In
        script mode, frames past the last whole patch are ignored, but at least one patch is read.

        Raises:
            ValueError: The recording was already finished.
        """
        if self._finished:
            raise ValueError("the recording was finished; use a new stream for the next one")
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
        size = self._config.chunk_frames
        emitted = (self._index - self._start) * (size // self._config.grids)
        # Centring yields one extra frame at the end; it does not start a chunk.
        frames = self._pushed // HOP_SAMPLES - emitted
        self._pending = torch.cat([self._pending, self._frames.finish()], dim=-1)[:, :frames]
        return chunks + self._cut_off(size, frames)

    def _emit(self, content: Tensor) -> list[Chunk]:
        """Return the next chunk, from frames [64, F] in gapless mode or samples [n] in script mode."""
        earlier = self._index - self._start
        first = earlier < self._config.grids
        before = []
        if self._cut == "script":
            content = self._log_mel(content)
            if first and self._config.streaming:
                before = [Chunk(-1, self._silence(), True)]
                first = False
        overlaps = min(earlier, self._config.grids - 1)
        chunk = Chunk(self._index, clamp_dynamic_range(content)[:, : self._config.chunk_frames], first, overlaps)
        self._index += 1
        return [*before, chunk]

    def _silence(self) -> Tensor:
        """Return digital silence of the length of the memory, [64, F]."""
        frames = self._config.memory_tokens // FREQUENCY_PATCHES * PATCH_FRAMES
        silence: Tensor = self._log_mel(torch.zeros(frames * HOP_SAMPLES, device=self._pending.device))
        return silence[:, :frames]

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the stream, for `load_state_dict`."""
        counters = {name: torch.tensor(getattr(self, f"_{name}")) for name in ("index", "start", "context", "pushed")}
        frames = {f"frames.{name}": tensor for name, tensor in self._frames.state_dict().items()}
        return {**counters, **frames, "pending": self._pending.clone(), "finished": torch.tensor(self._finished)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where the stream with this state stopped.

        Raises:
            ValueError: The state belongs to the other chunking mode.
        """
        if state["pending"].ndim != self._pending.ndim:
            raise ValueError(f"the state does not belong to a stream in {self._cut} mode")
        self._finished = bool(state["finished"])
        for name in ("index", "start", "context", "pushed"):
            setattr(self, f"_{name}", int(state[name]))
        self._frames.load_state_dict({name: state[f"frames.{name}"] for name in ("pending", "mirrored")})
        self._pending = state["pending"].clone()


def no_memories(config: ModelConfig) -> deque[Memory | None]:
    """Return a memory for each grid, all empty; the first one belongs to the next chunk."""
    return deque([None] * config.grids, maxlen=config.grids)


class StreamingTagger:
    """Tags one recording online, as its samples arrive.

    With `embeddings`, the embedding [D] of each chunk follows its scores: `push` and `finish` return [C, 527 + D], see
    `satpipe.sat.model.outputs`.

    Example:
        >>> from satpipe.sat.model.config import get_config
        >>> tagger = StreamingTagger(SAT(get_config("SAT_T_2s")).eval())
        >>> tagger.push(torch.zeros(40_000)).shape  # 2.5 s at 16 kHz: one chunk of 1.92 s is complete
        torch.Size([1, 527])
        >>> tagger.finish().shape  # the remaining 0.58 s
        torch.Size([1, 527])
    """

    def __init__(self, model: SAT, cut: Cut = "gapless", start_chunk: int = 0, *, embeddings: bool = False) -> None:
        self._model = model
        self._embeddings = embeddings
        self._chunks = ChunkStream(LogMel(), model.config, cut, start_chunk)
        self._memories = no_memories(model.config)
        self._stretches = Stretches(model.config)

    def push(self, samples: Tensor) -> Tensor:
        """Take samples [n] at 16 kHz and return the scores [C, 527] of the C >= 0 chunks that are now complete.

        With several grids, these are the scores of the stretches that start with the chunks.

        Raises:
            ValueError: The samples are not a floating-point vector, or the recording was finished.
            CheckpointError: A score is not a number.
        """
        return self._outputs(self._chunks.push(samples))

    def finish(self) -> Tensor:
        """End the recording and return the scores [C, 527] of the remaining chunks, C of 0 to one more than the grids.

        A complete chunk waits for half a window of samples after it, so it can remain beside the incomplete ones.
        """
        return self._outputs(self._chunks.finish())

    @torch.inference_mode()
    def _outputs(self, chunks: list[Chunk]) -> Tensor:
        config = self._model.config
        rows = [torch.empty(0, config.classes + (config.width if self._embeddings else 0))]
        for chunk in chunks:
            memory = self._memories.popleft()
            embedding, memory = self._model.embeddings(chunk.log_mel[None], None if chunk.first else memory)
            self._memories.append(memory)
            scores = self._model.scores(embedding).float()
            check_finite(scores, self._model, lambda _, chunk=chunk: f"chunk {chunk.index}")  # type: ignore[misc]
            if chunk.index >= 0:
                outputs = join(scores, embedding) if self._embeddings else scores
                rows.append(self._stretches.add(outputs[0], chunk.overlaps)[None])
        return torch.cat(rows)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state between two pushes as tensors, for `load_state_dict`; safetensors can store it."""
        blocks = [block for memory in self._memories if memory for block in memory.blocks]
        return {
            **{f"chunks.{name}": tensor for name, tensor in self._chunks.state_dict().items()},
            **{f"memory.{index}": block.clone() for index, block in enumerate(blocks)},
            **{f"recent.{index}": scores.clone() for index, scores in enumerate(self._stretches.recent)},
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continue where the tagger with this state stopped."""
        chunks = {name.removeprefix("chunks."): t for name, t in state.items() if name.startswith("chunks.")}
        self._chunks.load_state_dict(chunks)
        blocks, depth = _numbered(state, "memory"), self._model.config.depth
        self._memories = no_memories(self._model.config)
        self._memories.extend(Memory(blocks[start : start + depth]) for start in range(0, len(blocks), depth))
        self._stretches.recent.clear()
        self._stretches.recent.extend(_numbered(state, "recent"))


def _numbered(state: dict[str, Tensor], prefix: str) -> list[Tensor]:
    """Return copies of the tensors called `prefix`.0, `prefix`.1, ..."""
    number = sum(name.startswith(f"{prefix}.") for name in state)
    return [state[f"{prefix}.{index}"].clone() for index in range(number)]
