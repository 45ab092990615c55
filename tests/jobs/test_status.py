"""`satpipe status` as a monitor uses it, the heartbeat that it reads, and logs in JSON."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from forked import Forked
from outputs import RUN, scores_of, write_output
from satpipe.pipeline.recordings.probing import probe_batch
from satpipe.pipeline.tables.files import PROGRESS
from satpipe.pipeline.tagging import heartbeat, run
from tag_tables import make_recordings
from without_ray import main, satpipe, without_ray

FAST_S = 0.05


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings, and a file that is none."""
    folder = make_recordings(tmp_path_factory.mktemp("in"), 2, 3)
    (folder / "bad.wav").write_text("no sound")
    return folder


@pytest.fixture(scope="module")
def tagged(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    """The output folder of a run, and the lines of its log in JSON."""
    out = tmp_path_factory.mktemp("tagged") / "out"
    done = satpipe("tag", folder, "-o", out, "--log-format", "json", "-q")
    assert (done.returncode, done.stdout) == (3, "")
    return out, [json.loads(line) for line in done.stderr.splitlines()]


@pytest.fixture
def out(tagged: tuple[Path, list[dict[str, Any]]], tmp_path: Path) -> Path:
    """A copy of that folder, with its times."""
    return Path(shutil.copytree(tagged[0], tmp_path / "out"))


def status(out: Path | str, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the JSON of `satpipe status`."""
    done = satpipe("status", out, "--json", *arguments)
    return done.returncode, json.loads(done.stdout)


def change(path: Path, **values: Any) -> None:
    """Change values of a JSON file; None removes them."""
    content = json.loads(path.read_text()) | values
    path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))


def age(path: Path, by: timedelta) -> None:
    """Let a file have been written earlier."""
    then = (datetime.now(UTC) - by).timestamp()
    os.utime(path, (then, then))


def test_the_state_of_a_run_is_json_and_its_exit_code_is_that_of_the_run(out: Path) -> None:
    code, state = status(out)
    assert (code, state["exit_code"], state["state"]) == (3, 3, "finished")
    assert state["run"]["recordings"] == state["tables"]["recordings"] == {"ok": 2, "unreadable": 1}
    [failure] = state["failures"]
    assert (failure["status"], failure["recordings"]) == ("unreadable", 1)
    assert failure["reason"].startswith("not audio")
    assert state["run"]["done_hours"] == state["tables"]["hours"] == round(6 / 3600, 4)
    assert state["run"]["x_realtime"] > 0
    assert 0 <= state["age_s"] < 600
    assert satpipe("status", out).returncode == 3
    assert "unreadable: not audio" in satpipe("status", out).stdout


def test_tables_that_are_too_old_have_a_code_of_their_own(out: Path) -> None:
    assert [status(out, "--max-age", limit)[0] for limit in ("26h", "1d", "90m")] == [3, 3, 3]
    now = datetime.now(UTC)
    change(out / "run.json", finished=(now - timedelta(hours=27)).isoformat(timespec="seconds"))
    code, state = status(out, "--max-age", "26h")
    assert (code, round(state["age_s"] / 3600)) == (4, 27)
    assert satpipe("status", out, "--max-age", "26h").stdout.endswith("\nolder than --max-age 26h\n")
    assert status(out, "--max-age", "1.5d")[0] == 3
    change(out / "run.json", finished=(now + timedelta(days=300)).isoformat(timespec="seconds"))  # by a wrong clock
    age(out / "run.json", timedelta(hours=27))  # by the file system
    assert status(out, "--max-age", "26h")[0] == 4
    change(out / "run.json", finished="once")
    assert status(out, "--max-age", "9999d")[0] == 4
    for wrong in ("26", "h", "-1h", "1 week"):
        done = satpipe("status", out, "--max-age", wrong)
        assert (done.returncode, "such as 90s, 30m, 26h or 2d" in done.stderr) == (1, True)


def test_all_is_well_only_if_all_is_tagged_and_was_searched(tmp_path: Path, out: Path) -> None:
    write_output(tmp_path / "well", {"a.wav": scores_of(2)})
    assert status(tmp_path / "well")[0] == 0
    done = write_output(tmp_path / "empty", {"a.wav": scores_of(0)})
    assert status(done.folder)[0] == 3
    code, state = status(write_output(tmp_path / "open", {"a.wav": scores_of(2)}, run={**RUN, "finished": ""}).folder)
    assert (code, state["state"], state["age_s"]) == (0, "finished", None)
    unfinished = {name: value for name, value in RUN.items() if name != "finished"}
    code, state = status(write_output(tmp_path / "not", {"a.wav": scores_of(2)}, run=unfinished).folder)
    assert (code, state["state"]) == (1, "not finished")
    assert satpipe("status", tmp_path / "nothing", "--json").returncode == 1


def test_a_progress_file_that_satpipe_has_not_written_is_refused(out: Path) -> None:
    for content in ("{", "[]", "{}", json.dumps({"run_id": 1})):
        (out / PROGRESS).write_text(content)
        done = satpipe("status", out)
        assert (done.returncode, PROGRESS in done.stderr) == (1, True), content
    (out / PROGRESS).unlink()  # as in tables of an earlier version
    assert status(out)[1]["state"] == "finished"


def tag_slowly(started: Path, *arguments: object) -> int:
    """Run `satpipe tag` without Ray, with a fast heartbeat; from its first file on, it waits until it is killed."""

    def wait(sources: list[Any], *rest: Any) -> Any:
        started.touch()
        threading.Event().wait(100)
        return probe_batch(sources, *rest)

    heartbeat.EVERY_S = FAST_S
    run.probe_batch = wait
    with without_ray():
        return main("tag", *arguments)


@pytest.fixture
def slow(folder: Path, tmp_path: Path) -> Iterator[Callable[[], Forked]]:
    """Start a run that does not end; ended after the test."""
    runs = []

    def start() -> Forked:
        begun, printed = tmp_path / f"begun{len(runs)}", tmp_path / "printed"
        process = Forked(printed, tag_slowly, begun, folder, "-o", tmp_path / "slow", "--retry-failed")
        runs.append(process)
        assert process.wait_for(begun.exists), process.printed()
        return process

    yield start
    for process in runs:
        if process.alive:
            process.kill()
            process.ends()


@pytest.mark.slow
def test_a_run_is_seen_while_it_is_on_and_when_it_was_stopped_or_killed(
    slow: Callable[[], Forked], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out, process = tmp_path / "slow", slow()
    beat = json.loads((out / PROGRESS).read_text())
    code, state = status(out)
    assert (code, state["state"], state["run"]["files"]) == (0, "running", 3)
    assert process.wait_for(lambda: json.loads((out / PROGRESS).read_text())["number"] > beat["number"] + 1)
    assert status(out, "--max-age", "1h")[0] == 0
    assert process.wait_for(lambda: json.loads((out / PROGRESS).read_text())["idle_s"] > 0)
    assert status(out, "--max-age", "0s")[0] == 4  # without progress for longer

    for name, value in (("PATIENCE_S", 20 * FAST_S), ("WATCH_EVERY_S", FAST_S), ("SURELY_OVER_S", 3600)):
        monkeypatch.setattr(heartbeat, name, value)
    elsewhere = tmp_path / "elsewhere"  # a copy without its lock, as another machine may see the folder
    elsewhere.mkdir()
    for name in ("run.json", PROGRESS):
        (elsewhere / name).symlink_to(out / name)
    monkeypatch.setattr(heartbeat, "_machine", lambda: "another")
    assert status(elsewhere)[1]["state"] == "running"  # written a moment ago
    real_s = heartbeat.time()
    for wrong_s in (-7200, 1800):  # the clock of this machine differs from that of the store
        monkeypatch.setattr(heartbeat, "time", lambda wrong_s=wrong_s: real_s + wrong_s)
        assert status(elsewhere)[1]["state"] == "running", wrong_s  # since its number goes up

    process.kill(signal.SIGKILL)
    process.ends()
    for wrong_s in (-7200, 1800, 7200):
        monkeypatch.setattr(heartbeat, "time", lambda wrong_s=wrong_s: real_s + wrong_s)
        assert status(elsewhere)[1]["state"] == "died", wrong_s
    monkeypatch.undo()
    code, state = status(out)
    assert (code, state["state"]) == (1, "died")  # at once: the lock is free, on the same machine
    assert "; the same command continues" in satpipe("status", out).stdout

    process = slow()
    process.kill(signal.SIGTERM)
    assert process.ends() == 143
    code, state = status(out)
    assert (code, state["state"]) == (1, "stopped")


def test_a_heartbeat_that_cannot_be_written_is_told_once_and_disturbs_nothing(
    folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / PROGRESS).unlink()
    (out / PROGRESS).mkdir()
    monkeypatch.setattr(heartbeat, "EVERY_S", 0.01)
    done = satpipe("tag", folder, "-o", out, "--retry-failed")
    assert done.returncode == 3
    assert done.stderr.count(f"{PROGRESS} cannot be written") == 1
    (log,) = {path for path in (out / "log").iterdir() if "--retry-failed" in path.read_text()}
    assert f"{PROGRESS} cannot be written" in log.read_text()


def test_a_run_that_another_one_has_replaced_leaves_the_heartbeat_alone(tmp_path: Path) -> None:
    notes: list[str] = []
    with heartbeat.Heartbeat(tmp_path, "first", [], notes.append), heartbeat.Heartbeat(tmp_path, "second", [], print):
        pass
    beat = heartbeat.read_beat(tmp_path)
    assert beat is not None
    assert (beat.run_id, beat.state, notes) == ("second", "finished", [])


def test_a_log_in_json_has_a_line_for_each_event(
    folder: Path, tagged: tuple[Path, list[dict[str, Any]]], out: Path
) -> None:
    _, lines = tagged
    run_id = json.loads((out / "run.json").read_text())["id"]
    assert {line["run_id"] for line in lines} == {run_id}
    events = [line["event"] for line in lines]
    assert (events[0], events[-1]) == ("run_started", "run_finished")
    assert sorted(events[1:-1]) == ["recording_failed", "recording_finished", "recording_finished"]
    [failed] = [line for line in lines if line["event"] == "recording_failed"]
    assert (failed["recording"], failed["status"], failed["level"]) == ("bad.wav", "unreadable", "warning")
    assert lines[-1]["recordings"] == {"ok": 2, "unreadable": 1}
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    again = satpipe("tag", folder, "-o", out, "--log-format", "json", "--retry-failed")
    lines = [json.loads(line) for line in again.stderr.splitlines()]
    assert [line["event"] for line in lines] == ["run_started", "recording_retried", "recording_failed", "run_finished"]
    assert lines[0]["run_id"] != run_id
    refused = satpipe("tag", folder, "-o", out, "--log-format", "json", "--top-k", 3)
    [line] = [json.loads(line) for line in refused.stderr.splitlines()]
    assert (refused.returncode, line["level"], "another top_k" in line["message"]) == (1, "error", True)
