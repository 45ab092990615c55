"""Streaming Audio Transformers (Dinkel et al., Interspeech 2024): the models alone, without Ray and Parquet.

    >>> import torch
    >>> from satpipe.sat.model.streaming import StreamingTagger
    >>> from satpipe.sat.weights.registry import load_checkpoint
    >>> tagger = StreamingTagger(load_checkpoint("bundled").model())
    >>> tagger.push(torch.zeros(40_000)).shape  # 2.5 s at 16 kHz mono: scores of the one chunk that is complete
    torch.Size([1, 527])

Axes in shapes: B recordings or segments, C consecutive chunks, T tokens of a chunk, M tokens of memory, D channels,
H heads, F log-mel frames, n samples.
"""
