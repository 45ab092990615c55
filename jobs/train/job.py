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
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePath
from typing import Any, TypeVar

import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import SCORE, STATE
from satpipe.jobs.train.log import METRICS, lines
from satpipe.jobs.train.preflight import Preflight, check_inputs, judge, try_step
from satpipe.jobs.train.worker import ERROR, train_worker
from satpipe.pipeline import ray_engine
from satpipe.pipeline.storage import is_remote, locate, output_file, written_whole
from satpipe.pipeline.training_data.shards import Shards
from satpipe.sat import errors
from satpipe.sat.errors import OutputError, TrainingError
from satpipe.sat.labels import weak_labels
from satpipe.sat.model.config import get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.training.parameters import average
from satpipe.sat.weights import checkpoint

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
_NAME = "ray"  # of Ray's folder in the folder of the run
_VERSIONS_OF = ("satpipe", "torch", "ray", "numpy")
_POLL_S = 1.0
# Each step allocates and frees tensors of the same sizes; by default glibc returns their pages to the system.
# Large pages make a step of stage sat 5 % faster.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
Result = TypeVar("Result")
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
    os.environ.setdefault("RAY_TRAIN_ENABLE_STATE_TRACKING", "0")
    with _reported(out / METRICS, report), ray_engine.start(address, workers, settings.device) as ray:
        note(judge(settings, _preflight(ray, settings), out))
        checkpoints = _fit(settings, out, use_gpu=ray.gpus > 0)
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


def _fit(settings: TrainConfig, out: Path, *, use_gpu: bool) -> list[Path]:
    """Train with Ray; return the checkpoints it kept: the best ones, best first, or the last one."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    kept = settings.average_best
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"settings": settings.model_dump(), "run": str(out)},
        scaling_config=ScalingConfig(
            num_workers=settings.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": float(settings.threads)} | ({"GPU": 1.0} if use_gpu else {}),
        ),
        run_config=RunConfig(  # type: ignore[call-arg]  # mypy sees that of Ray Train 1
            name=_NAME,
            storage_path=str(out),
            worker_runtime_env={"env_vars": _KEEP_MEMORY},
            failure_config=FailureConfig(max_failures=settings.max_failures),
            checkpoint_config=CheckpointConfig(
                num_to_keep=kept, checkpoint_score_attribute=SCORE if kept > 1 else None
            ),
        ),
    )
    try:
        result = _aside(trainer.fit)
    except TrainingFailedError as error:
        raise _failure(out, error) from error
    if (out / ERROR).exists():
        raise _failure(out, TrainingError())
    if kept > 1 and result.best_checkpoints:
        best = sorted(result.best_checkpoints, key=lambda pair: pair[1][SCORE], reverse=True)
        return [Path(saved.path) for saved, _ in best[:kept]]
    if result.checkpoint is None:
        raise TrainingError("the run wrote no checkpoint")
    return [Path(result.checkpoint.path)]


def _aside(function: Callable[[], Result]) -> Result:
    """Return the result of a function that runs in a thread of its own.

    In the main thread Ray Train would replace what Ctrl-C does, for good. As a daemon, the thread does not keep an
    interrupted program from ending.
    """
    outcome: Future[Result] = Future()

    def run() -> None:
        try:
            outcome.set_result(function())
        except Exception as error:  # noqa: BLE001  (raised by `result`)
            outcome.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return outcome.result()


def _failure(out: Path, error: Exception) -> Exception:
    if (out / ERROR).exists():
        noted = json.loads((out / ERROR).read_text())
        kind = getattr(errors, noted["type"], TrainingError)
        failure: Exception = kind(noted["message"])
        return failure
    reason = str(error.__cause__ or error).strip().splitlines()
    return TrainingError(f"workers were lost more often than max_failures allows: {reason[-1] if reason else error!r}")


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
        checkpoint.save(model, named, torch.float16 if settings.half else torch.float32, **metadata)
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
