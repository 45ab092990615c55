"""Streaming Audio Transformers (Dinkel et al., Interspeech 2024): the model, alone.

    >>> from satpipe.sat.weights.registry import load_checkpoint
    >>> from satpipe.sat.model.streaming import StreamingTagger
    >>> tagger = StreamingTagger(load_checkpoint("bundled").model())
    >>> tagger.push(samples)  # 16 kHz mono, any number -> scores [C, 527] of the chunks now complete

Axes in shapes: B recordings or pieces, C consecutive chunks, T tokens of a chunk, M tokens of memory, D channels,
H heads, F log-mel frames, n samples.
"""
