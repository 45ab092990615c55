"""`satpipe tag --since --until`: only recordings that start in a time are tagged."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import without_ray
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.plan import plan
from satpipe.sat.errors import ConfigError
from small_models import write_small_model

NAMES = ("20250430_220000.wav", "20250501_000000.wav", "20250501_230000.wav", "20250502_000000.wav", "undated.wav")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 32_000)
    for name in NAMES:
        soundfile.write(tmp_path / "in" / name, noise, 16_000)
    return tmp_path / "in"


def test_recordings_that_start_in_a_time_are_tagged_and_the_others_later(folder: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", write_small_model(tmp_path / "small.safetensors")

    def tag(*options: object) -> tuple[int, str, set[str]]:
        done = without_ray.satpipe("tag", folder, "-o", out, "--model", model, *options)
        there = pd.read_parquet(out / "recordings")
        assert not there.recording.duplicated().any()
        return done.returncode, done.stdout + done.stderr, set(there.recording)

    code, text, there = tag("--since", "2025-05-01", "--until", "2025-05-02T01:00+01:00")
    assert (code, there) == (3, set(NAMES[1:3]))
    assert "left out, of another time: 2 recordings" in text
    assert "left out, start time not known: 1, such as undated.wav" in text
    changed = folder / NAMES[2]
    soundfile.write(changed, np.zeros(48_000), 16_000)
    (folder / NAMES[4]).unlink()
    code, _, there = tag("--until", "2025-05-01")
    assert (code, there) == (0, set(NAMES[:3]))  # the changed one is of another time: its rows stay
    durations_s = pd.read_parquet(out / "recordings").set_index("recording").duration_s
    assert durations_s[NAMES[2]] == 2
    code, _, there = tag("--since", "2025-05-01T12:00")
    assert (code, there) == (0, set(NAMES[:4]))
    assert pd.read_parquet(out / "recordings").set_index("recording").duration_s[NAMES[2]] == 3
    (out / "tags" / next((out / "tags").iterdir()).name).unlink()
    code, text, _ = tag("--since", "2025-05-01T12:00")
    assert code == 1
    assert "leave out --since and --until" in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"since": "2025-05-02", "until": "2025-05-01"}, "--since 2025-05-02 is not before --until 2025-05-01"),
        ({"since": "yesterday"}, "'yesterday' is not a valid time"),
        ({"since": "2025-05-02", "join": True}, "--join needs all files of a recorder"),
    ],
)
def test_times_that_cannot_work_are_refused(folder: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(TagOptions((str(folder),), **options))  # type: ignore[arg-type]
