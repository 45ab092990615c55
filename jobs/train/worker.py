"""What each worker of `satpipe train` does; Ray Train starts it, restarts it, and keeps its checkpoints."""

import json
import math
import os
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import ray.train
import ray.train.torch
import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.log import MetricsLog
from satpipe.jobs.train.objective import Objective
from satpipe.jobs.train.validation import (
    TRUE_PIECES,
    TRUE_SCORE,
    mean_average_precision,
    teacher_figures,
    with_and_without_memory,
)
from satpipe.pipeline.training_data.feed import Batch, Examples, Feed, in_order, labelled_segments, whole_clips
from satpipe.pipeline.training_data.shards import CLIP_S, Shards
from satpipe.pipeline.training_data.teachers import Segments, load_teacher
from satpipe.pipeline.training_data.views import Views
from satpipe.sat.errors import SatpipeError, TrainingError
from satpipe.sat.model.config import SAMPLE_RATE_HZ, get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.taggers.sat import segment_scores
from satpipe.sat.training import augmentation as augment
from satpipe.sat.training import parameters
from torch import Tensor

ERROR = "error.json"
STATE = "state.pt"
NORM_BATCHES = 16  # what `input_norm: fixed` takes its statistics from
VALIDATION_BATCH = 32
_NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")


def train_worker(given: dict[str, Any]) -> None:
    """Train from the last checkpoint, or from the start, to the end.

    Args:
        given: `settings` of the run and its folder `run`.
    """
    run = Path(given["run"])
    if (run / ERROR).exists():  # no use in trying again
        raise TrainingError("the run has failed before")
    try:
        worker = Worker(TrainConfig(**given["settings"]), run)
        worker.train()
    except DivergedError as error:  # every worker knows, so that none waits for another: Ray has nothing to try again
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
            f"a batch of {given['settings']['batch']} does not fit into memory: lower batch, and raise accumulate by "
            f"as much to train alike ({str(error).splitlines()[0]})"
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
    """The gradient became infinite or NaN.

    Attributes:
        here: It was this worker's batch that made it so.
    """

    def __init__(self, message: str, *, here: bool) -> None:
        super().__init__(message)
        self.here = here


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: The one it is in.
        batch: Batches of it that are done.
        update: Updates done in all.
        seen: Clips trained on in all, over all workers.
        seconds: Spent on it so far.
    """

    epoch: int = 0
    batch: int = 0
    update: int = 0
    seen: int = 0
    seconds: float = 0.0


class Worker:
    """One of the processes that train."""

    def __init__(self, settings: TrainConfig, run: Path) -> None:
        self.settings, self.run = settings, run
        context = ray.train.get_context()
        self.rank, self.world = context.get_world_rank(), context.get_world_size()
        torch.set_num_threads(settings.threads)
        torch.set_flush_denormal(True)
        torch.manual_seed(settings.seed)
        self.device = ray.train.torch.get_device()
        self.progress = Progress()
        objective = Objective(settings).to(self.device)
        if self.device.type == "cuda" and settings.stage == "sat" and self.world == settings.accumulate == 1:
            objective.train().record(settings.batch)  # before another thread has the GPU do something
        self.feed = self._feed()
        self.updates_per_epoch = max(1, self.feed.steps // settings.accumulate)
        state = self._restored()
        if state:
            objective.load_state_dict(state["objective"])
            self.progress = Progress(**state["progress"])
        elif settings.input_norm == "fixed" and not settings.init:
            self._fix_norm(objective)
        self.module = ray.train.torch.prepare_model(objective)
        self.objective = objective
        self.optimizer = self._optimizer()
        self.average: dict[str, Tensor] | None = None
        if settings.ema:
            self.average = {name: t.detach().clone() for name, t in self.objective.tagger.state_dict().items()}
        if state:
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None and state["average"] is not None:
                self.average = {name: t.to(self.device) for name, t in state["average"].items()}
        self.validate = self._validation()

    def train(self) -> None:
        """Train to the end."""
        settings, progress = self.settings, self.progress
        log = MetricsLog(self.run, progress.update) if self.rank == 0 else None
        while progress.epoch < settings.epochs:
            self._train_epoch(log)
            progress.epoch, progress.batch = progress.epoch + 1, 0
            metrics: dict[str, Any] = {}
            last = progress.epoch == settings.epochs
            if self.validate is not None and (last or progress.epoch % settings.validate_every == 0):
                metrics = self.validate()
                if log:
                    log.write({"epoch": progress.epoch, "update": progress.update, "seen": progress.seen, **metrics})
            self._save(metrics)
        if log:
            log.close()

    def _train_epoch(self, log: MetricsLog | None) -> None:
        settings, progress = self.settings, self.progress
        self.module.train()
        begun_cpu_s, begun_seen = process_time(), progress.seen
        losses: list[float] = []
        whole = self.updates_per_epoch * settings.accumulate
        batches = self.feed.epoch(progress.epoch, progress.batch)
        clock = perf_counter()
        for batch in batches:
            if progress.batch >= whole:
                break
            ends = (progress.batch + 1) % settings.accumulate == 0
            losses.append(self._step(batch, ends))
            progress.batch += 1
            progress.seen += len(batch.clips) * self.world
            if not ends:
                continue
            progress.update += 1
            progress.seconds += perf_counter() - clock
            clock = perf_counter()
            if log and progress.update % settings.log_steps == 0:
                speed = (progress.seen - begun_seen) / self.world / max(1e-9, process_time() - begun_cpu_s)
                log.write(
                    {
                        "epoch": progress.epoch,
                        "update": progress.update,
                        "seen": progress.seen,
                        "loss": float(np.mean(losses)),
                        "lr": self.optimizer.param_groups[0]["lr"],
                        "hours": round(progress.seconds / 3600, 4),
                        "samples_per_cpu_s": round(speed, 1),
                    }
                )
            if progress.update % settings.log_steps == 0:
                losses.clear()
            if (
                settings.checkpoint_steps
                and progress.update % settings.checkpoint_steps == 0
                and progress.batch < whole
            ):
                self._save({})
                clock = perf_counter()

    def _step(self, batch: Batch, ends: bool) -> float:
        """Forward, backward, and at the end of an accumulation the update; return the loss."""
        settings, progress = self.settings, self.progress
        rng = np.random.default_rng((settings.seed, progress.epoch, progress.batch, self.rank))
        inputs, labels = self._augmented(batch, rng)
        together = nullcontext() if ends or self.world == 1 else self.module.no_sync()  # type: ignore[operator]
        with together:
            loss = self.module(inputs, labels, rng)
            (loss / settings.accumulate).backward()
        if ends:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(settings, progress.update / self.updates_per_epoch)
            parameters = [p for p in self.module.parameters() if p.grad is not None]
            longest = settings.clip_norm or math.inf
            norm = torch.nn.utils.clip_grad_norm_(parameters, longest)
            if not math.isfinite(float(norm)):  # the same on every worker, since gradients are averaged
                self._stop(float(loss.detach()), batch)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self._update_average()
        return float(loss.detach())

    def _stop(self, loss: float, batch: Batch) -> None:
        progress = self.progress
        clips = ", ".join(batch.clips[:4]) + (f" and {len(batch.clips) - 4} more" if len(batch.clips) > 4 else "")
        message = (
            f"the loss became {loss} at update {progress.update} (epoch {progress.epoch}, batch {progress.batch} of "
            f"worker {self.rank}: {clips}); the last checkpoint is as it was. A lower lr or clip_norm may help"
        )
        raise DivergedError(message, here=not math.isfinite(loss))

    def _augmented(self, batch: Batch, rng: np.random.Generator) -> tuple[Tensor, Tensor | None]:
        settings, inputs = self.settings, batch.inputs.to(self.device)
        labels = None if batch.labels is None else batch.labels.to(self.device)
        if inputs.ndim == 3:  # log-mel values: a gain is a number that is added
            if settings.gain_db:
                inputs = inputs + torch.from_numpy(rng.normal(0, settings.gain_db, (len(inputs), 1, 1))).to(inputs)
            return inputs, labels
        if settings.shift:
            inputs = augment.shift(inputs, rng)
        if settings.gain_db:
            inputs = augment.gain(inputs, rng, settings.gain_db)
        if settings.polarity:
            inputs = augment.polarity(inputs, rng)
        if settings.mixup_alpha and labels is not None:
            inputs, labels = augment.mixup(inputs, labels, rng, settings.mixup_alpha)
        return inputs, labels

    def _feed(self) -> Feed | Views:
        settings = self.settings
        shards = Shards(settings.data)
        config = get_config(settings.arch)
        place = {"seed": settings.seed, "rank": self.rank, "world": self.world}
        sizes = {"batch": settings.batch, "per_epoch": settings.clips_per_epoch}
        drawn = {"balance": settings.balance, "floor": settings.frequency_floor}
        if settings.stage == "mae":
            return Feed(whole_clips(shards, labelled=False), crop_samples=_clip_samples(), **sizes, **place)
        if settings.stage == "full":
            if settings.labels:
                examples = labelled_segments(shards, Segments(settings.labels, shards), **drawn)
            else:
                examples = whole_clips(shards, labelled=True, **drawn)
            return Feed(examples, crop_samples=_clip_samples(), **sizes, **place)
        pieces = Segments(settings.labels, shards)
        examples = labelled_segments(shards, pieces, **drawn)
        if settings.teacher:
            return Views(
                examples, load_teacher(settings.teacher, self.device), chunk_frames=config.chunk_frames,
                reuse=settings.reuse, mix=settings.mix, device=self.device, **sizes, **place,
            )  # fmt: skip
        return Feed(examples, crop_samples=_piece_samples(pieces, config.chunk_samples), **sizes, **place)

    def _fix_norm(self, objective: Objective) -> None:
        """Take mean and variance of each mel band from the first batches."""
        frames = []
        for number, batch in enumerate(self.feed.epoch(0)):
            frames.append(objective.frames(batch.inputs.to(self.device)).transpose(0, 1).flatten(1))  # [64, B F]
            if number + 1 == NORM_BATCHES:
                break
        bands = torch.cat(frames, dim=1)
        norm = objective.tagger.init_bn
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.copy_(bands.mean(1))
        norm.running_var.copy_(bands.var(1))

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.settings
        groups = parameters.parameter_groups(self.objective, settings.weight_decay)
        options: dict[str, Any] = {"lr": settings.lr, "betas": tuple(settings.betas)}
        if settings.optimizer == "adam8bit":
            try:
                import bitsandbytes.optim.adamw
            except ImportError as error:
                raise TrainingError("adam8bit needs bitsandbytes: pip install 'satpipe[train]'") from error
            optimizer: torch.optim.Optimizer = bitsandbytes.optim.adamw.AdamW8bit(groups, **options)
            return optimizer
        return torch.optim.AdamW(groups, fused=True, **options)

    def _update_average(self) -> None:
        if self.average is None:
            return
        # At first the average is one over the last tenth, so that the random start is soon forgotten.
        decay = min(self.settings.ema, 1 - 1 / (1 + self.progress.update / 10))
        state = self.objective.tagger.state_dict()
        names = [name for name, tensor in state.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([self.average[name] for name in names], [state[name] for name in names], 1 - decay)

    def _restored(self) -> dict[str, Any] | None:
        saved = ray.train.get_checkpoint()
        if saved is None:
            return None
        with saved.as_directory() as folder:
            return torch.load(Path(folder, STATE), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]

    def _save(self, metrics: dict[str, Any]) -> None:
        """Hand a checkpoint to Ray, which keeps it under its name only when it is whole; every worker takes part."""
        metrics = {"update": self.progress.update, "epoch": self.progress.epoch, "map": -1.0, **metrics}
        if math.isnan(metrics["map"]):  # Ray ranks checkpoints by it
            metrics["map"] = -1.0
        if self.rank:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="satpipe-") as folder:
            state = {
                "objective": self.objective.state_dict(),
                "average": self.average,
                "optimizer": self.optimizer.state_dict(),
                "progress": vars(self.progress),
            }
            torch.save(state, Path(folder, STATE))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))

    def _validation(self) -> Callable[[], dict[str, Any]] | None:
        settings = self.settings
        if not settings.validation or settings.stage == "mae":
            return None
        shards = Shards(settings.validation)
        if not settings.validation_labels:
            examples = whole_clips(shards, labelled=True)
            return lambda: {"map": self._map_of(examples, _clip_samples())}
        pieces = Segments(settings.validation_labels, shards)
        examples = labelled_segments(shards, pieces)
        samples = round(pieces.segment_s * SAMPLE_RATE_HZ)
        return lambda: self._teacher_map(examples, samples)

    def _map_of(self, examples: Examples, samples: int) -> float:
        """MAP against weak labels, over the classes that occur."""
        with self._evaluated() as model:
            scores, labels = self._all_scores(
                examples, samples, lambda x: [segment_scores(model, self.objective.log_mel, x)]
            )
        return mean_average_precision(scores[0], labels >= TRUE_SCORE, 1)[0]

    def _teacher_map(self, examples: Examples, samples: int) -> dict[str, Any]:
        """Teacher-mAP, memory on and off."""
        with self._evaluated() as model:
            (remembering, forgetting), labels = self._all_scores(
                examples, samples, lambda x: with_and_without_memory(model, self.objective.log_mel, x)
            )
        metrics = teacher_figures(remembering, forgetting, labels)
        known = (metrics[f"teacher_map_{count}"] for count in TRUE_PIECES)
        metrics["map"] = next((value for value in known if not math.isnan(value)), math.nan)
        return metrics

    def _evaluated(self) -> "_Evaluated":
        return _Evaluated(self)

    def _all_scores(
        self, examples: Examples, samples: int, tagged: Callable[[Tensor], list[Tensor]]
    ) -> tuple[list[npt.NDArray[np.float32]], npt.NDArray[np.float32]]:
        """Scores of all examples, each worker tagging its share, and their labels."""
        parts: list[Any] = []
        with torch.inference_mode():
            for numbers, batch in in_order(examples, samples, VALIDATION_BATCH, self.rank, self.world):
                assert batch.labels is not None
                scores = [part.cpu().numpy() for part in tagged(batch.inputs.to(self.device))]
                parts.append((numbers, batch.labels.numpy(), scores))
        if self.world > 1:
            gathered: list[Any] = [None] * self.world
            torch.distributed.all_gather_object(gathered, parts)
            parts = [part for parts_of_one in gathered for part in parts_of_one]
        order = np.argsort(np.concatenate([part[0] for part in parts]))
        labels = np.concatenate([part[1] for part in parts])[order]
        kinds = range(len(parts[0][2]))
        return [np.concatenate([part[2][kind] for part in parts])[order] for kind in kinds], labels


class _Evaluated:
    """The model as it is validated and exported: averaged, in evaluation mode, for as long as the block lasts."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker

    def __enter__(self) -> SAT:
        worker = self._worker
        self._state = {name: t.clone() for name, t in worker.objective.tagger.state_dict().items()}
        if worker.average is not None:
            worker.objective.tagger.load_state_dict(worker.average)
        worker.module.eval()
        return worker.objective.tagger

    def __exit__(self, *_: object) -> None:
        self._worker.objective.tagger.load_state_dict(self._state)
        self._worker.module.train()


def learning_rate(settings: TrainConfig, epoch: float) -> float:
    """Learning rate after so many epochs."""
    if epoch < settings.warmup_epochs:
        return settings.lr * (epoch + 1e-3) / settings.warmup_epochs
    if settings.schedule == "flat":
        left = settings.epochs - epoch
        share = min(1.0, left / settings.decay_epochs) if settings.decay_epochs else 1.0
    else:
        done = (epoch - settings.warmup_epochs) / max(1e-9, settings.epochs - settings.warmup_epochs)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return settings.lr_end + (settings.lr - settings.lr_end) * max(0.0, share)


def _clip_samples() -> int:
    return round(CLIP_S * SAMPLE_RATE_HZ)


def _piece_samples(pieces: Segments, chunk_samples: int) -> int:
    samples = round(pieces.segment_s * SAMPLE_RATE_HZ)
    if not 2 * chunk_samples <= samples < 3 * chunk_samples:
        raise TrainingError(
            f"the labels are of pieces of {pieces.segment_s:g} s, the model reads two chunks of "
            f"{chunk_samples / SAMPLE_RATE_HZ:g} s: make labels with `satpipe psl --piece-s "
            f"{math.ceil(2 * chunk_samples / SAMPLE_RATE_HZ)}`"
        )
    return samples
