"""A real S3 server on the loopback interface."""

import logging
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

REFUSALS = ("500 Internal Server Error", "503 Slow Down")
Respond = Callable[..., Any]


class Refusing:
    """A WSGI application in front of another, which refuses a share of the requests.

    Half of what it refuses has been done nevertheless: only the answer was lost.
    """

    def __init__(self, application: Callable[..., Iterable[bytes]], share: float, seed: int) -> None:
        self.share, self.requests, self.refused = share, 0, 0
        self._application, self._random = application, random.Random(seed)

    def __call__(self, environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
        self.requests += 1
        if self._random.random() >= self.share:
            return self._application(environ, respond)
        self.refused += 1
        if self._random.random() < 0.5:
            list(self._application(environ, lambda *_: None))
        else:
            environ["wsgi.input"].read()  # or the connection would break before the answer is read
        status = self._random.choice(REFUSALS)
        body = b"<Error><Code>SlowDown</Code></Error>"
        respond(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
        return [body]


@contextmanager
def object_store(*buckets: str, refuse: float = 0.0, seed: int = 0) -> Iterator[Refusing]:
    """Run a server with empty buckets, and make the environment lead to it.

    Args:
        buckets: Names of the buckets.
        refuse: Share of the requests that are refused.
        seed: Which ones.
    """
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # not a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    application: Any = server._server
    application.app = refusing = Refusing(application.app, 0.0, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for name in buckets:
            in_store(f"s3://{name}").mkdir()
        refusing.share = refuse
        yield refusing
    server.stop()


def in_store(url: str) -> UPath:
    """Return a location in the store as it is now, whatever was listed before."""
    return UPath(url, use_listings_cache=False, skip_instance_cache=True)


def download(url: str, to: Path) -> Path:
    """Copy a folder from the store."""
    for path in in_store(url).rglob("*"):
        if path.is_file():
            local = to / str(path).removeprefix(f"{url}/")
            local.parent.mkdir(parents=True, exist_ok=True)
            local.write_bytes(path.read_bytes())
    return to
