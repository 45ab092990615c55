"""`import satpipe`: which names it has, what loading them costs, and that their examples run."""

import doctest
import inspect
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import satpipe
import soundfile
from conftest import ROOT, Satpipe
from satpipe.jobs.options.results import ActivityOptions, ClipsOptions, EvaluateOptions, EventOptions, VerifyOptions
from satpipe.jobs.options.tag import TagOptions
from satpipe.pipeline.option import declared
from satpipe.sat import errors

EXAMPLES = ROOT / "examples" / "recordings"
FUNCTIONS = {
    "tag": TagOptions, "evaluate": EvaluateOptions, "events": EventOptions, "clips": ClipsOptions,
    "verify": VerifyOptions, "activity": ActivityOptions,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recordings of 4 s, their tables, and ground truth: the files that the examples name."""
    folder = tmp_path_factory.mktemp("examples")
    (folder / "recordings").mkdir()
    for source, name in (("birds_48k_stereo.opus", "birds.wav"), ("speech_16k_mono.WAV", "speech.wav")):
        samples, rate_hz = soundfile.read(EXAMPLES / source, dtype="float32", always_2d=True)
        soundfile.write(folder / "recordings" / name, samples[: 4 * rate_hz].mean(1), rate_hz)
    (folder / "strong.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nspeech.wav\t0.0\t4.0\t/m/09x0r\n"
    )
    summary = satpipe.tag(folder / "recordings", out=folder / "out", threshold=0.2, embeddings=True)
    assert summary.complete
    return folder


def test_the_names_are_these() -> None:
    assert satpipe.__all__ == [
        "AudioError", "CheckpointError", "ConfigError", "DamageError", "DownloadError", "LabelError", "OutputError",
        "SatpipeError", "StreamingTagger", "TrainingError", "TruthError", "__version__", "activity", "classify",
        "clips", "compact", "evaluate", "events", "labels", "learn", "load_model", "read_embeddings", "read_recordings",
        "read_scores", "read_tags",
        "scan_embeddings", "scan_scores", "search", "tag", "verify",
    ]  # fmt: skip
    assert set(satpipe.__all__) == set(dir(satpipe))
    assert all(hasattr(satpipe, name) for name in satpipe.__all__)
    with pytest.raises(AttributeError, match="module 'satpipe' has no attribute 'tags'"):
        satpipe.tags  # type: ignore[attr-defined]  # noqa: B018


def test_every_error_is_among_the_names() -> None:
    known = {name for name, each in vars(errors).items() if isinstance(each, type) and issubclass(each, Exception)}
    assert known <= set(satpipe.__all__)


def test_importing_loads_no_large_package_and_takes_no_time() -> None:
    code = (
        "import sys; from time import perf_counter as now; before = now(); import satpipe; took = now() - before; "
        "import json; print(json.dumps([took, [m for m in ('torch', 'ray', 'pandas', 'numpy', 'pyarrow', 'click') "
        "if m in sys.modules]]))"
    )
    runs = [json.loads(subprocess.check_output([sys.executable, "-c", code])) for _ in range(3)]
    assert min(took for took, _ in runs) < 0.1
    assert [loaded for _, loaded in runs] == [[], [], []]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_has_the_options_of_its_command(name: str) -> None:
    parameters = inspect.signature(getattr(satpipe, name)).parameters
    first, *options = parameters.values()
    assert first.kind == (inspect.Parameter.VAR_POSITIONAL if name == "tag" else first.POSITIONAL_OR_KEYWORD)
    assert all(option.kind == option.KEYWORD_ONLY for option in options)
    defaults = {option.name: option.default for option in options if option.default is not option.empty}
    stated = {field.name: field.default for field in fields(FUNCTIONS[name]) if field.name in parameters}
    assert defaults == {key: stated[key] for key in defaults}
    assert {option.name for option in options} == {each.name for each in declared(FUNCTIONS[name])}
    text = getattr(satpipe, name).__doc__
    assert all(f"{each.name}: {each.option.help}" in text for each in declared(FUNCTIONS[name]))


def test_a_wrong_option_is_a_clear_error(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], type[Exception], str]] = [
        (
            {"out": tmp_path, "treshold": 0.5},
            TypeError,
            r"tag\(\) has no option 'treshold'; did you mean 'threshold'\?",
        ),
        ({"out": tmp_path, "threshold": 2}, satpipe.ConfigError, "--threshold must be from 0 to 1, not 2"),
        ({"out": tmp_path, "top_k": 1.5}, satpipe.ConfigError, "--top-k must be a whole number, not 1.5"),
        ({"out": tmp_path, "memory": "half"}, satpipe.ConfigError, "--memory must be on or off, not 'half'"),
        ({"out": tmp_path, "scores": "no"}, satpipe.ConfigError, "--scores must be True or False, not 'no'"),
        ({"out": tmp_path, "span_s": float("nan")}, satpipe.ConfigError, "--span-s must be at least 10, not nan"),
    ]
    for options, error, text in cases:
        with pytest.raises(error, match=text):
            satpipe.tag(EXAMPLES, **options)
    with pytest.raises(satpipe.ConfigError, match="no recordings are given"):
        satpipe.tag(out=tmp_path)
    with pytest.raises(TypeError, match=r"events\(\) has no option 'label'; did you mean 'labels'"):
        satpipe.events(tmp_path, label="Bird")  # type: ignore[call-arg]
    with pytest.raises(satpipe.OutputError, match="has no run.json"):
        satpipe.evaluate(tmp_path, strong="strong.tsv")


def examples() -> Iterator[doctest.DocTest]:
    finder = doctest.DocTestFinder(recurse=False)
    for name in satpipe.__all__:
        found = getattr(satpipe, name)
        if callable(found) and not (isinstance(found, type) and issubclass(found, Exception)):
            module = sys.modules[found.__module__]
            yield from finder.find(found, name, module, globs={**vars(module), "satpipe": satpipe})


NO_EXAMPLE = {"learn", "classify"}  # these need many recordings: the page on own classes is their example, and is run
EXAMPLES_OF = {test.name: test for test in examples() if test.name not in NO_EXAMPLE}


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES_OF)
def test_the_examples_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    test = EXAMPLES_OF[name]
    assert test.examples, f"{name} has no example"
    printed: list[str] = []
    with pd.option_context("display.width", 200, "display.max_columns", 20):
        doctest.DocTestRunner().run(test, out=printed.append)
    assert not printed, "".join(printed)


@pytest.mark.slow
def test_what_a_function_returns_is_what_the_command_writes(folder: Path, satpipe_here: Satpipe) -> None:
    assert satpipe_here("events", "out", "--labels", "Speech", "--low", 0.4, cwd=folder).returncode == 0
    written = pd.read_parquet(folder / "out" / "events.parquet")
    found = satpipe.events(folder / "out", labels="Speech", low=0.4)
    assert found.pop("time_local").isna().all()  # text in the file
    assert written.pop("time_local").isna().all()
    pd.testing.assert_frame_equal(found, written)
    done = satpipe_here(
        "evaluate", "out", "--strong", "strong.tsv", "--classes", "527", "--bootstrap", 0, "-o", "result", cwd=folder
    )
    assert done.returncode == 0, done.stderr
    result = satpipe.evaluate(folder / "out", strong=folder / "strong.tsv", classes="527", bootstrap=0)
    figures = json.loads((folder / "result" / "evaluate.json").read_text())["figures"]
    assert [figure["value"] for figure in result["figures"]] == [figure["value"] for figure in figures]
