"""Ray that does not start. Tests of `satpipe tag` cover a running Ray."""

import pytest
import ray
from satpipe.pipeline import ray_engine
from satpipe.sat.errors import ConfigError


def test_if_ray_does_not_start_the_error_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise Exception("The current node timed out during startup.")  # the class that Ray raises

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
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
