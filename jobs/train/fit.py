"""Ray Train: starts the workers of a run, restarts them, and keeps their checkpoints."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import SCORE
from satpipe.jobs.train.worker import ERROR, train_worker
from satpipe.pipeline.local_ray import environment
from satpipe.sat import errors
from satpipe.sat.errors import TrainingError

_NAME = "ray"  # of Ray's folder in the folder of the run
_ENVIRONMENT = {"RAY_TRAIN_ENABLE_STATE_TRACKING": "0"}
_ALONE = {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0", "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5"}
_UNUSED = ("PlacementGroupCleanerCallback", "DatasetsCallback")
# Each step allocates and frees tensors of the same sizes; by default glibc returns their pages to the system, and those
# of a thread, such as that of Ray Train, even with high thresholds. Large pages make a step of stage sat 5 % faster.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_ARENA_MAX": "1",
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
Result = TypeVar("Result")


class _Trainer(TorchTrainer):
    """A trainer that starts fewer processes, each of which needs 5 s of a processor to import Ray Train and torch.

    A Ray that ends with this process needs no cleaner of placement groups, which would also wait 12 s for a dashboard
    that does not run. The workers read no Ray Data.
    """

    def _create_default_callbacks(self) -> list[Any]:
        callbacks = super()._create_default_callbacks()  # type: ignore[misc]  # mypy sees that of Ray Train 1
        return [callback for callback in callbacks if type(callback).__name__ not in _UNUSED]


def fit(settings: TrainConfig, out: Path, *, use_gpu: bool, alone: bool) -> list[Path]:
    """Train with Ray.

    Args:
        settings: The settings.
        out: Folder of the run.
        use_gpu: Each worker has a GPU.
        alone: Ray runs for this process only, and ends with it.

    Returns:
        The folders of the checkpoints that Ray kept: the best ones, best first, or the last one.

    Raises:
        SatpipeError: A worker raised it.
        TrainingError: Workers were lost too often.
    """
    kept = settings.average_best
    trainer = (_Trainer if alone else TorchTrainer)(
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
        with environment(_ENVIRONMENT | (_ALONE if alone else {})):
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
