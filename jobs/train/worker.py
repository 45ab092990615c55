"""A worker of `satpipe train`; Ray Train starts and restarts it, and keeps its checkpoints."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from satpipe.jobs.train.batches import augmented, make_feed
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import RayGroup
from satpipe.jobs.train.learner import Learner, learning_rate
from satpipe.jobs.train.log import MetricsLog
from satpipe.jobs.train.objective import Objective
from satpipe.jobs.train.validation import make_validation
from satpipe.pipeline.training_data.feed import Batch
from satpipe.sat.errors import SatpipeError, TrainingError
from satpipe.sat.model.cpu import threads

ERROR = "error.json"
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def train_worker(given: dict[str, Any]) -> None:
    """Train to the end, from the last checkpoint if there is one.

    Args:
        given: `settings` of the run, and its folder, `run`.
    """
    run = Path(given["run"])
    if (run / ERROR).exists():  # another attempt would fail too
        raise TrainingError("the run has failed before")
    settings = TrainConfig(**given["settings"])
    try:
        with threads(settings.threads, flush_denormal=True):
            Worker(settings, run, RayGroup()).train()
    except DivergedError as error:  # raised on every worker, so none waits for another; Ray must not repeat the run
        _note_error(run, TrainingError.__name__, str(error), overwrite=error.here)
    except SatpipeError as error:
        _note_error(run, type(error).__name__, str(error))
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and not any(
            words in str(error).lower() for words in _NO_MEMORY
        ):
            raise
        message = (
            f"{settings.step_batch} clips at once do not fit into memory: for the same result with less memory, raise "
            f"accumulate ({str(error).splitlines()[0]})"
        )
        _note_error(run, TrainingError.__name__, message)
        raise TrainingError(message) from error


def _note_error(run: Path, kind: str, message: str, *, overwrite: bool = False) -> None:
    path = run / ERROR
    if overwrite or not path.exists():
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"type": kind, "message": message}))
        os.replace(temporary, path)


class DivergedError(TrainingError):
    """The gradient became infinite or NaN; `here` is True if this worker's batch caused it."""

    def __init__(self, message: str, *, here: bool) -> None:
        super().__init__(message)
        self.here = here


@dataclass
class Progress:
    """Progress of a run: complete epochs, batches of the current one, updates, clips seen by all workers, and time."""

    epoch: int = 0
    batch: int = 0
    update: int = 0
    seen: int = 0
    seconds: float = 0.0


class Worker:
    """One of the processes that train."""

    def __init__(self, settings: TrainConfig, run: Path, group: RayGroup) -> None:
        self._settings, self._group = settings, group
        torch.manual_seed(settings.seed)
        objective = Objective(settings).to(group.device)
        if group.device.type == "cuda" and settings.stage == "sat" and group.world == settings.accumulate == 1:
            objective.train().record(settings.step_batch)  # before another thread uses the GPU
        self._feed = make_feed(settings, group)
        self._updates_per_epoch = max(1, self._feed.steps // settings.accumulate)
        state = group.restored()
        self._progress = Progress(**state["progress"]) if state else Progress()
        if state is None and settings.input_norm == "fixed" and not settings.init:
            objective.fix_norm(batch.inputs.to(group.device) for batch in self._feed.epoch(0))
        self._learner = Learner(settings, objective, group, state)
        self._validation = make_validation(settings, group)
        self._log = MetricsLog(run, self._progress.update) if group.rank == 0 else None

    def train(self) -> None:
        """Train to the end."""
        settings, progress = self._settings, self._progress
        while progress.epoch < settings.epochs:
            self._train_epoch()
            progress.epoch, progress.batch = progress.epoch + 1, 0
            metrics: dict[str, Any] = {}
            last = progress.epoch == settings.epochs
            if self._validation and (last or progress.epoch % settings.validate_every == 0):
                with self._learner.evaluated() as objective:
                    metrics = self._validation.of(objective)
                self._write(metrics)
            self._save(metrics)
        if self._log:
            self._log.close()

    def _train_epoch(self) -> None:
        settings, progress = self._settings, self._progress
        self._learner.train()
        begun_cpu_s, begun_seen, clock = process_time(), progress.seen, perf_counter()
        losses: list[float] = []
        whole = self._updates_per_epoch * settings.accumulate
        for batch in self._feed.epoch(progress.epoch, progress.batch):
            if progress.batch >= whole:
                break
            lr = learning_rate(settings, progress.update / self._updates_per_epoch)
            ends = (progress.batch + 1) % settings.accumulate == 0
            losses.append(self._step(batch, lr, ends=ends))
            progress.batch += 1
            progress.seen += len(batch.clips) * self._group.world
            if not ends:
                continue
            progress.update += 1
            progress.seconds += perf_counter() - clock
            clock = perf_counter()
            if progress.update % settings.log_steps == 0:
                speed = (progress.seen - begun_seen) / self._group.world / max(1e-9, process_time() - begun_cpu_s)
                self._write({
                    "loss": float(np.mean(losses)),
                    "lr": lr,
                    "hours": round(progress.seconds / 3600, 4),
                    "hours_left": round(self._hours_left(), 4),
                    "samples_per_s": round(progress.seen / max(1e-9, progress.seconds), 1),
                    "samples_per_cpu_s": round(speed, 1),
                })  # fmt: skip
                losses.clear()
            if (
                settings.checkpoint_steps
                and progress.update % settings.checkpoint_steps == 0
                and progress.batch < whole
            ):
                self._save({})
                clock = perf_counter()

    def _hours_left(self) -> float:
        """Return the hours of training that are left, without validation, at the speed until now."""
        done, total = self._progress.update, self._settings.epochs * self._updates_per_epoch
        return self._progress.seconds / max(1, done) * (total - done) / 3600

    def _step(self, batch: Batch, lr: float, *, ends: bool) -> float:
        """Train on one batch, with an update if it ends an accumulation; return the loss."""
        progress, rank = self._progress, self._group.rank
        rng = np.random.default_rng((self._settings.seed, progress.epoch, progress.batch, rank))
        inputs, labels = augmented(self._settings, batch, rng, self._group.device)
        loss = self._learner.backward(inputs, labels, rng, ends=ends)
        if ends and not self._learner.update(lr, progress.update):
            clips = ", ".join(batch.clips[:4]) + (f" and {len(batch.clips) - 4} more" if len(batch.clips) > 4 else "")
            raise DivergedError(
                f"the loss became {loss} at update {progress.update} (epoch {progress.epoch}, batch {progress.batch} "
                f"of worker {rank}: {clips}); the last checkpoint is unchanged. Try a lower lr or clip_norm",
                here=not math.isfinite(loss),
            )
        return loss

    def _write(self, metrics: dict[str, Any]) -> None:
        if self._log:
            progress = self._progress
            self._log.write({"epoch": progress.epoch, "update": progress.update, "seen": progress.seen, **metrics})

    def _save(self, metrics: dict[str, Any]) -> None:
        state = {**self._learner.state(), "progress": vars(self._progress)}
        self._group.save(state, {"update": self._progress.update, "epoch": self._progress.epoch, **metrics})
