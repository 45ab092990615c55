"""`satpipe tag --config job.yaml`: a job as a file that can be reviewed."""

import json
from pathlib import Path
from typing import Any

import pytest
import without_ray
from satpipe.jobs.options.config_file import read_config
from satpipe.jobs.options.tag import CommandOptions, TagOptions
from satpipe.pipeline.option import declared
from satpipe.sat.errors import ConfigError
from tag_tables import make_recordings

JOB = """
# every night
inputs: ../recordings
out: tables
model: bundled
threshold: 0.3
top-k: 5
memory: off
channels: 1
workers:
scores: false
quiet: yes
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job in a folder of its own, beside its recordings."""
    make_recordings(tmp_path / "recordings", 1, 3)
    path = tmp_path / "job" / "job.yaml"
    path.parent.mkdir()
    path.write_text(JOB)
    return path


def test_a_job_runs_as_its_file_says_wherever_it_is_started(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("SATPIPE_OUT", str(tmp_path / "of the environment"))
    done = without_ray.satpipe("tag", "--config", "../job/job.yaml")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    run = json.loads((job.parent / "tables" / "run.json").read_text())
    assert {name: run["identity"][name] for name in ("threshold", "top_k", "memory", "channels", "scores")} == {
        "threshold": 0.3,
        "top_k": 5,
        "memory": "off",
        "channels": "1",
        "scores": False,
    }
    assert run["inputs"] == [str(tmp_path / "recordings")]
    assert list((tmp_path / "elsewhere").iterdir()) == []

    command = ("tag", "--config", job, "--threshold", 0.5, "--top-k", 5, "-o", "other", "--dry-run")
    done = without_ray.satpipe(*command)
    assert (done.returncode, done.stdout) == (0, "")  # quiet, as the file says
    assert not Path("other").exists()
    assert without_ray.satpipe(*command[:-1]).returncode == 0
    identity = json.loads(Path("other", "run.json").read_text())["identity"]
    assert (identity["threshold"], identity["memory"]) == (0.5, "off")


def test_recordings_on_the_command_line_are_instead_of_those_of_the_file(job: Path, tmp_path: Path) -> None:
    done = without_ray.satpipe("tag", tmp_path / "none", "--config", job)
    assert (done.returncode, done.stderr) == (1, f"ConfigError: {tmp_path / 'none'} not found\n")
    job.write_text("threshold: 0.3\n")
    done = without_ray.satpipe("tag", "--config", job)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, "Error: Missing argument 'INPUT...'.")


def test_every_option_can_be_in_a_file(tmp_path: Path) -> None:
    options = [each for of in (TagOptions, CommandOptions) for each in declared(of)]
    given = {each.name: each.default for each in options if each.default is not None and each.name != "out"}
    assert len(given) >= 15
    path = tmp_path / "job.yaml"
    path.write_text("".join(f"{name}: {value}\n" for name, value in given.items()))
    assert read_config(path, TagOptions, CommandOptions) == given
    path.write_text("".join(f"{name.replace('_', '-')}: {value}\n" for name, value in given.items()))
    assert read_config(path, TagOptions, CommandOptions) == given
    path.write_text(json.dumps({name: str(value) for name, value in given.items()}))  # JSON is YAML
    assert read_config(path, TagOptions, CommandOptions) == given


def test_relative_paths_start_from_the_folder_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(
        "inputs: [a, '*.wav', /b, ~/b, 's3://bucket/c']\nout: s3://bucket/out\ntimes: times.csv\nown_classes: null\n"
        "model: own.safetensors\n"
    )
    inputs = (str(tmp_path / "a"), str(tmp_path / "*.wav"), "/b", str(Path.home() / "b"), "s3://bucket/c")
    expected = {"inputs": inputs, "out": "s3://bucket/out", "times": str(tmp_path / "times.csv")}
    assert read_config(path, TagOptions) == {**expected, "model": "own.safetensors"}  # maybe a name
    (tmp_path / "own.safetensors").touch()
    assert read_config(path, TagOptions) == {**expected, "model": str(tmp_path / "own.safetensors")}
    path.write_text("model: efficientat:own.safetensors\n")
    assert read_config(path, TagOptions) == {"model": f"efficientat:{tmp_path / 'own.safetensors'}"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("treshold: 0.3", "unknown key 'treshold'; did you mean 'threshold'?"),
        ("input: x", "unknown key 'input'; did you mean 'inputs'?"),
        ("zzz: 3", "unknown key 'zzz'"),
        ("threshold: 3", "threshold must be from 0 to 1, not 3"),
        ("threshold: high", "threshold must be a number, not high"),
        ("span_s: nan", "span_s must be at least 10, not nan"),
        ("top_k: 2.5", "top_k must be a whole number, not 2.5"),
        ("workers: 0", "workers must be at least 1, not 0"),
        ("memory: maybe", "memory must be on or off, not maybe"),
        ("scores: perhaps", "scores must be True or False, not perhaps"),
        ("model: [a]", "model must be text, not ['a']"),
        ("inputs: {a: b}", "inputs must be a list of files, folders or patterns, not {'a': 'b'}"),
    ],
)
def test_what_is_wrong_in_a_file_is_told_in_the_words_of_the_options(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"{text}\n")
    with pytest.raises(ConfigError) as told:
        read_config(path, TagOptions, CommandOptions)
    assert str(told.value) == f"{path}: {message}"


@pytest.mark.parametrize(("name", "value"), [("threshold", 3), ("top_k", 0), ("memory", "maybe"), ("grids", 2.5)])
def test_the_words_are_those_of_the_options(tmp_path: Path, name: str, value: Any) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"{name}: {value}\n")
    with pytest.raises(ConfigError) as of_file:
        read_config(path, TagOptions)
    with pytest.raises(ConfigError) as of_option:
        TagOptions(("x",), **{name: value})
    flag = "--" + name.replace("_", "-")
    assert str(of_file.value).replace(f"{path}: {name}", flag) == str(of_option.value).replace("'", "")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"threshold: 0.1\nthreshold: 0.2\n", "the key 'threshold' occurs twice"),
        (b"threshold\n", "must have one option per line, such as 'threshold: 0.2'"),
        (b"", "must have one option per line, such as 'threshold: 0.2'"),
        (b"a: [\n", "is not readable YAML"),
        (b"out: \xff\n", "is not readable YAML"),
        (b"top_k: 0\nworkers: 0\n", "workers must be at least 1, not 0"),  # all problems at once
    ],
)
def test_a_file_that_cannot_be_used_is_a_wrong_command_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_bytes(content)
    done = without_ray.satpipe("tag", tmp_path, "--config", path)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert message in done.stderr
