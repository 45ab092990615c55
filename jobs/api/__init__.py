"""Tag long audio recordings with Streaming Audio Transformers, from Python.

    import satpipe

    satpipe.tag("/recordings", out="out")
    satpipe.read_tags("out", labels="under:Animal", min_score=0.5)

Each function does the work of the command of that name, with the same defaults and errors. Modules are loaded when a
name is first used: `import satpipe` alone loads neither torch nor Ray nor pandas.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from satpipe.jobs.activity import activity
    from satpipe.jobs.evaluate import evaluate
    from satpipe.jobs.events import events
    from satpipe.jobs.own_classes import learn
    from satpipe.jobs.own_classes.classify import classify
    from satpipe.jobs.search import search
    from satpipe.jobs.tag.job import tag
    from satpipe.jobs.verify import verify
    from satpipe.pipeline.tables.compact import compact
    from satpipe.pipeline.tables.dataframes import (
        read_embeddings,
        read_recordings,
        read_scores,
        read_tags,
        scan_embeddings,
        scan_scores,
    )
    from satpipe.reports.review import clips
    from satpipe.sat.errors import (
        AudioError,
        CheckpointError,
        ConfigError,
        DamageError,
        DownloadError,
        LabelError,
        OutputError,
        SatpipeError,
        TrainingError,
        TruthError,
    )
    from satpipe.sat.labels import weak_labels as labels
    from satpipe.sat.model.streaming import StreamingTagger
    from satpipe.sat.weights.registry import load_model

    __version__: str

__all__ = [
    "AudioError",
    "CheckpointError",
    "ConfigError",
    "DamageError",
    "DownloadError",
    "LabelError",
    "OutputError",
    "SatpipeError",
    "StreamingTagger",
    "TrainingError",
    "TruthError",
    "__version__",
    "activity",
    "classify",
    "clips",
    "compact",
    "evaluate",
    "events",
    "labels",
    "learn",
    "load_model",
    "read_embeddings",
    "read_recordings",
    "read_scores",
    "read_tags",
    "scan_embeddings",
    "scan_scores",
    "search",
    "tag",
    "verify",
]
_PLACES = {
    "StreamingTagger": "sat.model.streaming:StreamingTagger",
    "activity": "jobs.activity:activity",
    "classify": "jobs.own_classes.classify:classify",
    "clips": "reports.review:clips",
    "compact": "pipeline.tables.compact:compact",
    "evaluate": "jobs.evaluate:evaluate",
    "events": "jobs.events:events",
    "labels": "sat.labels:weak_labels",
    "learn": "jobs.own_classes:learn",
    "load_model": "sat.weights.registry:load_model",
    "read_embeddings": "pipeline.tables.dataframes:read_embeddings",
    "read_recordings": "pipeline.tables.dataframes:read_recordings",
    "read_scores": "pipeline.tables.dataframes:read_scores",
    "read_tags": "pipeline.tables.dataframes:read_tags",
    "scan_embeddings": "pipeline.tables.dataframes:scan_embeddings",
    "scan_scores": "pipeline.tables.dataframes:scan_scores",
    "search": "jobs.search:search",
    "tag": "jobs.tag.job:tag",
    "verify": "jobs.verify:verify",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'satpipe' has no attribute '{name}'")
    if name == "__version__":
        return import_module("importlib.metadata").version("satpipe")
    module, _, attribute = _PLACES.get(name, f"sat.errors:{name}").partition(":")
    value = globals()[name] = getattr(import_module(f"satpipe.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
