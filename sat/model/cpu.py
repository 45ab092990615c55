"""Settings of torch on a processor, for the length of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def threads(number: int, *, flush_denormal: bool = False) -> Iterator[None]:
    """Limit torch to this number of threads within the block, and let it flush denormal numbers to zero if asked.

    Flushing is faster where gradients vanish; other code of the process may rely on denormal numbers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    torch.set_flush_denormal(flush_denormal)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)  # the mode of a new process; torch cannot be asked for the present one
        torch.set_num_threads(before)
