"""The wheel in a fresh environment, used from a folder whose modules have the names of the rooms inside satpipe."""

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from conftest import ROOT

pytestmark = pytest.mark.slow
SITE = Path("lib") / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
AFTER = """
import sys, satpipe
assert not {"torch", "ray", "pandas"} & sys.modules.keys()
from satpipe.jobs.commands.main import cli
for line in (
    "evaluate out --strong strong.tsv --classes 527 --bootstrap 0 -o result",
    "events out -o events.csv",
    "report out -o report.html",
):
    assert cli.main(line.split(), standalone_mode=False) == 0
tags = satpipe.read_tags("out", min_score=0.5)
events = satpipe.events("out", labels="Speech")
result = satpipe.evaluate("out", strong="strong.tsv", classes="527", bootstrap=0)
print(satpipe.__version__, satpipe.__file__, *tags.label.unique(), len(events), result["figures"][0]["value"])
"""
"""What runs after `satpipe tag`, in one process since importing torch takes seconds."""


def run(*command: object, cwd: Path | None = None, **env: str) -> str:
    """Run a command, return what it printed."""
    ours = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    words = list(map(str, command))
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, cwd=cwd, env={**ours, **env}, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, in which an editable install has left its links."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=ROOT)
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the wheel. Packages that it needs are those of the present environment."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    before = sorted(folder.rglob("*"))
    pip = (sys.executable, "-m", "pip", "--python", folder / "bin" / "python")
    run(*pip, "install", "--no-deps", "--no-index", wheel)
    # A path in a .pth file is searched after the environment itself, and .pth files found there are not read: those
    # of an editable install have no effect.
    dependencies = folder / SITE / "dependencies.pth"
    dependencies.write_text(f"{sysconfig.get_path('purelib')}\n")
    yield folder
    dependencies.unlink()
    run(*pip, "uninstall", "--yes", "satpipe")
    left = [path for path in sorted(folder.rglob("*")) if path not in before and "__pycache__" not in path.parts]
    assert left == [], "pip uninstall leaves files behind"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Modules that clash, if anything does, a recording and its ground truth."""
    folder = tmp_path_factory.mktemp("mine")
    for name in ("jobs/__init__.py", "pipeline.py", "reports/__init__.py", "sat.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"raise RuntimeError('{name} of the user was imported')\n")
    samples, rate_hz = soundfile.read(ROOT / "examples" / "recordings" / "speech_16k_mono.WAV", frames=64_000)
    soundfile.write(folder / "speech.wav", samples, rate_hz)
    (folder / "strong.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\nspeech.wav\t0.0\t4.0\t/m/09x0r\n"
    )
    return folder


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = ["git", "ls-files", "sat", "pipeline", "jobs", "reports"]
    sources = run(*listed, cwd=ROOT).split()
    expected = {f"satpipe/{name}" for name in sources if not name.startswith(("jobs/api/", "reports/docs/"))}
    assert names >= {"satpipe/__init__.py", "satpipe/py.typed", "satpipe/sat/data/bundled.safetensors"}
    assert names >= {"satpipe/reports/page/page.js", "satpipe/jobs/train/recipes/bundled.yaml"}
    assert names == expected | {"satpipe/__init__.py", "satpipe/py.typed"}


@pytest.mark.parametrize("env", [{}, {"PYTHONPATH": "."}], ids=["plain", "PYTHONPATH=."])
def test_modules_of_the_user_do_not_matter(environment: Path, folder: Path, env: dict[str, str]) -> None:
    def satpipe(*arguments: object) -> str:
        return run(environment / "bin" / "satpipe", *arguments, cwd=folder, **env)

    assert "Tag long audio recordings" in satpipe("--help")
    assert "1 recording" in satpipe("tag", "speech.wav", "-o", "out", "--workers", 1, "--overwrite")
    printed = run(environment / "bin" / "python", "-c", AFTER, cwd=folder, **env)
    version, file, *labels, events, value = printed.splitlines()[-1].split()
    assert f"satpipe, version {version}" in satpipe("--version")
    assert Path(file) == environment / SITE / "satpipe" / "__init__.py"
    assert "Speech" in labels
    assert "Speech" in (folder / "events.csv").read_text()
    assert "<!DOCTYPE html>" in (folder / "report.html").read_text()
    figures = json.loads((folder / "result" / "evaluate.json").read_text())["figures"]
    assert (events, float(value)) == ("1", figures[0]["value"])
