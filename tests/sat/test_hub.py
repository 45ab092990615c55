"""Models by name, with downloads from a server on loopback that behaves badly when told to."""

import hashlib
import io
import json
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from satpipe.jobs.commands.models import models
from satpipe.sat.errors import CheckpointError, ConfigError, DownloadError
from satpipe.sat.model.config import CONFIGS, get_config
from satpipe.sat.model.network import SAT
from satpipe.sat.weights import download, hub
from satpipe.sat.weights.published import to_published
from satpipe.sat.weights.registry import load_checkpoint

NAME = "SAT_T_2s"
FILE = "SAT_T_stream2s_mAP_43_34.pt"
MIB = 1 << 20


def checkpoint_bytes(config_name: str, seed: int) -> bytes:
    """A file as the published ones are, with random weights."""
    torch.manual_seed(seed)
    model = SAT(get_config(config_name))
    buffer = io.BytesIO()
    torch.save({"model": to_published(model.half().state_dict(), model.config)}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def body() -> bytes:
    """The file that should come."""
    return checkpoint_bytes(NAME, 1)


@pytest.fixture(scope="session")
def newer_body() -> bytes:
    """The same model with other weights."""
    return checkpoint_bytes(NAME, 2)


@dataclass
class Request:
    """What one request asked for and got."""

    path: str
    asked_range: str | None
    sent_bytes: int = 0


@dataclass
class Server:
    """What the server does, and what it was asked."""

    url: str
    body: bytes
    break_after_bytes: list[int] = field(default_factory=list)
    """Of the answers to come; the connection breaks that far into the answer's body."""
    statuses: list[int] = field(default_factory=list)
    """Of the answers to come, before it serves the file."""
    always: int | None = None
    """One status for ever."""
    ignores_range: bool = False
    ignores_if_range: bool = False
    has_validator: bool = True
    surplus_bytes: int = 0
    """By how much Content-Length is too long."""
    requests: list[Request] = field(default_factory=list)

    @property
    def etag(self) -> str:
        """Strong, of the file as it is now."""
        return f'"{hashlib.md5(self.body).hexdigest()}"'


@pytest.fixture
def server(body: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server of `body` that `hub` is pointed at, with an empty cache and no waits."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            request = Request(self.path, self.headers["Range"])
            state.requests.append(request)
            status = state.always or (state.statuses.pop(0) if state.statuses else 200)
            if status != 200:
                self.send_error(status)
                return
            total, first = len(state.body) + state.surplus_bytes, 0
            same = state.ignores_if_range or self.headers["If-Range"] in (None, state.etag)
            if request.asked_range and same and not state.ignores_range:
                first = int(request.asked_range.removeprefix("bytes=").removesuffix("-"))
                if first >= len(state.body):
                    self.send_error(416)
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {first}-{total - 1}/{total}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(total - first))
            if state.has_validator:
                self.send_header("ETag", state.etag)
            self.end_headers()
            content = state.body[first:]
            if state.break_after_bytes:
                content = content[: state.break_after_bytes.pop(0)]
            self.close_connection = first + len(content) < total
            self.wfile.write(content)
            request.sent_bytes = len(content)

        def log_message(self, *arguments: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listener:
        url = f"http://127.0.0.1:{listener.server_port}/files"
        state = Server(url=url, body=body)
        monkeypatch.setenv("SATPIPE_HUB_URL", url)
        monkeypatch.setenv("SATPIPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(download, "_RETRY_WAIT_S", 0.0)
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        listener.shutdown()
        thread.join()


def finals() -> set[str]:
    """Names in the cache under which a reader looks for something whole."""
    return {path.name for path in download.cache_folder().iterdir()} & {f"{NAME}.pt", f"{NAME}.json"}


def assert_pulled(path: Path, body: bytes) -> None:
    """The file is there, recorded and loadable, and nothing else is left but the lock."""
    assert path.read_bytes() == body
    record = json.loads(path.with_suffix(".json").read_bytes())
    assert record["sha256"] == hashlib.sha256(body).hexdigest()
    assert record["size"] == len(body)
    assert record["url"].endswith(f"/{FILE}?download=1")
    assert {p.name for p in path.parent.iterdir()} <= {f"{NAME}.pt", f"{NAME}.json", f"{NAME}.lock"}
    assert load_checkpoint(NAME).config.name == NAME


def test_whole_pull_shows_progress_and_is_not_repeated(server: Server, body: bytes) -> None:
    shown: list[tuple[int, int | None]] = []
    path = hub.pull(NAME, lambda done, total: shown.append((done, total)))
    assert_pulled(path, body)
    assert shown[-1] == (len(body), len(body))
    assert [done for done, _ in shown] == sorted(done for done, _ in shown)
    assert hub.pull(NAME) == path
    assert [request.path for request in server.requests] == [f"/files/{FILE}?download=1"]
    assert server.url in load_checkpoint(NAME).source


def test_dropped_connection_is_resumed(server: Server, body: bytes) -> None:
    server.break_after_bytes = [4 * MIB, 3 * MIB]
    assert_pulled(hub.pull(NAME), body)
    assert [request.asked_range for request in server.requests] == [None, f"bytes={4 * MIB}-", f"bytes={7 * MIB}-"]
    assert sum(request.sent_bytes for request in server.requests) == len(body)


def test_dropped_for_good_goes_on_with_the_next_pull(server: Server, body: bytes) -> None:
    server.break_after_bytes = [MIB] * 5
    with pytest.raises(DownloadError, match=f"{FILE}.* 5 attempts.*continues after {5 * MIB} bytes"):
        hub.pull(NAME)
    assert finals() == set()
    with pytest.raises(CheckpointError, match=f"`satpipe models pull {NAME}`"):
        load_checkpoint(NAME)
    assert_pulled(hub.pull(NAME), body)
    assert server.requests[-1].asked_range == f"bytes={5 * MIB}-"
    assert sum(request.sent_bytes for request in server.requests) == len(body)


def test_whole_part_of_a_killed_pull_is_used(server: Server, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(path: Path, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(hub, "_validate", killed)
        with pytest.raises(KeyboardInterrupt):
            hub.pull(NAME)
    assert_pulled(hub.pull(NAME), body)
    assert len(server.requests) == 1


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_changed_file_is_not_glued_to_the_old_part(server: Server, newer_body: bytes, ignores_if_range: bool) -> None:
    server.break_after_bytes = [MIB] * 5
    with pytest.raises(DownloadError):
        hub.pull(NAME)
    server.body = newer_body
    server.ignores_if_range = ignores_if_range
    assert_pulled(hub.pull(NAME), newer_body)


@pytest.mark.parametrize("property_", ["ignores_range", "has_validator"])
def test_server_that_cannot_resume_starts_again(server: Server, body: bytes, property_: str) -> None:
    setattr(server, property_, not getattr(server, property_))
    server.break_after_bytes = [4 * MIB]
    assert_pulled(hub.pull(NAME), body)
    assert server.requests[-1].sent_bytes == len(body)


def test_busy_server_is_asked_again(server: Server, body: bytes) -> None:
    server.statuses = [503, 429]
    assert_pulled(hub.pull(NAME), body)


def test_wrong_length(server: Server) -> None:
    server.surplus_bytes = 1000
    with pytest.raises(DownloadError, match=f"{FILE}.* could not be downloaded in 5 attempts"):
        hub.pull(NAME)
    assert finals() == set()


def test_truncated_file_of_the_announced_length(server: Server, body: bytes) -> None:
    server.body = body[:-1000]
    with pytest.raises(
        DownloadError, match=f"{FILE}.* is not the checkpoint of {NAME}: it is not a readable checkpoint"
    ):
        hub.pull(NAME)
    assert finals() == set()


@pytest.mark.parametrize("other", ["SAT_T_1s", "audiotransformer_tiny"])
def test_wrong_model(server: Server, body: bytes, other: str) -> None:
    server.body = checkpoint_bytes(other, 1)
    with pytest.raises(DownloadError, match=f"{FILE}.* is not the checkpoint of {NAME}"):
        hub.pull(NAME)
    assert finals() == set()
    server.body = body
    assert_pulled(hub.pull(NAME), body)


def test_web_page_instead_of_the_file(server: Server) -> None:
    server.body = b"<!DOCTYPE html><title>Please log in</title>"
    with pytest.raises(DownloadError, match="is not a readable checkpoint"):
        hub.pull(NAME)
    assert finals() == set()


def test_a_file_that_is_too_large_is_not_kept(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "MAX_BYTES", 1_000_000)
    with pytest.raises(DownloadError, match="has more than 1 MB"):
        hub.pull(NAME)
    assert finals() == set()
    assert not list(hub.cache_folder().glob("*.part"))


def test_not_found_is_not_retried(server: Server) -> None:
    server.always = 404
    with pytest.raises(DownloadError, match=f"{FILE}.* HTTP 404 .*SATPIPE_HUB_URL"):
        hub.pull(NAME)
    assert len(server.requests) == 1
    assert finals() == set()


def test_no_server(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SATPIPE_HUB_URL", "http://127.0.0.1:9/files")
    with pytest.raises(DownloadError, match=f"{FILE}.* 5 attempts.*refused"):
        hub.pull(NAME)
    monkeypatch.setenv("SATPIPE_HUB_URL", "no address")
    with pytest.raises(DownloadError, match="could not be downloaded.*SATPIPE_HUB_URL"):
        hub.pull(NAME)


def test_cache_that_cannot_be_written(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SATPIPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="SATPIPE_CACHE"):
        hub.pull(NAME)


def test_file_changed_after_the_pull(server: Server, body: bytes) -> None:
    path = hub.pull(NAME)
    damaged = bytearray(body)
    damaged[len(body) // 2] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=f"sha256.*`satpipe models pull {NAME}`"):
        load_checkpoint(NAME)
    assert_pulled(hub.pull(NAME), body)
    path.with_suffix(".json").write_text("[", encoding="utf-8")
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(NAME)


def test_two_pulls_at_once(server: Server, body: bytes) -> None:
    server.break_after_bytes = [4 * MIB]
    threads = [threading.Thread(target=hub.pull, args=(NAME,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_pulled(download.cache_folder() / f"{NAME}.pt", body)
    assert sum(request.sent_bytes for request in server.requests) == len(body)


@pytest.mark.parametrize(("name", "config"), hub.BUNDLED_CONFIGS.items())
def test_bundled_model_gives_scores(name: str, config: str) -> None:
    checkpoint = load_checkpoint(name)
    assert checkpoint.config.name == config
    assert checkpoint.metadata["licence"] == hub.BUNDLED_LICENCE
    with torch.inference_mode():
        scores, _ = checkpoint.model()(torch.full((1, 64, checkpoint.config.chunk_frames), -40.0))
    assert scores.shape == (1, 527)
    assert torch.isfinite(scores).all()
    assert 0 < scores.max() <= 1


def test_path_is_loaded_as_it_is(tmp_path: Path, body: bytes) -> None:
    path = tmp_path / "mine.pt"
    path.write_bytes(body)
    assert load_checkpoint(str(path)).config.name == NAME
    assert load_checkpoint(str(path), "SAT_T_1s").config.name == "SAT_T_1s"
    with pytest.raises(CheckpointError, match="checkpoint .* not found"):
        load_checkpoint(str(tmp_path / "missing.safetensors"))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load_checkpoint("SAT_T2s"), "model or file 'SAT_T2s' not found; did you mean SAT_T_2s"),
        (lambda: hub.pull("SAT_T2s"), "published model 'SAT_T2s' not found; did you mean SAT_T_2s"),
        (lambda: hub.pull("bundled"), "need not be pulled"),
        (lambda: load_checkpoint("bundled", "SAT_B_2s"), "omit --arch"),
        (lambda: load_checkpoint("SAT_T_2s", "SAT_T_1s"), "omit --arch"),
    ],
)
def test_names_that_cannot_work(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        call()


def test_table_covers_every_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SATPIPE_HUB_URL", raising=False)
    assert hub.PUBLISHED.keys() == CONFIGS.keys()
    for published in hub.PUBLISHED.values():
        assert published.url == f"https://zenodo.org/record/7964975/files/{published.file}?download=1"
        assert published.file.endswith(f"mAP_{published.map_percent:.2f}".replace(".", "_") + ".pt")


def test_models_command(server: Server) -> None:
    runner = CliRunner()
    pulled = runner.invoke(models, ["pull", NAME])
    assert pulled.exit_code == 0, pulled.output
    assert f"{NAME}: {len(server.body) / 1e6:.1f} of {len(server.body) / 1e6:.1f} MB" in pulled.output
    sha256 = hashlib.sha256(server.body).hexdigest()
    assert pulled.output.endswith(f"{NAME} is in {download.cache_folder() / NAME}.pt; sha256 {sha256}{os.linesep}")
    listed = runner.invoke(models, [])
    assert listed.exit_code == 0, listed.output
    rows = {line.split()[0]: line for line in listed.output.splitlines() if line.strip()}
    for row in hub.list_models():
        assert row.licence in rows[row.name]
        with torch.device("meta"):
            network = SAT(CONFIGS[row.config])
        assert row.parameters == sum(parameter.numel() for parameter in network.parameters())
        assert rows[row.name].split()[-1] == ("yes" if row.name in (NAME, *hub.BUNDLED_CONFIGS) else "no")
    assert "43.34" in rows[NAME]
    assert "5.5 M" in rows[NAME]
