"""Cut recordings into chunks: arithmetic of samples and chunks, without torch."""

from satpipe.sat.model.config import CENTRE_SAMPLES, SAMPLE_RATE_HZ, ChunkConfig, Cut


def chunk_samples(config: ChunkConfig, cut: Cut) -> int:
    """Return the samples from the start of a chunk to the start of the next, at 16 kHz."""
    return config.chunk_samples // config.grids if cut == "gapless" else round(config.script_chunk_s * SAMPLE_RATE_HZ)


def count_chunks(config: ChunkConfig, cut: Cut, samples: int) -> int:
    """Return the number of chunks of a recording of `samples` samples at 16 kHz, an incomplete last one included."""
    return -(-samples // chunk_samples(config, cut))


def needed_chunks(config: ChunkConfig, start_chunk: int, stop_chunk: int) -> tuple[int, int]:
    """Return the first chunk to read, and the chunk at whose start to stop, so that some chunks are scored exactly.

    These are the chunks that warm up the memory of each grid, and those that cover the same audio.
    """
    overlaps = config.grids - 1
    return max(0, start_chunk - config.grids * config.warmup_chunks - overlaps), stop_chunk + overlaps


def context_samples(cut: Cut, start_chunk: int) -> int:
    """Return the number of samples before a chunk's start on which its first frame depends."""
    return CENTRE_SAMPLES if cut == "gapless" and start_chunk > 0 else 0
