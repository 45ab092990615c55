"""Metrics of a training run: JSON lines, and TensorBoard if it is installed."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

METRICS = "metrics.jsonl"


class MetricsLog:
    """Writes metrics as JSON lines and for TensorBoard."""

    def __init__(self, run: Path, update: int) -> None:
        """Open both logs; drop the lines that a lost worker wrote after `update`."""
        self._path = run / METRICS
        if self._path.exists():
            kept = [line for line in lines(self._path) if line["update"] <= update]
            temporary = self._path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            os.replace(temporary, self._path)
        self._board: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._board = SummaryWriter(str(run / "tensorboard"), purge_step=update + 1)

    def write(self, figures: dict[str, Any]) -> None:
        """Add one line, with null for NaN and infinity."""
        figures = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in figures.items()}
        with self._path.open("a") as file:
            file.write(json.dumps(figures) + "\n")
        if self._board is not None:
            for name, value in figures.items():
                if name not in ("update", "epoch") and isinstance(value, int | float):
                    self._board.add_scalar(name, value, figures["update"])
            self._board.flush()

    def close(self) -> None:
        """Close TensorBoard's file."""
        if self._board is not None:
            self._board.close()


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the complete lines of a file of JSON lines."""
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)
