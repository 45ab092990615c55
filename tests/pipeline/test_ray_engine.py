"""Starting and joining Ray. Tests of `satpipe tag` cover its tasks."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import private_ray
import pytest
import ray
from forked import Forked
from satpipe.pipeline import local_ray, ray_engine
from satpipe.sat.errors import ConfigError


def test_if_ray_does_not_start_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # the class that Ray raises

    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with (
        pytest.raises(ConfigError, match=r"not be started: .* timed out during startup\. .* use fewer --workers"),
        ray_engine.start(None, 1, "cpu"),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"no Ray cluster answers at auto: .* timed out"),
        ray_engine.start("auto", 1, "cpu"),
    ):
        pass


@pytest.mark.slow
def test_a_ray_of_this_machine_is_closed_and_needs_neither_home_nor_a_short_tmpdir(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    monkeypatch.setenv("HOME", "/proc/none")
    process = Forked(tmp_path / "printed", private_ray.describe, tmp_path / "seen", fresh=True)
    assert process.ends() == 0, process.printed()
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["results"] == [["sum", 3]]
    assert {address.removeprefix("::ffff:") for address in seen["listening"]} == {"127.0.0.1"}
    assert not seen["folder"].startswith(str(long))
    assert seen["mode"] == "0o700"
    assert (seen["folder_left"], seen["left"]) == (False, [])
    assert seen["monitors"] == []
    assert seen["token"] == "token"
    assert not [name for name in seen["added"] if name.startswith("RAY_")]


@pytest.mark.slow
def test_runs_of_a_process_share_a_ray_that_ends_with_it(tmp_path: Path) -> None:
    process = Forked(tmp_path / "printed", private_ray.use_again_and_again, tmp_path / "seen", fresh=True)
    assert process.ends() == 0, process.printed()
    seen = json.loads((tmp_path / "seen").read_text())
    assert seen["addresses"][0] == seen["addresses"][1]
    assert seen["niceness"] == [5, 5]  # of a worker, and of the process
    assert seen["kept"]  # the Ray that the user has started after ending this one


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
    yield folder
    shutil.rmtree(folder)


def test_files_of_ray_stay_in_the_folder_that_its_variable_names(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(short / "new"))
    monkeypatch.setenv("TMPDIR", str(short))
    with local_ray.folder() as folder:
        assert Path(folder).parent == short / "new"
    assert Path(folder).exists()
    (short / "new").rename(short / "moved")
    (short / "new").touch()  # not a folder
    with local_ray.folder() as folder:
        assert Path(folder).parent == short
    assert not Path(folder).exists()


def test_without_a_folder_for_its_files_the_error_names_each_that_was_tried(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_TMPDIR", "/proc/none")
    monkeypatch.setenv("TMPDIR", "/tmp/" + "x" * 100)
    monkeypatch.setattr(local_ray, "MIN_FREE_BYTES", 2**60)
    with (
        pytest.raises(
            ConfigError, match=r"/proc/none: No such .*x: its path is longer than .* /tmp: only .* set RAY_TMP"
        ),
        local_ray.folder(),
    ):
        pass


def test_a_token_that_the_user_has_chosen_stays(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as chosen:
        chosen.setenv("RAY_AUTH_TOKEN_PATH", str(short / "token"))
        chosen.setenv("RAY_AUTH_MODE", "disabled")
        with local_ray.private():
            assert (os.environ["RAY_AUTH_MODE"], "RAY_AUTH_TOKEN" in os.environ) == ("disabled", False)
    with local_ray.private():
        assert os.environ["RAY_AUTH_MODE"] == "token"
    assert "RAY_AUTH_TOKEN" not in os.environ


def test_a_process_that_uses_a_ray_joins_no_other(ray_here: None) -> None:
    used = ray.get_runtime_context().gcs_address
    for address in (None, "auto", used):
        with ray_engine.start(address, 1, "cpu") as engine:
            assert (engine.width, engine.window) == (1, 1)  # two tasks would both run: this Ray has two processors
    with ray_engine.start(None, None, "cpu") as engine:
        assert (engine.width, engine.window) == (2, 4)
    other = f"127.0.0.1:{int(used.rpartition(':')[2]) + 1}"
    for address in (other, "no-such-host.invalid:6379"):
        with (
            pytest.raises(ConfigError, match=rf"already uses the Ray at {used}, not the one at {address}: omit"),
            ray_engine.start(address, 1, "cpu"),
        ):
            pass
    assert ray.is_initialized()
