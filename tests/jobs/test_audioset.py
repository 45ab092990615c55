"""AudioSet's own labels: found, downloaded, matched with clips as people name them; the whole way in a fresh folder."""

import gzip
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pandas as pd
import pytest
import satpipe as api
import soundfile
from click.testing import CliRunner, Result
from conftest import ROOT, Satpipe
from satpipe.jobs.commands.models import labels
from satpipe.jobs.ground_truth import audioset, match, read_weak
from satpipe.sat.errors import TruthError

HEADER = "\t".join(audioset.COLUMNS) + "\n"
SOUNDS = {  # recordings of the project, with a class of the strong labels that they contain throughout
    "birds_48k_stereo.opus": "/m/015p6",
    "speech_16k_mono.WAV": "/m/09x0r",
    "music_44k1_stereo.ogg": "/m/04rlf",
    "car_engine_22k05_mono.mp3": "/m/02mk9",
}
FORMS = ("{id}.wav", "{id}_{ms}.wav", "Y{id}.flac", "Speech/{id}_{start:.3f}_{end:.3f}.flac")
RULES = {"YouTube id": 6, "YouTube id and start": 3, "name": 3}


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder."""

    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a server on loopback that `labels pull` is pointed at, with an empty cache."""
    folder = tmp_path / "served"
    folder.mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as listener:
        monkeypatch.setenv("SATPIPE_LABELS_URL", f"http://127.0.0.1:{listener.server_port}")
        monkeypatch.setenv("SATPIPE_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder
        listener.shutdown()
        thread.join()


def pull() -> Result:
    return CliRunner().invoke(labels, ["pull"])


def strong_labels() -> str:
    """As many events and clips as the published file has."""
    rows = (f"{n % audioset.CLIPS:011d}_30000\t0.000\t1.000\t/m/09x0r\n" for n in range(audioset.EVENTS))
    return HEADER + "".join(rows)


def test_the_strong_labels_are_pulled_once(served: Path, tmp_path: Path) -> None:
    (served / audioset.STRONG).write_text(strong_labels())
    done = pull()
    path = tmp_path / "cache" / audioset.STRONG
    assert done.output.endswith(f"AudioSet's strong labels are in {path}\n"), done.output
    assert path.read_text() == strong_labels()
    assert audioset.strong_labels() == path
    (served / audioset.STRONG).unlink()
    assert pull().exit_code == 0


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (HEADER + "a_0\t0\t1\t/m/09x0r\n", "it has 1 event of 1 clip, not 139,538 of 16,996. The download was del"),
        ("<!DOCTYPE html><title>Please log in</title>", "it does not have the columns segment_id, start_time_seconds"),
        (HEADER + "a_0\t0\t/m/09x0r\n", "it does not have the columns"),
        ("", "columns segment_id, start_time_seconds"),
        ("x" * 2000, "more than 0.001 MB. Check https://research.google.com/audioset/download_strong.html"),
        (None, "HTTP 404 .*, or set SATPIPE_LABELS_URL to a mirror"),
    ],
)
def test_another_file_is_not_kept(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, says: str
) -> None:
    if text is not None:
        (served / audioset.STRONG).write_text(text)
    monkeypatch.setattr(audioset, "_MAX_BYTES", 1000)
    with pytest.raises(api.DownloadError, match=f"127.0.0.1.*{says}"):
        audioset.pull()
    assert not list((tmp_path / "cache").glob("*.tsv*[!n]"))


def test_the_weak_labels_that_ship_are_the_published_ones() -> None:
    lines = gzip.decompress(audioset.WEAK.read_bytes()).decode().splitlines()
    assert lines[1].startswith("# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804")
    found = read_weak(audioset.WEAK)
    assert (len(found.clips), len(found.labels), len(found.clip)) == (20371, 527, 51804)


def test_the_strong_labels_are_looked_for_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders = {name: tmp_path / name for name in ("named", "recordings", "cache")}
    monkeypatch.setenv("SATPIPE_AUDIOSET", str(folders["named"]))
    monkeypatch.setenv("SATPIPE_CACHE", str(folders["cache"]))
    for folder in folders.values():
        folder.mkdir()
        (folder / audioset.STRONG).touch()
    for inputs in (["recordings"], ["s3://bucket/x", "recordings/*/a*.wav"], ["recordings/a.wav"]):
        given = [each if ":" in each else str(tmp_path / each) for each in inputs]
        for folder in folders.values():
            assert audioset.strong_labels(given).parent == folder
            (folder / audioset.STRONG).unlink()
        with pytest.raises(TruthError, match=r"`satpipe labels pull`, set SATPIPE_AUDIOSET .* recordings, .*--strong"):
            audioset.strong_labels(given)
        for folder in folders.values():
            (folder / audioset.STRONG).touch()


def test_a_clip_in_several_folders_of_classes_counts_once() -> None:
    recordings = ["Speech/Y--4gqARaEJE.wav", "Animal/Y--4gqARaEJE.wav", "Dog/--BfvyPmVMo_20.wav"]
    clips = ["--4gqARaEJE_0.000_10.000", "--BfvyPmVMo_20.000_30.000"]
    with pytest.raises(TruthError, match="could be any of 2 recordings"):
        match(clips, recordings)
    found = match(clips, recordings, same_name=True)
    assert found.recording.tolist() == [1, 2]
    assert found.rules == {"YouTube id": 1, "YouTube id and start": 1}


# The whole way


def make_set(folder: Path) -> None:
    """Write a dozen clips under names of AudioSet's evaluation set, each 4 s, and strong labels of most of them."""
    with gzip.open(audioset.WEAK, "rt") as file:
        listed = [line.split(", ", 3) for line in file if not line.startswith("#")]
    rows = HEADER
    for number in range(12):
        sound, mid = list(SOUNDS.items())[number % len(SOUNDS)]
        ytid, start, end, _ = next(clip for clip in listed[number * 100 :] if mid in clip[3])
        name = FORMS[number // 3].format(id=ytid, ms=round(float(start) * 1000), start=float(start), end=float(end))
        path = folder / "recordings" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples, rate_hz = soundfile.read(ROOT / "examples" / "recordings" / sound, dtype="float32")
        soundfile.write(path, samples[: 4 * rate_hz], rate_hz)
        if number != 5:
            rows += f"{ytid}_{round(float(start) * 1000)}\t0.000\t4.000\t{mid}\n"
    (folder / "labels").mkdir()
    (folder / "labels" / audioset.STRONG).write_text(rows)


@pytest.fixture(scope="module")
def fresh(satpipe_here: Satpipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a set, after `satpipe tag recordings`."""
    folder = tmp_path_factory.mktemp("fresh")
    make_set(folder)
    done = satpipe_here("tag", "recordings", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"tables go to {folder / 'out'}\n")
    return folder


@pytest.fixture
def here(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the current one, with the strong labels in the folder of SATPIPE_AUDIOSET."""
    monkeypatch.chdir(fresh)
    monkeypatch.delenv("SATPIPE_OUT", raising=False)
    monkeypatch.setenv("SATPIPE_AUDIOSET", "labels")
    monkeypatch.setenv("SATPIPE_CACHE", str(fresh / "cache"))
    return fresh


@pytest.mark.slow
def test_the_design_cards_commands(here: Path, satpipe: Satpipe, satpipe_here: Satpipe) -> None:
    strong = satpipe("evaluate", "--strong", cwd=here)
    assert strong.returncode == 0, strong.stderr
    assert strong.stderr == "OUT: out\n"
    assert f"strong: {here}/labels/{audioset.STRONG}, 11 of 11 clips found" in strong.stdout
    assert "note: not in the strong labels and not evaluated: 1 recording\n" in strong.stdout
    assert "segment-F1" in strong.stdout
    weak = satpipe_here("evaluate", "--weak", cwd=here)
    assert weak.returncode == 0, weak.stderr
    assert "weak: eval_segments.csv of AudioSet, 12 of 20,371 clips found" in weak.stdout
    assert all(f"{rule} ({count})" in weak.stdout for rule, count in RULES.items()), weak.stdout
    assert len(set(pd.read_parquet(here / "out" / "tags").recording)) == 12


@pytest.mark.slow
def test_a_folder_behind_the_option_is_the_output_folder(here: Path, satpipe_here: Satpipe) -> None:
    quick = ("--bootstrap", "0", "--psds-thresholds", "0")
    file = f"labels/{audioset.STRONG}"
    shown = set()
    for arguments in (("--strong", "out"), ("out", "--strong"), ("--strong", file), ("--strong", file, "out")):
        done = satpipe_here("evaluate", *quick, *arguments, cwd=here)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ("" if "out" in arguments else "OUT: out\n")
        shown.add(done.stdout.replace(f"{here}/", ""))
    assert len(shown) == 1


@pytest.mark.slow
def test_both_are_used_when_neither_is_named_and_strong_labels_only_if_found(
    here: Path, satpipe_here: Satpipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = satpipe_here("evaluate", "--bootstrap", "0", "--psds-thresholds", "0", cwd=here)
    assert ("\nweak: " in both.stdout, "\nstrong: " in both.stdout) == (True, True), both.stderr
    monkeypatch.delenv("SATPIPE_AUDIOSET")
    weak = satpipe_here("evaluate", "--bootstrap", "0", "--psds-thresholds", "0", cwd=here)
    assert weak.returncode == 0
    assert ("\nweak: " in weak.stdout, "\nstrong: " in weak.stdout) == (True, False)
    assert f"note: no strong labels were evaluated: {audioset.STRONG}, AudioSet's strong labels, not" in weak.stdout
    failed = satpipe_here("evaluate", "--strong", cwd=here)
    assert (failed.returncode, failed.stderr.count("not found: run `satpipe labels pull`")) == (1, 1)


@pytest.mark.slow
def test_the_same_lines_in_python(here: Path, ray_here: None) -> None:
    assert api.tag("recordings").recordings == 12
    result = api.evaluate(strong=True, bootstrap=0, psds_thresholds=0)
    assert result["truth"]["strong"]["found"] == 11
    assert api.evaluate(weak=True, bootstrap=0)["truth"]["weak"]["matched_by"] == RULES
    assert len(set(api.read_tags().recording)) == len(api.read_recordings()) == 12
    assert len(api.events(threshold=0.1)) > 0


@pytest.mark.slow
def test_every_command_has_the_folder_that_the_variable_names(here: Path, satpipe_here: Satpipe) -> None:
    shutil.copytree(here / "out", here / "elsewhere", dirs_exist_ok=True)
    where = {"SATPIPE_OUT": "elsewhere"}
    for command, prints in {"status": "finished", "events": "elsewhere/events.parquet", "report": "elsewhere"}.items():
        done = satpipe_here(command, cwd=here, env=where)
        assert (done.returncode, done.stderr.splitlines()[0]) == (0, "OUT: elsewhere"), done.stderr
        assert prints in done.stdout
    named = satpipe_here("status", "out", cwd=here, env=where)
    assert (named.returncode, named.stderr) == (0, "")
    again = satpipe_here("tag", "recordings/Speech", "recordings", "--dry-run", cwd=here, env=where)
    assert again.stdout.startswith(f"tables go to {here / 'elsewhere'}\n")


@pytest.mark.slow
def test_recordings_that_are_not_audiosets(here: Path, satpipe_here: Satpipe, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    shutil.copy(ROOT / "examples" / "recordings" / "speech_16k_mono.WAV", tmp_path / "in" / "dawn.wav")
    assert satpipe_here("tag", "in", cwd=tmp_path).returncode == 0
    for arguments in ((), ("--weak",), ("--strong",)):
        done = satpipe_here("evaluate", *arguments, cwd=tmp_path, env={"SATPIPE_AUDIOSET": str(here / "labels")})
        assert done.returncode == 1
        for text in (
            "of the 1 recording tagged in out (dawn.wav, ...), none is",
            "Y--4gqARaEJE.flac",
            "--mapping FILE",
        ):
            assert done.stderr.count(text) == 1, done.stderr


def test_a_folder_of_other_files_is_not_written_into(satpipe_here: Satpipe, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    soundfile.write(tmp_path / "out" / "a.wav", [0.0] * 16000, 16000)
    for arguments in ((), ("--dry-run",), ("-o", "out")):
        done = satpipe_here("tag", "out", *arguments, cwd=tmp_path)
        assert done.returncode == 1
        assert "out is not an output folder of satpipe and is not empty (a.wav, ...): name another" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.wav"]
    for arguments in (("status",), ("evaluate",), ("evaluate", "--strong")):
        nothing = satpipe_here(*arguments, cwd=tmp_path / "out")
        assert nothing.returncode == 1
        assert "OutputError: out is not an output folder" in nothing.stderr
        assert "`satpipe tag RECORDINGS`" in nothing.stderr
