"""Starting Ray before a run is planned."""

from pathlib import Path

from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.ahead import ONE_WORKER_BYTES, start_ray


def test_little_sound_has_one_worker(tmp_path: Path) -> None:
    (tmp_path / "run.json").touch()  # Ray waits for the plan
    folder = tmp_path / "in" / "day"
    folder.mkdir(parents=True)
    first, second = folder / "a.wav", folder / "b.wav"
    first.write_bytes(bytes(ONE_WORKER_BYTES - 1))

    def workers(*inputs: Path, **given: int) -> int | None:
        return start_ray(TagOptions(tuple(map(str, inputs)), tmp_path, **given)).workers

    assert workers(tmp_path / "in") == workers(first) == 1
    assert workers(first, workers=3) == 3
    assert workers(folder / "*.wav") is None  # a pattern
    second.write_bytes(bytes(2))
    assert workers(tmp_path / "in") is workers(first, second) is None
    assert workers(second) == 1
