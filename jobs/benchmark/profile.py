"""`satpipe profile`: cost per chunk of models and external taggers on this machine, as JSON.

One thread, float32. Cost does not depend on weights, so configurations get random weights.
"""

from collections.abc import Iterable
from time import perf_counter
from typing import Any

import torch
from satpipe.jobs.benchmark.common import Say, dated
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CONFIGS, SAMPLE_RATE_HZ, ModelConfig, find_config
from satpipe.sat.model.cpu import threads
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.cost import batch_bytes, cost, noise_chunks
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.loaded import LoadedTagger
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.external import EXTERNAL_TAGGERS
from satpipe.sat.weights.registry import resolve

DELAYS_S = (10.0, 2.0, 1.0)  # of the paper's Tables 1 and 2
TIMED_S = 1.0  # minimum


def profile(models: Iterable[str], delays_s: Iterable[float], say: Say) -> dict[str, Any]:
    """Measure, and return the figures.

    Args:
        models: Configurations, or models as for `tag`; if empty, all configurations and all external taggers.
        delays_s: Delays of models without a fixed one; if empty, 10, 2 and 1 s.
        say: Called with the name of each measurement before it starts.

    Raises:
        SatpipeError: A model is unknown, or cannot be used with one of the delays.
    """
    named = list(models) or [*CONFIGS, *EXTERNAL_TAGGERS]
    delays_s = tuple(delays_s)
    used = [each for name in named for each in _regimes(name, delays_s)]
    rows = []
    with threads(1):
        for loaded in used:
            say(f"{loaded.config.name}, {loaded.config.script_chunk_s:g} s")
            rows.append(_row(loaded))
    return dated({"torch": torch.__version__, "models": rows})


def _regimes(name: str, delays_s: tuple[float, ...]) -> list[LoadedTagger]:
    """Return the model with each of the delays; a streaming model has one fixed delay."""
    config = find_config(name)
    loaded = _random(config) if config else resolve(name, random=True)
    if not loaded.config.streaming:
        return [loaded.adapted(delay_s) for delay_s in delays_s or DELAYS_S]
    if delays_s and loaded.config.script_chunk_s not in delays_s:
        raise ConfigError(f"{name} has a delay of {loaded.config.script_chunk_s:g} s: omit --delay")
    return [loaded]


def _random(config: ModelConfig) -> Checkpoint:
    torch.manual_seed(0)
    return Checkpoint.of(SAT(config))


@torch.no_grad()
def _row(loaded: LoadedTagger) -> dict[str, Any]:
    tagger, config = loaded.tagger(batch_chunks=1), loaded.config
    chunks = noise_chunks(tagger, 2)
    network_input = tagger.network_input(chunks[0])
    first = cost(lambda: tagger.forward(network_input))
    later = first
    if config.streaming:
        scores = tagger.score(enumerate(chunks))
        next(scores)
        later = cost(lambda: next(scores))
    batched = loaded.tagger()
    return {
        "model": config.name,
        "delay_s": config.script_chunk_s,
        "memory": config.streaming,
        "parameters": 0 if tagger.model is None else sum(each.numel() for each in tagger.model.parameters()),
        "tokens": tagger.tokens(tagger.chunk_samples),
        "first_chunk": vars(first),
        "later_chunk": vars(later),
        "x_realtime": _x_realtime(tagger, 1),
        "batch_chunks": batched.batch_chunks,
        "batch_bytes": batch_bytes(loaded.tagger(), batched.batch_chunks),
        "batch_x_realtime": _x_realtime(batched, batched.batch_chunks),
    }


def _x_realtime(tagger: Tagger, chunks: int) -> float:
    """Return the seconds of audio tagged per second in batches of `chunks`, including the front end."""
    heard = chunks * tagger.config.chunk_samples / SAMPLE_RATE_HZ
    noise = 0.1 * torch.randn(chunks * tagger.chunk_samples + tagger.lookahead_samples)
    taken: list[float] = []
    while not taken or sum(taken) < TIMED_S:
        begun = perf_counter()
        stream = tagger.chunks()
        made = [*stream.push(noise), *stream.finish()][:chunks]
        for _ in tagger.score(enumerate(made)):
            pass
        taken.append(perf_counter() - begun)
    return heard / min(taken)
