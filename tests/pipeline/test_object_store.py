"""`satpipe tag` from and to an object store: a real S3 server on loopback."""

import asyncio
import json
import os
import platform
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import without_ray
from audio import noise, write
from conftest import Satpipe
from encoded import encode
from forked import Forked
from object_store import download, in_store, object_store
from outputs import RUN, scores_of, write_output
from s3fs import S3FileSystem
from satpipe.pipeline.recordings.decode import Reader, probe
from satpipe.pipeline.recordings.find import Search
from satpipe.pipeline.tables.compact import compact
from satpipe.pipeline.tables.dataframes import read_scores, read_tags
from satpipe.pipeline.tagging import heartbeat
from satpipe.sat.errors import OutputError
from tag_tables import assert_same_tables, make_recordings
from upath import UPath

BUCKET = "s3://recordings"


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An empty bucket; the environment leads to it."""
    with object_store("recordings"):
        yield BUCKET


def bucket(name: str) -> UPath:
    return in_store(f"{BUCKET}/{name}")


def tag_in_store(environment: dict[str, str], *arguments: object) -> int:
    """Run `satpipe tag` without Ray in a process of its own."""
    os.environ.update(environment)
    return without_ray.satpipe("tag", *arguments).returncode


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_tables_from_a_store_to_a_store_are_those_of_the_folder(satpipe: Satpipe, store: str, tmp_path: Path) -> None:
    folder = make_recordings(tmp_path / "in", 4, 9)
    make_recordings(folder / "long", 1, 50)
    (folder / "bad.wav").write_text("no audio")
    for path in folder.rglob("*.wav"):
        bucket(f"in/{path.relative_to(folder).as_posix()}").write_bytes(path.read_bytes())
    local = tmp_path / "local"
    options = ("--span-s", 10, "--embeddings")
    assert without_ray.satpipe("tag", folder, "-o", local, *options).returncode == 3

    source, target = f"{store}/in", f"{store}/out"
    aws = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    process = Forked(tmp_path / "printed", tag_in_store, aws, source, "-o", target, *options)
    staged = bucket("out/_staged")
    assert process.wait_for(lambda: len(list(staged.glob("*.parquet"))) >= 3, every_s=0.2), process.printed()
    monitor = without_ray.satpipe("status", target, "--json")
    state = json.loads(monitor.stdout)
    assert (state["state"], state["run"]["files"], state["host"]) == ("running", 6, platform.node())
    assert "started: satpipe tag" in state["log"]  # which is not in the store yet
    process.kill()
    assert process.ends() == -signal.SIGKILL
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat, "PATIENCE_S", 0.1)  # no other heartbeat comes
        patch.setattr(heartbeat, "WATCH_EVERY_S", 0.05)
        assert without_ray.satpipe("status", target).stdout.startswith(f"died on {platform.node()}, last seen 2")
    done = satpipe("tag", source, "-o", target, *options)
    assert done.returncode == 3, done.stderr
    assert_same_tables(download(f"{BUCKET}/out", tmp_path / "remote"), local, same_files=False)
    assert pd.read_parquet(f"{target}/tags", storage_options={"skip_instance_cache": True}).shape[0] > 0
    assert [path.name for path in bucket("out/_staged").glob("*")] == []

    assert without_ray.satpipe("status", target, "--max-age", "1h").returncode == 3
    again = without_ray.satpipe("tag", source, "-o", target, *options)
    assert again.returncode == 3
    assert "to tag: 0" in again.stdout

    assert without_ray.satpipe("status", target, "--check").returncode == 0
    lost = next(iter(bucket("out/scores").glob("*.parquet")))
    lost.unlink()
    check = without_ray.satpipe("status", target, "--check")
    assert (check.returncode, check.stdout.splitlines()[0].startswith(f"{lost} is missing")) == (3, True)
    again = without_ray.satpipe("tag", source, "-o", target, *options)
    assert f"damaged: {lost} is missing" in again.stdout
    assert_same_tables(download(f"{BUCKET}/out", tmp_path / "repaired"), local, same_files=False)


def test_what_does_not_exist_is_one_clear_line(store: str, tmp_path: Path) -> None:
    for source, text in [
        (f"{store}/nothing", "no recordings in"),
        (f"{store}/nothing.wav", "no recordings in"),
        ("s3://no-bucket-of-that-name/x", "s3://no-bucket-of-that-name/x"),
        ("ftpx://host/x", "ftpx:// is not a known scheme"),
    ]:
        done = without_ray.satpipe("tag", source, "-o", tmp_path / "out")
        assert (done.returncode, text in done.stderr) == (1, True), (source, done.stderr)
        assert len(done.stderr.strip().splitlines()) == 1


@pytest.fixture
def refusing() -> Iterator[str]:
    """The address of a store that refuses all."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(403)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_GET  # noqa: N815

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("keys", "answers", "reason"),
    [
        ("testing", False, "Could not connect to the endpoint URL"),
        ("testing", True, "Forbidden"),
        ("", True, "Unable to locate credentials"),
    ],
)
def test_a_store_that_does_not_let_us_in_is_one_clear_line(
    refusing: str, keys: str, answers: bool, reason: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", refusing if answers else "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    folder = make_recordings(tmp_path / "in", 1, 1)
    for source, out in [(folder, "s3://bucket/out"), ("s3://bucket/in", tmp_path / "out")]:
        done = without_ray.satpipe("tag", source, "-o", out)
        assert (done.returncode, "Check the address" in done.stderr) == (1, True), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "s3://bucket/" in done.stderr
    assert reason in without_ray.satpipe("status", "s3://bucket/out").stderr
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, list[str]]]:
    """A web server for `tmp_path`; its address, and the ranges it was asked for."""
    from aiohttp import web

    asked: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve(request: web.Request) -> web.FileResponse:
        asked.append(request.headers.get("Range", ""))
        return web.FileResponse(tmp_path / request.match_info["path"])

    async def begin() -> web.AppRunner:
        application = web.Application()
        application.router.add_get("/{path:.*}", serve)
        runner = web.AppRunner(application)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}", asked
    asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def test_a_recording_is_read_over_http_in_ranges(web: tuple[str, list[str]], tmp_path: Path) -> None:
    address, asked = web
    make_recordings(tmp_path / "in", 1, 600)
    [local], [remote] = Search((str(tmp_path / "in"),)), Search((f"{address}/in/000.wav",))
    assert (remote.recording, remote.size_bytes) == (local.recording, local.size_bytes)
    info = probe(remote.path, remote.size_bytes)
    assert info == probe(local.path, local.size_bytes)
    asked.clear()
    start = 9_000_000
    samples = [np.concatenate(list(Reader(each.path, info, start=start).blocks())) for each in (local, remote)]
    np.testing.assert_array_equal(*samples)
    assert 0 < asked_bytes(asked) < local.size_bytes / 2  # the end of it, not all


def asked_bytes(ranges: list[str]) -> int:
    bounds = [tuple(map(int, each.removeprefix("bytes=").split("-"))) for each in ranges if each]
    return sum(last - first + 1 for first, last in bounds)


@pytest.mark.parametrize("form", ["wav", "flac", "mp3"])
def test_a_header_is_read_and_checked_over_http_without_the_samples(
    web: tuple[str, list[str]], tmp_path: Path, form: str
) -> None:
    address, asked = web
    path, sound = tmp_path / f"a.{form}", noise(2_000_000)
    if form == "mp3":
        encode(path, sound, 32_000, form, "libmp3lame")
    else:
        write(path, sound)
    size_bytes = path.stat().st_size
    info = probe(f"{address}/{path.name}", size_bytes)
    assert info == probe(str(path), size_bytes)
    assert (abs(info.frames - 2_000_000) < 32, info.problem, info.warnings) == (True, "", ())
    assert 0 < asked_bytes(asked) < 10 * 2**16 < size_bytes  # blocks


@pytest.mark.parametrize("kind", [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS")], ids=str)
def test_joined_recordings_are_read_over_http_as_here(
    web: tuple[str, list[str]], tmp_path: Path, kind: tuple[str, str]
) -> None:
    content = write(tmp_path / "one", noise(30_000), format=kind[0], subtype=kind[1]).read_bytes()
    (tmp_path / "joined").write_bytes(2 * content)
    paths = str(tmp_path / "joined"), f"{web[0]}/joined"
    local, remote = (probe(path, 2 * len(content)) for path in paths)
    assert local == remote
    assert local.samples >= 60_000
    samples = [np.concatenate(list(Reader(path, local).blocks())) for path in paths]
    assert len(samples[0]) == local.samples
    np.testing.assert_array_equal(*samples)


@pytest.mark.slow
def test_small_files_are_put_together_in_a_store(store: str) -> None:
    out, names = f"{store}/nights", [f"{night}.wav" for night in range(3)]
    output = write_output(out, *({name: scores_of(2, Bird=[0.9])} for name in names))
    output.note({key: value for key, value in RUN.items() if key != "finished"})
    with pytest.raises(OutputError, match="object stores have no locks"):
        compact(out)
    output.note(RUN | {"batches": output.batches.names})
    before = read_tags(out), read_scores(out)
    done = compact(out)
    assert (done.before, done.after) == (3, 1)
    for ours, theirs in zip((read_tags(out), read_scores(out)), before, strict=True):
        pd.testing.assert_frame_equal(ours, theirs)
    [name] = output.batches.names
    assert {path.name for table in ("tags", "scores") for path in bucket(f"nights/{table}").iterdir()} == {name}
    assert not list(bucket("nights/_swap").glob("**/*"))
