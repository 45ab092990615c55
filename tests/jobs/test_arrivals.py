"""A job that runs every minute for hours has the rows of one undisturbed run.

The long form is run by hand, see CONTRIBUTING.
"""

import random
import shutil
from pathlib import Path
from statistics import median

import pytest
import without_ray
from arrivals import Arrivals, Round, Soak
from conftest import COMMAND, ROOT
from object_store import download, in_store, object_store
from tag_tables import EXAMPLES, NAMES, assert_same_tables, samples_16k

BUSY = "ConfigError: Ray could not be started: The current node timed out during startup"
MAX_GROWTH_MB = 150.0
MAX_GROWTH_FILES = 32


@pytest.mark.soak
def test_a_job_of_which_a_worker_is_killed_has_the_rows_of_one_run(tmp_path: Path) -> None:
    rounds = soak(tmp_path, workers=1, minutes=0, round_s=0, kill_every_s=1e9, refuse=0.05, seed=14)
    assert rounds[-1].killed == 1
    assert rounds[-1].refused > 0
    assert rounds[-1].left <= 1  # what the killed worker was writing


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_hours_of_arrivals(minutes: int, seed: int) -> None:
    folder = ROOT / "build" / "soak"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rounds = soak(folder, workers=2, minutes=minutes, round_s=60, kill_every_s=300, refuse=0.01, seed=seed)
    assert rounds[-1].killed >= minutes // 10
    assert rounds[-1].refused > 0
    assert rounds[-1].left <= rounds[-1].killed  # what a killed worker was writing
    third = len(rounds) // 3
    begin, end = rounds[:third], rounds[-third:]
    assert median(each.memory_mb for each in end) < median(each.memory_mb for each in begin) + MAX_GROWTH_MB
    assert median(each.open_files for each in end) < median(each.open_files for each in begin) + MAX_GROWTH_FILES


def soak(
    folder: Path, *, workers: int, minutes: int, round_s: float, kill_every_s: float, refuse: float, seed: int
) -> list[Round]:
    """Run the job, and compare its tables with those of one undisturbed run over the same files."""
    sound = samples_16k(EXAMPLES / NAMES[0]).numpy()
    with object_store("recordings", "tables", refuse=refuse, seed=seed) as store:
        inputs = (folder / "recordings", in_store("s3://recordings/in"))
        inputs[0].mkdir()
        arrivals = Arrivals(sound, inputs, random.Random(seed))
        out, options = "s3://tables/out", [*map(str, inputs), "--workers", str(workers), "--quiet"]
        job = Soak(
            [str(COMMAND), "tag", *options, "-o", out],
            arrivals,
            store,
            out,
            folder,
            round_s=round_s,
            kill_every_s=kill_every_s,
        )
        job.go(minutes)
        store.share = 0.0
        undisturbed = without_ray.satpipe("tag", *options, "-o", folder / "undisturbed")
        assert undisturbed.returncode == 3, undisturbed.stderr
        assert_same_tables(download(out, folder / "job"), folder / "undisturbed")
        assert job.printed() == [BUSY] * sum(each.exit_code == 1 for each in job.rounds)
        assert {each.exit_code for each in job.rounds} <= {0, 1, 3}
        return job.rounds
