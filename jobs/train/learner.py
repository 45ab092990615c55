"""The model in training: optimiser, running average, and one step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from satpipe.jobs.train.config import TrainConfig
from satpipe.jobs.train.group import RayGroup
from satpipe.jobs.train.objective import Objective
from satpipe.sat.errors import TrainingError, install
from satpipe.sat.training.parameters import parameter_groups
from torch import Tensor, nn


class Learner:
    """The state that changes with each update and is stored in checkpoints."""

    def __init__(
        self, settings: TrainConfig, objective: Objective, group: RayGroup, state: dict[str, Any] | None
    ) -> None:
        """Start with the weights of the objective, or with the state of a checkpoint."""
        self._settings, self.objective, self._world = settings, objective, group.world
        if state:
            objective.load_state_dict(state["objective"])
        self._module = group.wrap(objective)
        self._optimizer = make_optimizer(settings, objective)
        self._average: dict[str, Tensor] | None = None
        if settings.ema:
            start = (state and state["average"]) or objective.tagger.state_dict()
            self._average = {name: tensor.detach().clone().to(group.device) for name, tensor in start.items()}
        if state:
            self._optimizer.load_state_dict(state["optimizer"])

    def state(self) -> dict[str, Any]:
        """Return the content of a checkpoint."""
        return {
            "objective": self.objective.state_dict(),
            "average": self._average,
            "optimizer": self._optimizer.state_dict(),
        }

    def train(self) -> None:
        """Switch to training mode."""
        self._module.train()

    def backward(self, inputs: Tensor, labels: Tensor | None, rng: np.random.Generator, *, ends: bool) -> float:
        """Add the gradients of one batch, and return its loss; if `ends`, the workers average their gradients."""
        apart = nullcontext() if ends or self._world == 1 else self._module.no_sync()  # type: ignore[operator]
        with apart:
            loss = self._module(inputs, labels, rng)
            (loss / self._settings.accumulate).backward()
        return float(loss.detach())

    def update(self, lr: float, number: int) -> bool:
        """Update the weights, which have been updated `number` times, with the gradients since the last update.

        Returns:
            False if the gradient is not finite (the same on all workers); the weights are then unchanged.
        """
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        parameters = [p for p in self._module.parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(parameters, self._settings.clip_norm or math.inf)
        if not math.isfinite(float(norm)):
            return False
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        if self._average is not None:
            # At first the average covers the last tenth of the updates, so that the random start is soon forgotten.
            decay = min(self._settings.ema, 1 - 1 / (1 + number / 10))
            state = self.objective.tagger.state_dict()
            names = [name for name, tensor in state.items() if tensor.is_floating_point()]
            torch._foreach_lerp_([self._average[name] for name in names], [state[name] for name in names], 1 - decay)
        return True

    @contextmanager
    def evaluated(self) -> Iterator[Objective]:
        """Provide the model as it is validated and exported: averaged, and in evaluation mode, within the block."""
        tagger = self.objective.tagger
        before = {name: tensor.clone() for name, tensor in tagger.state_dict().items()}
        if self._average is not None:
            tagger.load_state_dict(self._average)
        self._module.eval()
        try:
            yield self.objective
        finally:
            tagger.load_state_dict(before)
            self._module.train()


def make_optimizer(settings: TrainConfig, objective: Objective) -> torch.optim.Optimizer:
    """Return the optimiser of a run.

    Raises:
        TrainingError: It needs a package that is not installed.
    """
    groups = parameter_groups(objective, settings.weight_decay)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True, lr=settings.lr, betas=settings.betas)
    try:
        from bitsandbytes.optim.adam import Adam8bit
        from bitsandbytes.optim.adamw import AdamW8bit
    except ImportError as error:
        raise TrainingError(f"{settings.optimizer} needs bitsandbytes; {install('train')}") from error
    kind = Adam8bit if settings.optimizer == "adam8bit" else AdamW8bit
    optimizer: torch.optim.Optimizer = kind(groups, lr=settings.lr, betas=settings.betas)
    return optimizer


def learning_rate(settings: TrainConfig, epoch: float) -> float:
    """Return the learning rate at a number of epochs since the start of the run."""
    if epoch < settings.warmup_epochs:
        return settings.lr * (epoch + 1e-3) / settings.warmup_epochs
    if settings.schedule == "flat":
        left = settings.epochs - epoch
        share = min(1.0, left / settings.decay_epochs) if settings.decay_epochs else 1.0
    else:
        length = settings.cosine_epochs or settings.epochs - settings.warmup_epochs
        done = (epoch - settings.warmup_epochs) / max(1e-9, length)
        share = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return settings.lr_end + (settings.lr - settings.lr_end) * max(0.0, share)
