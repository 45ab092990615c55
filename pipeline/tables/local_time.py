"""Times of the tables, which are UTC, as local times."""

from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

Times = npt.NDArray[np.datetime64]


def local(utc: Times, zone: ZoneInfo) -> Times:
    """Return the local times without a time zone; NaT stays NaT. Shape [n] -> [n]."""
    return np.asarray(pd.DatetimeIndex(utc, tz="UTC").tz_convert(zone).tz_localize(None).to_numpy())


def with_offset(utc: Times, zone: ZoneInfo) -> pa.Array:
    """Return local times in ISO 8601 with their offset from UTC, such as `2025-05-01T05:20:01.920+02:00`; null for NaT.

    The hour that comes twice at the end of summer time has two offsets, so that each text is one moment.
    """
    there = local(utc, zone)
    minutes = (there - utc).astype("timedelta64[m]").astype(np.int64)  # the smallest number for NaT
    offsets, offset = np.unique(minutes, return_inverse=True)
    texts = [f"{'-' if at < 0 else '+'}{abs(at) // 60:02}:{abs(at) % 60:02}" for at in offsets.tolist()]
    clock = pa.array(there).cast(pa.timestamp("ms"), safe=False).cast(pa.string())
    clock = pc.binary_replace_slice(clock, 10, 11, "T")  # strftime would take thirty times as long
    return pc.binary_join_element_wise(clock.cast(pa.string()), pa.array(texts, pa.string()).take(pa.array(offset)), "")
