"""Settings of torch hold within their block only."""

import numpy as np
import torch
from satpipe.sat.model.cpu import threads

SUBNORMAL = float(np.finfo(np.float32).smallest_subnormal)


def half(value: float) -> float:
    return float(torch.tensor([value]) / 2)


def test_the_settings_end_with_the_block() -> None:
    before = torch.get_num_threads()
    with threads(before + 1, flush_denormal=True):
        assert torch.get_num_threads() == before + 1
        assert half(2 * SUBNORMAL) == 0
    assert torch.get_num_threads() == before
    assert half(2 * SUBNORMAL) == SUBNORMAL
