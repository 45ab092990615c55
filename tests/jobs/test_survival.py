"""Whatever happens on the way, the tables come out the same."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from conftest import COMMAND, Satpipe
from tag_tables import assert_same_tables, make_recordings, recordings, scores

SPAN_S = 30


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings short and long: 72 units of work."""
    folder = make_recordings(tmp_path_factory.mktemp("recordings"), 30, 50)
    make_recordings(folder / "long", 2, 640)
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path, satpipe: Satpipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert satpipe("tag", folder, "-o", out, "--span-s", SPAN_S).returncode == 3
    return out


def start(
    folder: Path | str, out: Path | str, *options: object, env: dict[str, str] | None = None
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [str(COMMAND), "tag", str(folder), "-o", str(out), "--span-s", str(SPAN_S), *map(str, options)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **(env or {})},
    )


def wait_for(process: "subprocess.Popen[str]", condition: Callable[[], bool], timeout_s: float = 120) -> bool:
    """Wait until the condition holds, and say so; False when the process ended before."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        if process.poll() is not None:
            return False
        time.sleep(0.002)
    raise TimeoutError(f"nothing happened in {timeout_s} s")


def staged(out: Path) -> int:
    return len(list(out.glob("_staged/[!.]*.parquet")))


def being_written(out: Path, table: str) -> bool:
    return any(out.glob(f"{table}/.*"))


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    """Ray's worker processes of this run that are at work."""
    listed = subprocess.run(["ps", "-eo", "pid,sid,args"], capture_output=True, text=True, check=True).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()[1:]]
    return [int(pid) for pid, sid, args in rows if int(sid) == process.pid and args.startswith("ray::_call")]


def some_moment(out: Path, rng: random.Random) -> Callable[[], bool]:
    """A moment to kill a run at: after a while, after some work, or in the middle of a write."""
    end, enough = time.monotonic() + rng.uniform(0.5, 9), staged(out) + rng.randint(1, 25)
    moments: list[Callable[[], bool]] = [
        lambda: time.monotonic() > end,
        lambda: staged(out) >= enough,
        lambda: being_written(out, "_staged"),
        lambda: being_written(out, "tags"),
        lambda: being_written(out, "scores"),
        lambda: being_written(out, "recordings"),
        lambda: any(out.glob("recordings/*.parquet")),
    ]
    return rng.choice(moments)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_kills_at_any_moment_change_nothing(
    folder: Path, undisturbed: Path, satpipe: Satpipe, tmp_path: Path
) -> None:
    rng = random.Random(2)
    kills = inside_a_write = finished = 0
    out = tmp_path / "out0"
    while kills < 20 or not finished:
        moment = some_moment(out, rng)
        process = start(folder, out)
        if wait_for(process, moment):
            os.killpg(process.pid, signal.SIGKILL)
            kills += 1
        process.communicate()
        if any(out.glob("*/.*.parquet.*")):
            inside_a_write += 1
        if process.returncode == 3:
            assert_same_tables(out, undisturbed)
            finished += 1
            out = tmp_path / f"out{finished}"
    print(f"{kills} kills, {inside_a_write} left a file half written, {finished} runs finished")
    if staged(out) or any(out.glob("recordings/*.parquet")):
        assert satpipe("tag", folder, "-o", out, "--span-s", SPAN_S).returncode == 3
        assert_same_tables(out, undisturbed)
    assert inside_a_write >= 1


@pytest.mark.slow
def test_workers_killed_again_and_again_change_nothing(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(folder, out)
    rng = random.Random(3)
    for number in range(1, 6):
        if not wait_for(process, lambda least=10 * number: staged(out) >= least and bool(workers_of(process))):
            break
        for pid in rng.sample(workers_of(process), 1) if number < 5 else workers_of(process):
            os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert number >= 4
    assert process.returncode == 3
    assert_same_tables(out, undisturbed)


@pytest.mark.slow
def test_a_joined_deployment_that_is_killed_goes_on_where_it_was(
    folder: Path, satpipe: Satpipe, tmp_path: Path
) -> None:
    """Its files are no spans' ends: what is staged lies across them."""
    sound, rate_hz = soundfile.read(folder / "long" / "000.wav", dtype="int16")
    night = tmp_path / "night"
    night.mkdir()
    for number, part in enumerate(np.array_split(sound, 5)):  # of 128 s each
        at = datetime(2026, 5, 1, 23, 58) + timedelta(seconds=128 * number)
        soundfile.write(night / f"{at:%Y%m%d_%H%M%S}.wav", part, rate_hz)
    arguments = ("tag", night, "--span-s", SPAN_S, "--join", "-o")
    done = satpipe(*arguments, tmp_path / "undisturbed")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out"
    process = start(night, out, "--join")
    assert wait_for(process, lambda: staged(out) >= 6)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not list(out.glob("recordings/*.parquet"))
    done = satpipe(*arguments, out)
    assert done.returncode == 0, done.stderr
    assert "joined: 5 files to 1 deployment" in done.stdout
    assert_same_tables(out, tmp_path / "undisturbed")
    assert float(done.stdout.split("tagged ")[1].split(" h")[0]) < 640 / 3600  # not all of it again


def crashing(tmp_path: Path, code: str) -> dict[str, str]:
    """Environment in which opening a recording whose name has "poison" in it runs `code` in the worker."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "class Hook:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'satpipe.pipeline.tagging.run':\n"
        "            sys.meta_path.remove(self)\n"
        "            import soundfile\n"
        "            init = soundfile.SoundFile.__init__\n"
        "            def opened(self, file, *args, **kwargs):\n"
        "                name = os.readlink(f'/proc/self/fd/{file}') if isinstance(file, int) else str(file)\n"
        "                if 'poison' in name:\n"
        f"                    {code}\n"
        "                init(self, file, *args, **kwargs)\n"
        "            soundfile.SoundFile.__init__ = opened\n"
        "sys.meta_path.insert(0, Hook())\n"
    )
    return {"PYTHONPATH": str(tmp_path / "site")}


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    ["os.kill(os.getpid(), signal.SIGSEGV)", "raise MemoryError('no more')"],
    ids=["crash", "memory"],
)
def test_a_recording_that_brings_its_worker_down_costs_no_other_anything(
    satpipe: Satpipe, tmp_path: Path, code: str
) -> None:
    folder = make_recordings(tmp_path / "in", 6, 20)
    good = tmp_path / "good"
    assert satpipe("tag", folder, "-o", good).returncode == 0
    shutil.copy(folder / "003.wav", folder / "000-poison.wav")
    out = tmp_path / "out"
    done = satpipe("tag", folder, "-o", out, env=crashing(tmp_path, code))
    assert done.returncode == 3, done.stderr
    table = recordings(out)
    assert table.status["000-poison.wav"] == "worker died"
    assert table.chunks["000-poison.wav"] == 0
    pd.testing.assert_frame_equal(table.drop("000-poison.wav"), recordings(good), check_dtype=False)
    pd.testing.assert_frame_equal(
        scores(out)[["recording", "chunk", "end_s"]], scores(good)[["recording", "chunk", "end_s"]]
    )
    again = satpipe("tag", folder, "-o", out, "--retry-failed")  # the decoder is mended
    assert again.returncode == 0, again.stderr
    assert (recordings(out).status == "ok").all()
    assert len(recordings(out)) == 7


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


@pytest.mark.slow
def test_a_recording_that_takes_too_much_memory_costs_no_other_anything(satpipe: Satpipe, tmp_path: Path) -> None:
    memory = {line.split(":")[0]: int(line.split()[1]) for line in Path("/proc/meminfo").read_text().splitlines()}
    used = 1 - memory["MemAvailable"] / memory["MemTotal"]
    room_kb = min(5e6, memory["MemAvailable"] / 2)  # other tests, which run beside this one, take some of it
    limit = {
        "RAY_memory_usage_threshold": f"{used + room_kb / memory['MemTotal']:.4f}",
        "RAY_memory_monitor_refresh_ms": "50",
    }
    folder = make_recordings(tmp_path / "in", 3, 20)
    shutil.copy(folder / "001.wav", folder / "poison.wav")
    hog = "import time; hoard = []; [(hoard.append(bytearray(b'x' * 2**26)), time.sleep(0.02)) for _ in range(160)]"
    done = satpipe("tag", folder, "-o", tmp_path / "out", env=crashing(tmp_path, hog) | limit)
    assert done.returncode == 3, done.stderr
    table = recordings(tmp_path / "out")
    assert dict(table.status) == {"000.wav": "ok", "001.wav": "ok", "002.wav": "ok", "poison.wav": "worker died"}
    assert "memory" in table.reason["poison.wav"]


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="run as root: the test mounts a tmpfs")
def test_a_full_disk_is_a_clear_error_and_the_run_continues_when_there_is_room(
    folder: Path, undisturbed: Path, satpipe: Satpipe, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("run where a tmpfs can be mounted, such as in a privileged container")
    try:
        done = satpipe("tag", folder, "-o", disk / "out", "--span-s", SPAN_S)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert len(done.stderr.strip().splitlines()[-1]) < 200
        subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
        done = satpipe("tag", folder, "-o", disk / "out", "--span-s", SPAN_S)
        assert done.returncode == 3, done.stderr
        assert_same_tables(disk / "out", undisturbed)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_cluster_loses_a_node_and_gets_another(folder: Path, undisturbed: Path, tmp_path: Path) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        doomed = cluster.add_node(num_cpus=1)
        out = tmp_path / "out"
        process = start(folder, out, "--address", cluster.address)
        assert wait_for(process, lambda: staged(out) >= 10)
        cluster.remove_node(doomed, allow_graceful=False)
        cluster.add_node(num_cpus=1)
        _, stderr = process.communicate(timeout=200)
        assert process.returncode == 3, stderr
        assert_same_tables(out, undisturbed)
    finally:
        cluster.shutdown()
