"""Code that many tests share: outputs of the published implementation, models made by rule, sounds, scores."""

import zlib
from collections.abc import Iterable
from functools import cache, lru_cache
from math import pi, prod
from pathlib import Path

import numpy as np
import torch
from satpipe.sat.model.config import HOP_SAMPLES, PATCH_SAMPLES, SAMPLE_RATE_HZ, Cut, ModelConfig, get_config
from satpipe.sat.model.frontend import LogMel, clamp_dynamic_range
from satpipe.sat.model.network import SAT, Memory
from satpipe.sat.model.outputs import split
from satpipe.sat.model.streaming import ChunkStream, StreamingTagger
from satpipe.sat.taggers.interface import LoadedExternalTagger, Tagger
from satpipe.sat.weights.checkpoint import published_shapes
from satpipe.sat.weights.published import from_published
from torch import Tensor
from torch.nn.functional import pad

PARITY = Path(__file__).parents[1] / "parity"
PARITY_SEED = 1000


@cache
def parity_waveform() -> Tensor:
    """Return the published implementation's input: 21.7 s at 16 kHz, with digital silence from 5.0 s to 5.5 s."""
    return torch.from_numpy(np.load(PARITY / "waveform_16k.npy"))


@cache
def parity_outputs(name: str) -> dict[str, Tensor]:
    """Return the published implementation's outputs for a configuration."""
    with np.load(PARITY / f"{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}


@lru_cache(maxsize=1)  # the base models take 350 MB each
def parity_model(name: str) -> SAT:
    """Return the model that has the weights with which the published implementation was run."""
    return model_by_rule(get_config(name))


def model_by_rule(config: ModelConfig) -> SAT:
    """Return a model with reproducible weights that make its scores vary."""
    tensors = {name: _by_rule(name, shape) for name, shape in published_shapes(config).items()}
    model = SAT(config)
    model.load_state_dict(from_published(tensors))
    return model.eval()


def _by_rule(name: str, shape: tuple[int, ...]) -> Tensor:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode()) + PARITY_SEED))
    z = torch.from_numpy(np.asarray(generator.standard_normal(shape), dtype=np.float32))
    if name.endswith("num_batches_tracked"):
        return torch.tensor(0)
    if name.endswith("running_mean"):
        return -20 + 5 * z
    if name.endswith("running_var"):
        return 200 * (1 + 0.1 * z.abs())
    if name.endswith(".weight"):
        return 1 + 0.1 * z if len(shape) == 1 else z / prod(shape[1:]) ** 0.5
    return 0.1 * z


def sound(samples: int, seed: int = 0) -> Tensor:
    """Return bursts of noise over a tone of varying pitch: no two seconds sound alike."""
    generator = torch.Generator().manual_seed(seed)
    seconds = torch.arange(samples) / SAMPLE_RATE_HZ + 10 * seed
    loudness = torch.rand(samples // 4000 + 1, generator=generator).repeat_interleave(4000)[:samples]
    noise = torch.randn(samples, generator=generator) * loudness**3
    return 0.2 * noise + 0.2 * torch.sin(2 * pi * 500 * (seconds + torch.sin(2 * seconds)))


def stream(model: SAT, blocks: Tensor | Iterable[Tensor], cut: Cut = "gapless", start_chunk: int = 0) -> Tensor:
    """Return the scores [C, 527] of one recording that arrives in blocks; a tensor is one block."""
    tagger = StreamingTagger(model, cut, start_chunk)
    scores = [tagger.push(block) for block in ([blocks] if isinstance(blocks, Tensor) else blocks)]
    return torch.cat([*scores, tagger.finish()])


@torch.inference_mode()
def chunk_by_chunk(
    model: SAT, recording: Tensor, cut: Cut = "gapless", start_chunk: int = 0
) -> tuple[Tensor, Memory | None]:
    """Return the scores [C, 527] of a recording and the final memory, computed in the precision of the weights."""
    dtype = model.norm.weight.dtype
    chunks = ChunkStream(LogMel().to(dtype), model.config, cut, start_chunk)
    scores, memory = [torch.empty(0, model.config.classes, dtype=dtype)], None
    for chunk in chunks.push(recording) + chunks.finish():
        score, memory = model(chunk.log_mel[None].to(dtype), None if chunk.first else memory)
        scores += [score] if chunk.index >= 0 else []
    return torch.cat(scores), memory


@torch.inference_mode()
def scores_of_pieces(model: SAT, recording: Tensor, cut: Cut, frames: int, samples: int) -> Tensor:
    """Return the scores of each piece of a recording, scored alone, with pieces of `frames` or `samples`."""
    front_end = LogMel().to(model.norm.weight.dtype)
    recording = recording.to(front_end.window.dtype)
    if cut == "gapless":
        padded = pad(recording, (0, -len(recording) % PATCH_SAMPLES))
        pieces = front_end(padded)[:, : len(padded) // HOP_SAMPLES].split(frames, dim=-1)
    else:
        waveforms = [pad(piece, (0, max(0, PATCH_SAMPLES - len(piece)))) for piece in recording.split(samples)]
        pieces = tuple(front_end(waveform) for waveform in waveforms)
    return torch.cat([model(clamp_dynamic_range(piece)[None, :, :frames])[0] for piece in pieces])


def outputs_of_noise(loaded: LoadedExternalTagger) -> tuple[Tagger, Tensor, Tensor]:
    """Return a tagger with embeddings, and the scores and embeddings of three chunks of noise; check their shapes."""
    tagger, plain = loaded.tagger(embeddings=True), loaded.tagger()
    chunks = tagger.chunks()
    samples = 0.2 * torch.randn(5 * tagger.chunk_samples // 2, generator=torch.Generator().manual_seed(1))
    keyed = list(enumerate(chunks.push(samples) + chunks.finish()))
    outputs, scores = (torch.stack([row for _, row in each.score_rows(keyed)]) for each in (tagger, plain))
    assert outputs.shape == (3, 527 + loaded.embedding_size)
    assert torch.equal(split(outputs)[0], scores)
    assert split(outputs)[1].std(0).max() > 1e-4
    return tagger, *split(outputs)


def assert_same_scores(scores: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Assert that scores are equal up to an absolute tolerance; `rounding` computes tolerances."""
    torch.testing.assert_close(scores, expected, atol=tolerance, rtol=0, check_dtype=False)
