"""`satpipe train`: one stage of the paper's pipeline, on Ray Train.

OUT/run.json            settings and versions
OUT/metrics.jsonl       loss, learning rate, speed; validation after each epoch (also in OUT/tensorboard)
OUT/ray/                state and checkpoints of Ray Train, from which a run continues
OUT/model.safetensors   the export, which `satpipe tag --model` loads
"""

import json
import logging
import os
import platform
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any

import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import STATE
from satpipe.jobs.train.log import METRICS, lines
from satpipe.jobs.train.preflight import Preflight, check_inputs, judge, try_step
from satpipe.jobs.train.worker import ERROR
from satpipe.pipeline import local_ray, ray_engine
from satpipe.pipeline.storage import is_remote, locate, output_file, written_whole
from satpipe.pipeline.training_data.shards import Shards
from satpipe.sat.errors import OutputError, TrainingError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.training.parameters import average
from satpipe.sat.weights import published

EXPORT = "model.safetensors"
# Keys that may change when a run continues; all others determine the result, these at most the random augmentation.
CHANGEABLE = frozenset(
    {
        "epochs",
        "decay_epochs",
        "validate_every",
        "checkpoint_steps",
        "log_steps",
        "max_failures",
        "average_best",
        "workers",
        "threads",
    }
)
FOLDERS = ("data", "labels", "validation", "validation_labels", "init", "teacher")
_VERSIONS_OF = ("satpipe", "torch", "ray", "numpy")
_POLL_S = 1.0
Report = Callable[[dict[str, Any]], None]
"""Called with each line of metrics."""


def train(
    settings: TrainConfig,
    out: Path,
    *,
    address: str | None = None,
    resume: bool = False,
    report: Report = lambda _: None,
    note: Callable[[str], None] = lambda _: None,
) -> Path:
    """Run one stage to its end, and export the model.

    Args:
        settings: From `load_config`.
        out: Folder of the run; on a cluster, one that every node can access.
        address: Address of a running Ray cluster; by default Ray is started on this machine.
        resume: Continue the run in the folder.
        report: Called with each line of metrics.
        note: Called with a description of the run, once everything has been checked.

    Returns:
        The exported file.

    Raises:
        ConfigError: A folder or file of the settings is missing or does not match the others, or memory or disk are too
            small.
        OutputError: The folder contains a run and `resume` is not given, or a run with other settings.
        TrainingError: The run cannot continue; the last checkpoint is kept.
    """
    check_inputs(settings)
    # Workers run in other folders.
    settings = settings.model_copy(update=_places(settings, _absolute))
    out = out.absolute()
    _claim(out, settings, resume)
    workers = settings.workers * max(1, settings.threads)
    if address is None and (os.cpu_count() or 1) > workers:
        workers = os.cpu_count() or workers
    with _reported(out / METRICS, report), ray_engine.start(address, workers, settings.device) as ray:
        note(judge(settings, _preflight(ray, settings), out))
        from satpipe.jobs.train.fit import fit  # imports Ray Train: 2 s

        checkpoints = fit(settings, out, use_gpu=ray.gpus > 0, alone=not local_ray.others())
    return export(settings, out, checkpoints)


def _places(settings: TrainConfig, change: Callable[[str], str]) -> dict[str, Any]:
    """Return the folders and files of the settings by key, each replaced by what `change` returns."""
    return {
        name: ",".join(change(part) for part in given.split(","))
        for name in FOLDERS
        if (given := getattr(settings, name))
    }


def _absolute(place: str) -> str:
    """Return an absolute path; the name of a model as it is."""
    return str(locate(place)) if Path(place).exists() or is_remote(place) else place


def _preflight(ray: ray_engine.Engine, settings: TrainConfig) -> Preflight:
    """Try a step on a worker, whose packages and devices may differ from those of this process."""
    ray.submit(None, try_step, settings.model_dump())
    while True:
        for _, found in ray.results(_POLL_S):
            if isinstance(found, ray_engine.Lost):
                raise TrainingError(f"the first step failed: {found.reason}")
            checked: Preflight = found
            return checked


def export(settings: TrainConfig, out: Path, checkpoints: list[Path]) -> Path:
    """Write the model of a run, averaged over the given checkpoints; return the file."""
    states, seen, seconds = [], 0, 0.0
    for folder in checkpoints:
        saved = torch.load(folder / STATE, map_location="cpu", weights_only=True)
        prefix = "autoencoder.model." if settings.stage == "mae" else "tagger."
        latest = {n.removeprefix(prefix): t for n, t in saved["objective"].items() if n.startswith(prefix)}
        states.append(saved["average"] or latest)
        seen, seconds = max(seen, saved["progress"]["seen"]), max(seconds, saved["progress"]["seconds"])
    model, trained = SAT(get_config(settings.arch)), average(states)
    model.load_state_dict({name: trained[name] for name in model.state_dict()})  # without the MAE's class token
    shards = Shards(settings.data)
    measured = [line for line in lines(out / METRICS) if "map" in line] if (out / METRICS).exists() else []
    metadata = {
        "stage": settings.stage,
        # Names without paths, which are private.
        "settings": json.dumps(settings.model_dump() | _places(settings, lambda place: PurePath(place).name)),
        "labels": json.dumps([label.mid for label in weak_labels()]),
        "data": json.dumps({"clips": len(shards), "hours": round(float(shards.durations_s.sum()) / 3600, 2)}),
        "samples_seen": str(seen),
        "hours_trained": f"{seconds / 3600:.2f}",
        "metrics": json.dumps(measured[-1] if measured else {}),
    }
    path = out / EXPORT
    with written_whole(path) as temporary:
        named = temporary.with_name(temporary.name + path.suffix)
        published.save(model, named, torch.float16 if settings.half else torch.float32, **metadata)
        os.replace(named, temporary)
    return path


def _claim(out: Path, settings: TrainConfig, resume: bool) -> None:
    """Write the settings to the run's folder, or check that they equal those of the run in it."""
    path = out / "run.json"
    (out / ERROR).unlink(missing_ok=True)
    given = settings.model_dump(mode="json")
    if path.exists():
        if not resume:
            raise OutputError(f"{out} already contains a run; add --resume to continue it, or choose another folder")
        before = json.loads(path.read_text())["settings"]
        changed = [key for key in given if key not in CHANGEABLE and before.get(key) != given[key]]
        if changed:
            raise OutputError(
                f"the run in {out} has {changed[0]} {before.get(changed[0])!r}, not {given[changed[0]]!r}; --resume "
                f"can only change {', '.join(sorted(CHANGEABLE))}"
            )
    elif resume:
        raise OutputError(f"{out} contains no run to continue")
    description = {
        "settings": given,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version(), **{n: version(n) for n in _VERSIONS_OF}},
    }
    with output_file(path, out) as temporary:
        temporary.write_text(json.dumps(description, indent=1))


@contextmanager
def _reported(path: Path, report: Report) -> Iterator[None]:
    """Report lines of metrics as workers write them, and silence Ray's log, within the block."""
    logging.getLogger("ray").setLevel(logging.ERROR)
    done = threading.Event()

    def follow() -> None:
        shown = len(list(lines(path))) if path.exists() else 0
        while True:
            last = done.wait(_POLL_S)
            with suppress(OSError, json.JSONDecodeError):
                written = list(lines(path))
                for line in written[shown:]:
                    report(line)
                shown = len(written)  # after the loss of a worker, fewer than before
            if last:
                return

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
