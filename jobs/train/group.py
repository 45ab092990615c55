"""The workers that train together: the only part of a worker that uses Ray Train."""

import math
import tempfile
from pathlib import Path
from typing import Any

import ray.train
import ray.train.torch
import torch
from satpipe.sat.taggers.interface import CPU
from torch import nn

STATE = "state.pt"  # file in a checkpoint's folder
SCORE = "score"  # by which checkpoints are ranked
_LOWEST = -1e9  # of a checkpoint that was not validated


class Group:
    """One worker's view of the group: its rank, the number of workers and its device; by default it is alone."""

    def __init__(self, rank: int = 0, world: int = 1, device: torch.device = CPU) -> None:
        self.rank, self.world, self.device = rank, world, device

    def gather(self, parts: list[Any]) -> list[Any]:
        """Return the parts of all workers."""
        if self.world == 1:
            return parts
        gathered: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(gathered, parts)
        return [part for parts_of_one in gathered for part in parts_of_one]


class RayGroup(Group):
    """The workers that Ray Train has started."""

    def __init__(self) -> None:
        context = ray.train.get_context()
        super().__init__(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())

    def wrap(self, module: nn.Module) -> nn.Module:
        """Return the module with gradients averaged over all workers."""
        return ray.train.torch.prepare_model(module)

    def restored(self) -> dict[str, Any] | None:
        """Return the last checkpoint; None at the start of a run."""
        saved = ray.train.get_checkpoint()
        if saved is None:
            return None
        with saved.as_directory() as folder:
            return torch.load(Path(folder, STATE), map_location="cpu", weights_only=True)  # type: ignore[no-any-return]

    def save(self, state: dict[str, Any], metrics: dict[str, Any]) -> None:
        """Hand a checkpoint to Ray, which publishes it only when it is complete; every worker must call this."""
        score = metrics.get("map", -metrics.get("validation_loss", math.nan))
        metrics = {**metrics, SCORE: _LOWEST if math.isnan(score) else score}
        if self.rank:
            ray.train.report(metrics)
            return
        with tempfile.TemporaryDirectory(prefix="satpipe-") as folder:
            torch.save(state, Path(folder, STATE))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(folder))
