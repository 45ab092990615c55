"""`satpipe export`: a model as one file that runs without satpipe."""

import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from satpipe.jobs.export.runtime import (
    Difference,
    difference,
    open_onnx,
    open_torchscript,
    read,
    synthetic_sound,
    torchscript_deprecation_ignored,
)
from satpipe.jobs.options.models import ExportOptions
from satpipe.sat.errors import ConfigError, OutputError, install
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.model.exportable import BEFORE_SAMPLES, ChunkTagger, window_samples
from satpipe.sat.printable import counted
from satpipe.sat.weights.checkpoint import Checkpoint
from satpipe.sat.weights.external import external_taggers
from satpipe.sat.weights.hub import PUBLISHED, PUBLISHED_LICENCE
from satpipe.sat.weights.registry import load_checkpoint

TOLERANCE = 1e-4
"""Maximum difference between a score of the file, unless it is int8, and that of the Python model."""
METADATA_FILE = "metadata.json"
"""Name of the file within a TorchScript file that contains the metadata."""
_OPSET = 20  # the first opset with GELU
_NEEDED = ("onnx", "onnxruntime", "onnxscript")


@dataclass(frozen=True)
class Exported:
    """An exported file, and the difference between its scores and the Python model's."""

    path: Path
    size_bytes: int
    metadata: dict[str, str]
    difference: Difference


def export(options: ExportOptions) -> Exported:
    """Write a model as one file, once the file's scores have been compared with the model's.

    Raises:
        ConfigError: The options contradict one another, or an extra is not installed.
        CheckpointError: The model's file is not a valid checkpoint.
        AudioError: A recording of `check` cannot be read.
        OutputError: The file cannot be written, or its scores differ from the model's.
    """
    _check(options)
    checkpoint = _checkpoint(options)
    out = options.out
    recordings = read(options.check) if options.check else [synthetic_sound()]
    try:
        with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as folder:
            path = Path(folder) / out.name
            metadata = describe(options, checkpoint)
            model = checkpoint.model()
            (_write_onnx if options.format == "onnx" else _write_torchscript)(ChunkTagger(model), path, metadata)
            if options.int8:
                _quantise(path)
            call = open_onnx(path) if options.format == "onnx" else open_torchscript(path)
            found = difference(call, model, recordings)
            if not found.largest <= (1 if options.int8 else TOLERANCE):  # as NaN is not
                raise OutputError(
                    f"{out} was not written: its scores differ from the model's by {found.largest:.1e}, "
                    f"more than {TOLERANCE:g}"
                )
            os.replace(path, out)
    except OSError as error:
        raise OutputError(f"{out} cannot be written: {error.strerror or error}") from error
    return Exported(out, out.stat().st_size, metadata, found)


def text(done: Exported, options: ExportOptions) -> list[str]:
    """Return a description of the file and of its accuracy."""
    chunk_s = int(done.metadata["chunk_samples"]) / SAMPLE_RATE_HZ
    found = done.difference
    checked = ", ".join(options.check) or "synthetic sound; add --check RECORDINGS to compare on yours"
    return [
        f"{done.path}: {done.metadata['model']}, {done.metadata['precision']}, {done.size_bytes / 1e6:.1f} MB, "
        f"{chunk_s:g} s per call",
        f"scores against the Python model's, {counted(found.chunks, 'chunk')} of {checked}: largest difference "
        f"{found.largest:.1e}, mean {found.mean:.1e}; the highest class is the same in {found.same_top:.1%} of chunks",
    ]


def describe(options: ExportOptions, checkpoint: Checkpoint) -> dict[str, str]:
    """Return the metadata: everything needed to call the file and to name its scores, and the origin of the weights."""
    config = checkpoint.config
    licence = PUBLISHED_LICENCE if options.model in PUBLISHED else "not stated"
    return {
        "model": config.name,
        "source": checkpoint.source,
        "sha256": checkpoint.sha256,
        "licence": checkpoint.metadata.get("licence", licence),
        "satpipe": version("satpipe"),
        "precision": "int8" if options.int8 else "fp32",
        "rate_hz": str(SAMPLE_RATE_HZ),
        "chunk_samples": str(config.chunk_samples),
        "window_samples": str(window_samples(config)),
        "before_samples": str(BEFORE_SAMPLES),
        "labels": json.dumps([[label.mid, label.name] for label in weak_labels()]),
    }


def _check(options: ExportOptions) -> None:
    if options.format == "torchscript":
        if options.int8:
            raise ConfigError("--int8 needs ONNX Runtime: add --format onnx")
        return
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise ConfigError(f"export to ONNX needs {', '.join(missing)}; {install('export')}")


def _checkpoint(options: ExportOptions) -> Checkpoint:
    name = options.model.partition(":")[0]
    if name in external_taggers():
        raise ConfigError(
            f"'{name}' cannot be exported: only SAT models can be, since the file contains their front end and memory"
        )
    checkpoint = load_checkpoint(options.model, options.arch)
    if options.delay_s is None:
        return checkpoint
    return replace(checkpoint, config=checkpoint.config.with_delay(options.delay_s))


def _inputs(tagger: ChunkTagger) -> dict[str, torch.Tensor]:
    """Return inputs of the right shape, by name."""
    config = tagger.model.config
    samples = window_samples(config)
    inputs = {"samples": torch.zeros(samples), "length": torch.tensor([samples]), "chunk": torch.tensor([0])}
    memory = torch.zeros(config.depth, config.memory_tokens, config.width)
    return {**inputs, "memory": memory} if config.streaming else inputs


def _write_onnx(tagger: ChunkTagger, path: Path, metadata: dict[str, str]) -> None:
    import onnx

    inputs = _inputs(tagger)
    with _quiet(), warnings.catch_warnings():
        # torch calls its own deprecated functions.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
        program = torch.onnx.export(
            tagger.eval(),
            tuple(inputs.values()),
            input_names=list(inputs),
            output_names=["scores", "next_memory"][: 2 if tagger.model.config.streaming else 1],
            opset_version=_OPSET,
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise OutputError(f"torch cannot convert {tagger.model.config.name} to ONNX")
    proto = program.model_proto
    for node in proto.graph.node:
        del node.metadata_props[:]  # paths of the source code
    onnx.helper.set_model_props(proto, metadata)
    onnx.save(proto, path)


def _quantise(path: Path) -> None:
    """Quantise linear layers: weights to 8 bits here, inputs at run time; the front end stays in float32."""
    import onnx
    from onnxruntime.quantization import quantize_dynamic

    model = onnx.load(path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    others = [node.name for node in model.graph.node if node.op_type == "MatMul"]  # linear layers are Gemm
    # Seven bits: without VNNI, x86 adds pairs of products in 16 bits, which would overflow with eight.
    with _quiet():
        quantize_dynamic(model, path, per_channel=True, reduce_range=True, nodes_to_exclude=others)
    model = onnx.load(path)
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def _write_torchscript(tagger: ChunkTagger, path: Path, metadata: dict[str, str]) -> None:
    with torchscript_deprecation_ignored(), torch.inference_mode():
        traced = torch.jit.trace(tagger.eval(), tuple(_inputs(tagger).values()), check_trace=False)
        frozen = torch.jit.freeze(traced)  # drops weights that `tagger` has in another layout
        torch.jit.save(frozen, path, _extra_files={METADATA_FILE: json.dumps(metadata)})


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the logs of torch and ONNX Runtime, which only report optional packages and steps."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
