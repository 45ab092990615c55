"""The files that start satpipe every night, in a container or on a cluster, are what their readers expect."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from satpipe.jobs.commands.main import cli
from satpipe.jobs.options.config_file import read_config
from satpipe.jobs.options.tag import CommandOptions, TagOptions
from texts import DOCS

NIGHTLY, CLUSTER = ROOT / "examples" / "nightly", ROOT / "examples" / "cluster"
ACCEPT_3 = " || [ $? -eq 3 ]"
BIN = Path(sys.executable).parent


def checked(*command: object, **options: Any) -> str:
    """Run a program, which must not complain; return what it printed."""
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)
    assert (done.returncode, done.stderr) == (0, ""), f"{words}\n{done.stdout}{done.stderr}"
    return done.stdout


def linter(name: str) -> str:
    """Return a program that the extra `dev` installs."""
    found = shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
    if not found:
        pytest.skip(f"needs {name}: pip install -e '.[dev]'")
    return found


def options_of(line: str) -> dict[str, Any]:
    """Return the options of a line that starts `satpipe tag`."""
    words = shlex.split(line.partition(" || ")[0])
    start = next(place for place, word in enumerate(words) if Path(word).name == "satpipe")
    assert words[start + 1] == "tag"
    return cli.commands["tag"].make_context("tag", words[start + 2 :]).params


def test_the_job_is_one_that_satpipe_reads() -> None:
    job = read_config(NIGHTLY / "job.yaml", TagOptions, CommandOptions)
    assert job["inputs"] == ("/srv/recordings",)
    assert TagOptions(**job).out == "/srv/satpipe/out"


def test_the_systemd_units_are_valid(tmp_path: Path) -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("needs systemd-analyze, of systemd")
    text = (NIGHTLY / "satpipe-tag.service").read_text()
    (command,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    assert options_of(command)["config"] == Path("/etc/satpipe/job.yaml")
    units = [tmp_path / "satpipe-tag.service", tmp_path / "satpipe-tag.timer"]
    units[0].write_text(text.replace("/usr/local/bin/satpipe", str(BIN / "satpipe")))
    shutil.copy(NIGHTLY / "satpipe-tag.timer", units[1])
    assert checked("systemd-analyze", "verify", "--man=no", *units) == ""


def test_the_line_for_cron_is_valid() -> None:
    *_, line = (NIGHTLY / "satpipe-tag.cron").read_text().splitlines()
    *times, user, command = line.split(maxsplit=6)
    for time, maximum in zip(times, (59, 23, 31, 12, 7), strict=True):
        assert time == "*" or 0 <= int(time) <= maximum
    assert user == "satpipe"
    assert "%" not in command  # a new line for cron
    assert options_of(command)["quiet"]
    assert command.endswith(ACCEPT_3)
    checked("sh", "-n", "-c", command)


def test_the_slurm_script_is_sound() -> None:
    assert checked(linter("shellcheck"), NIGHTLY / "satpipe-tag.slurm") == ""


@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (3, 0)])
def test_the_slurm_script_starts_satpipe_on_the_first_node(tmp_path: Path, code: int, expected: int) -> None:
    from ray.scripts.symmetric_run import symmetric_run

    fakes = {
        "scontrol": 'echo "$@" >&2; printf "node7\\nnode8\\nnode9\\n"',
        "srun": f'printf "%s\\n" "$RAY_AUTH_MODE" "$RAY_AUTH_TOKEN" "$@"; exit {code}',
    }
    for name, script in fakes.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "node[7-9]", "SLURM_JOB_NUM_NODES": "3", "SLURM_CPUS_ON_NODE": "16"}
    done = subprocess.run(
        ["bash", NIGHTLY / "satpipe-tag.slurm"],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **slurm, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"},
        check=False,
    )
    assert (done.returncode, done.stderr) == (expected, "show hostnames node[7-9]\n")
    mode, token, *command = done.stdout.splitlines()
    assert (mode, len(token)) == ("token", 64)
    assert command[:2] == ["ray", "symmetric-run"]
    middle = command.index("--")
    assert symmetric_run.make_context("symmetric-run", command[2:middle]).params == {
        "address": "node7:6379",
        "min_nodes": 3,
        "ray_args_and_entrypoint": ("--num-cpus", "16"),  # for `ray start`
    }
    given = options_of(shlex.join(command[middle + 1 :]))
    assert (given["address"], given["config"]) == ("auto", Path("job.yaml"))


def test_the_task_for_airflow_is_what_airflow_imports() -> None:
    tree = ast.parse((NIGHTLY / "airflow_dag.py").read_text())
    imported = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert imported == {"datetime", "airflow.sdk", "airflow.providers.standard.operators.bash"}
    (command,) = (ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign))
    assert options_of(command)["config"] == Path("/etc/satpipe/job.yaml")
    assert command.endswith(ACCEPT_3)


def test_the_files_for_clusters_use_the_image_and_start_satpipe() -> None:
    from ray.autoscaler._private.util import fillout_defaults, validate_config

    ray_up = yaml.safe_load((CLUSTER / "ray-up.yaml").read_text())
    config = fillout_defaults(ray_up)
    config["available_node_types"]["worker"]["resources"] = {"CPU": 16}  # Ray asks the cloud for them
    validate_config(config)
    kuberay = yaml.safe_load((CLUSTER / "kuberay.yaml").read_text())["spec"]
    assert options_of(kuberay["entrypoint"])["address"] == "auto"
    nodes = [kuberay["rayClusterSpec"]["headGroupSpec"], *kuberay["rayClusterSpec"]["workerGroupSpecs"]]
    images = {container["image"] for node in nodes for container in node["template"]["spec"]["containers"]}
    assert images == {ray_up["docker"]["image"]}
    for name in ("kuberay.yaml", "ray-up.yaml"):
        assert f"docker build -t {ray_up['docker']['image']} ." in (CLUSTER / name).read_text()


def test_the_dockerfile_is_sound() -> None:
    assert checked(linter("hadolint"), ROOT / "Dockerfile") == ""


def test_the_image_gets_all_that_the_wheel_is_built_from(tmp_path: Path) -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] != "#"]
    assert ignored[0] == "*"
    context = tmp_path / "context"
    context.mkdir()
    for line in ignored[1:]:
        if line.startswith("!"):
            source = ROOT / line[1:]
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, context / line[1:])
    built = [contents(folder, tmp_path / folder.name) for folder in (ROOT, context)]
    assert built[0] == built[1]
    assert "satpipe/__init__.py" in built[0]


def contents(folder: Path, to: Path) -> list[str]:
    """Return the names of the files in the wheel of a folder."""
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", to], cwd=folder, check=True)
    (wheel,) = to.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        return sorted(file.namelist())


def test_the_page_on_nightly_jobs_shows_every_file() -> None:
    page = (DOCS / "howto" / "nightly.md").read_text()
    shown = {Path(name).name for name in re.findall(r"literalinclude} (\S+)", page)}
    assert shown == {path.name for path in NIGHTLY.iterdir()}
