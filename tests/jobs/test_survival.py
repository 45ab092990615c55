"""Whatever happens on the way, the tables come out the same."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import psutil
import pytest
import ray
import soundfile
import unlucky_workers
from conftest import COMMAND, Satpipe
from forked import Forked
from killed import count_changes, tag_until
from satpipe.pipeline.tagging import run
from small_models import write_small_model
from tag_tables import assert_same_tables, make_recordings, recordings, scores, tagged_s
from without_ray import main, without_ray

KILLS = 16
SPAN_S = 10
Options = tuple[object, ...]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Options:
    """Options for a small model and short spans, and for all tables."""
    path = write_small_model(tmp_path_factory.mktemp("model") / "small.safetensors")
    return ("--model", path, "--span-s", SPAN_S, "--embeddings")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings short and long, and one that is empty."""
    folder = make_recordings(tmp_path_factory.mktemp("recordings"), 8, 9)
    make_recordings(folder / "long", 1, 50)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    return folder


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings that take two workers a while: 72 spans."""
    folder = make_recordings(tmp_path_factory.mktemp("many"), 2, 360)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    return folder


@pytest.fixture(scope="module")
def many_undisturbed(many: Path, small: Options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    with without_ray():
        assert main("tag", many, "-o", out, *small) == 3
    return out


def tag(*arguments: object) -> int:
    """Run `satpipe tag` in a forked process."""
    return main("tag", *arguments)


def tag_without_ray(*arguments: object) -> int:
    with without_ray():
        return tag(*arguments)


def staged(out: Path) -> int:
    return len(list(out.glob("_staged/[!.]*.parquet")))


@pytest.mark.slow
def test_kills_at_any_change_to_a_file_change_nothing(folder: Path, small: Options, tmp_path: Path) -> None:
    undisturbed = tmp_path / "undisturbed"
    changes = count_changes(folder, "-o", undisturbed, *small)
    moments = [round(number * (changes - 1) / (KILLS - 1)) for number in range(KILLS)]
    half_written = published = resumed = 0
    for moment in moments:
        out = tmp_path / str(moment)
        process = Forked(tmp_path / "printed", tag_until, moment, folder, "-o", out, *small)
        assert process.ends() == -signal.SIGKILL
        half_written += any(out.glob("*/.*"))
        published += any(out.glob("recordings/*.parquet"))
        resumed += staged(out) > 0
        if moment % 3 == 0:  # the next run is killed too
            process = Forked(tmp_path / "printed", tag_until, moment // 3, folder, "-o", out, *small)
            assert process.ends() in (-signal.SIGKILL, 3)
        with without_ray():
            assert main("tag", folder, "-o", out, *small) == 3
        assert_same_tables(out, undisturbed)
    assert half_written >= 3
    assert published >= 3
    assert resumed >= 3


@pytest.mark.slow
def test_a_run_with_its_ray_is_killed_and_continues(
    many: Path, many_undisturbed: Path, satpipe_here: Satpipe, small: Options, tmp_path: Path
) -> None:
    """Driver and workers, in the middle of tagging and of publishing."""
    out = tmp_path / "out"
    for moment in (lambda: staged(out) >= 8, lambda: any(out.glob("tags/*")) or any(out.glob("tags/.*"))):
        process = Forked(tmp_path / "printed", tag, many, "-o", out, *small)
        assert process.wait_for(moment), process.printed()
        rays = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        assert process.ends() == -signal.SIGKILL
        psutil.wait_procs(rays, timeout=60)  # what a worker publishes meanwhile, the next run would tag again
    done = satpipe_here("tag", many, "-o", out, *small)
    assert done.returncode == 3, done.stderr
    assert_same_tables(out, many_undisturbed)
    assert "tagged " not in done.stdout or tagged_s(done.stdout) < 720  # not all of it again


@pytest.mark.slow
def test_the_same_command_continues_a_run_that_was_stopped(
    many: Path, many_undisturbed: Path, satpipe_here: Satpipe, small: Options, tmp_path: Path
) -> None:
    """By Ctrl-C and by SIGTERM."""
    out = tmp_path / "out"
    for number, code, files in ((signal.SIGINT, 130, 4), (signal.SIGTERM, 143, 12)):
        process = subprocess.Popen(
            [str(COMMAND), *map(str, ("tag", many, "-o", out, *small))],
            start_new_session=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 120
        while staged(out) < files and time.monotonic() < deadline:
            time.sleep(0.01)
        os.kill(process.pid, number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == code, stderr
        assert stderr.strip().splitlines()[-1] == "stopped; run the same command again to continue"
        assert "***" not in stderr, "the stack trace of Ray's own handler"
    done = satpipe_here("tag", many, "-o", out, *small)
    assert done.returncode == 3, done.stderr
    assert_same_tables(out, many_undisturbed)
    assert "tagged " not in done.stdout or tagged_s(done.stdout) < 720  # not all of it again


@pytest.mark.slow
def test_workers_killed_again_and_again_change_nothing(
    many: Path, many_undisturbed: Path, satpipe_here: Satpipe, small: Options, tmp_path: Path
) -> None:
    out, rng, killed = tmp_path / "out", random.Random(3), []

    def at_work() -> list[psutil.Process]:
        """The workers of this process's Ray that run a task."""
        found = []
        for process in psutil.Process().children(recursive=True):
            try:
                if process.cmdline()[:1] and process.cmdline()[0].startswith("ray::_call"):
                    found.append(process)
            except psutil.Error:
                pass
        return found

    def kill() -> None:
        deadline = time.monotonic() + 120
        while len(killed) < 4 and time.monotonic() < deadline:
            workers = at_work() if staged(out) >= 8 * len(killed) else []
            for process in rng.sample(workers, 1) if workers and len(killed) < 3 else workers:
                process.kill()
                killed.append(process.pid)
            time.sleep(0.01)

    killer = Thread(target=kill)
    killer.start()
    done = satpipe_here("tag", many, "-o", out, *small)
    killer.join()
    assert len(killed) >= 4
    assert done.returncode == 3, done.stderr
    assert_same_tables(out, many_undisturbed)


@pytest.mark.slow
def test_a_joined_deployment_that_is_killed_goes_on_where_it_was(many: Path, small: Options, tmp_path: Path) -> None:
    """Its files are no spans' ends: what is staged lies across them."""
    sound, rate_hz = soundfile.read(many / "000.wav", dtype="int16")
    night = tmp_path / "night"
    night.mkdir()
    for number, part in enumerate(np.array_split(sound, 5)):  # of 72 s each
        at = datetime(2026, 5, 1, 23, 58) + timedelta(seconds=72 * number)
        soundfile.write(night / f"{at:%Y%m%d_%H%M%S}.wav", part, rate_hz)
    arguments = (night, *small, "--join", "-o")
    printed = tmp_path / "printed"
    assert Forked(printed, tag_without_ray, *arguments, tmp_path / "undisturbed").ends() == 0
    out = tmp_path / "out"
    process = Forked(printed, tag_without_ray, *arguments, out)
    assert process.wait_for(lambda: staged(out) >= 6)
    process.kill()
    assert process.ends() == -signal.SIGKILL
    assert not list(out.glob("recordings/*.parquet"))
    process = Forked(printed, tag_without_ray, *arguments, out)
    assert process.ends() == 0, process.printed()
    assert "joined: 5 files to 1 deployment" in process.printed()
    assert_same_tables(out, tmp_path / "undisturbed")
    assert tagged_s(process.printed()) < 360  # not all of it again


@pytest.fixture
def unlucky(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Workers that recordings bring down, until the function is called."""
    ray.cloudpickle.register_pickle_by_value(unlucky_workers)  # the workers cannot import it
    for name in ("probe_batch", "tag_and_stage"):
        monkeypatch.setattr(run, name, getattr(unlucky_workers, name))
    yield monkeypatch.undo
    ray.cloudpickle.unregister_pickle_by_value(unlucky_workers)


@pytest.mark.slow
def test_recordings_that_bring_their_worker_down_cost_no_other_anything(
    satpipe_here: Satpipe, unlucky: Callable[[], None], small: Options, tmp_path: Path
) -> None:
    folder = make_recordings(tmp_path / "in", 6, 9)
    good, out = tmp_path / "good", tmp_path / "out"
    assert satpipe_here("tag", folder, "-o", good, *small).returncode == 0
    bad = [f"000-{stage}-{what}.wav" for stage in ("probe", "tag") for what in ("crash", "error")]
    for name in bad:
        shutil.copy(folder / "003.wav", folder / name)
    done = satpipe_here("tag", folder, "-o", out, *small)
    assert done.returncode == 3, done.stderr
    table = recordings(out)
    assert dict(table.status[bad]) == dict.fromkeys(bad, "worker died")
    assert (table.chunks[bad] == 0).all()
    assert table.reason["000-probe-error.wav"] == "MemoryError: no more"
    ours, theirs = (each.drop(columns="run_id") for each in (table.drop(bad), recordings(good)))
    pd.testing.assert_frame_equal(ours, theirs, check_dtype=False)
    pd.testing.assert_frame_equal(
        scores(out)[["recording", "chunk", "end_s"]], scores(good)[["recording", "chunk", "end_s"]]
    )
    unlucky()  # the decoder is repaired
    again = satpipe_here("tag", folder, "-o", out, *small, "--retry-failed")
    assert again.returncode == 0, again.stderr
    assert (recordings(out).status == "ok").all()
    assert len(recordings(out)) == 10


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended() -> None:
    program = (
        "import sys, time\nfrom satpipe.pipeline.recordings.probing import deadline\n"
        "with deadline({}): time.sleep({})\nprint('out')"
    )
    done = [
        subprocess.run([sys.executable, "-c", program.format(*times)], capture_output=True, text=True, timeout=60)
        for times in ((0.5, 50), (50, 0.5))
    ]
    assert [each.returncode for each in done] == [1, 0]
    assert [each.stdout for each in done] == ["", "out\n"]


def tag_with_little_memory(environment: dict[str, str], *arguments: object) -> int:
    os.environ.update(environment)
    ray.cloudpickle.register_pickle_by_value(unlucky_workers)
    run.probe_batch = unlucky_workers.probe_batch
    return tag(*arguments)


@pytest.mark.slow
def test_a_recording_that_takes_too_much_memory_costs_no_other_anything(small: Options, tmp_path: Path) -> None:
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    used = 1 - memory["MemAvailable"] / memory["MemTotal"]
    room_kb = min(5e6, memory["MemAvailable"] / 2)  # other tests, which run beside this one, take some of it
    limit = {
        "RAY_memory_usage_threshold": f"{used + room_kb / memory['MemTotal']:.4f}",
        "RAY_memory_monitor_refresh_ms": "50",
    }
    folder, out = make_recordings(tmp_path / "in", 3, 9), tmp_path / "out"
    shutil.copy(folder / "001.wav", folder / "probe-hog.wav")
    process = Forked(tmp_path / "printed", tag_with_little_memory, limit, folder, "-o", out, *small)
    assert process.ends() == 3, process.printed()
    table = recordings(out)
    assert dict(table.status) == {"000.wav": "ok", "001.wav": "ok", "002.wav": "ok", "probe-hog.wav": "worker died"}
    assert "memory" in table.reason["probe-hog.wav"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="run as root, who may mount a small disk")
def test_a_full_disk_is_a_clear_error_and_the_run_continues_when_there_is_room(
    many: Path, many_undisturbed: Path, satpipe_here: Satpipe, small: Options, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("run where a tmpfs can be mounted")
    try:
        done = satpipe_here("tag", many, "-o", disk / "out", *small)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.strip().splitlines()[-1]) < 200
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = satpipe_here("tag", many, "-o", disk / "out", *small)
        assert done.returncode == 3, done.stderr
        assert_same_tables(disk / "out", many_undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
def test_a_cluster_loses_a_node_and_gets_another(
    many: Path, many_undisturbed: Path, small: Options, tmp_path: Path
) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        out = tmp_path / "out"
        process = Forked(tmp_path / "printed", tag, many, "-o", out, *small, "--address", cluster.address, fresh=True)
        assert process.wait_for(lambda: staged(out) >= 10), process.printed()
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        assert process.ends() == 3, process.printed()
        assert_same_tables(out, many_undisturbed)
    finally:
        cluster.shutdown()
