"""Memory use of this process."""

import resource
from pathlib import Path


def peak_mb() -> float:
    """Return the peak resident memory of this process so far, in MiB."""
    try:
        # Not ru_maxrss: on Linux a process starts with the value of its parent.
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes where there is no /proc
