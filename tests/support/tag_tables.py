"""Recordings to tag, and the tables of `satpipe tag` in an order that does not depend on how they were written."""

from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
import torch

EXAMPLES = Path(__file__).parents[2] / "examples" / "recordings"
NAMES = sorted(path.relative_to(EXAMPLES).as_posix() for path in EXAMPLES.rglob("*.*") if path.suffix != ".md")


def _plain(table: Path) -> pd.DataFrame:
    """Read a table; its dictionary-coded columns, which differ by the values that other rows have, become texts."""
    frame = pd.read_parquet(table)
    return frame.astype({name: str for name in frame.columns[frame.dtypes == "category"]})


def tags(out: Path) -> pd.DataFrame:
    """Return the tags table in an order that does not depend on how it was written."""
    table = _plain(out / "tags")
    return table.sort_values(["recording", "chunk", "mid"], ignore_index=True)


def scores(out: Path) -> pd.DataFrame:
    table = _plain(out / "scores")
    return table.sort_values(["recording", "chunk"], ignore_index=True)


def embeddings(out: Path) -> pd.DataFrame:
    table = _plain(out / "embeddings")
    return table.sort_values(["recording", "chunk"], ignore_index=True)


def recordings(out: Path) -> pd.DataFrame:
    return _plain(out / "recordings").set_index("recording").sort_index()


def assert_same_tables(ours: Path, theirs: Path, *, same_files: bool = True) -> None:
    """Assert that tables have the same rows, each once, with scores equal up to the rounding of another batch.

    Another run has another `run_id`, which is ignored. Copies of files have other time stamps: without `same_files`,
    the column `modified` is ignored, too.
    """
    columns = ["recording", "chunk", "start_s", "end_s", "mid", "label"]
    pd.testing.assert_frame_equal(tags(ours)[columns], tags(theirs)[columns])
    np.testing.assert_allclose(tags(ours).score, tags(theirs).score, rtol=0, atol=1e-5)
    columns = ["recording", "chunk", "start_s", "end_s"]
    pd.testing.assert_frame_equal(scores(ours)[columns], scores(theirs)[columns])
    half = [np.stack(scores(out).scores).astype(np.float32) for out in (ours, theirs)]
    np.testing.assert_allclose(*half, rtol=2**-10, atol=1e-5)  # may be rounded differently to half precision
    if (theirs / "embeddings").exists():
        pd.testing.assert_frame_equal(embeddings(ours)[columns], embeddings(theirs)[columns])
        both = [np.stack(embeddings(out).embedding) for out in (ours, theirs)]
        np.testing.assert_allclose(*both, rtol=2**-10, atol=1e-4)
    ignored = {"run_id"} if same_files else {"run_id", "modified"}
    columns = [name for name in recordings(ours) if name not in ignored]
    pd.testing.assert_frame_equal(recordings(ours)[columns], recordings(theirs)[columns])


def samples_16k(path: Path) -> torch.Tensor:
    sound, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    return torch.from_numpy(soxr.resample(sound.mean(1), rate_hz, 16_000, quality="VHQ"))


def make_recordings(folder: Path, count: int, seconds: float) -> Path:
    """Write recordings of real sound, each from another position in the examples."""
    folder.mkdir(parents=True, exist_ok=True)
    sound = torch.cat([samples_16k(EXAMPLES / name) for name in NAMES]).numpy()
    length = int(seconds * 16_000)
    for number in range(count):
        piece = np.resize(np.roll(sound, -number * 40_000), length)
        soundfile.write(folder / f"{number:03}.wav", piece, 16_000, subtype="PCM_16")
    return folder


def tagged_s(printed: str) -> float:
    """Return the length that `satpipe tag` has tagged, from its closing lines."""
    number, unit = printed.split("tagged ")[1].split()[:2]
    return float(number) * {"s": 1, "h": 3600}[unit]
