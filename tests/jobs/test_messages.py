"""What `satpipe tag` and `satpipe status` print, and what they say of odd names and unknown formats."""

import os
import unicodedata
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from audio import noise, write
from conftest import Satpipe
from satpipe.jobs.tag.progress import describe
from satpipe.jobs.tag.status import PROBLEMS
from satpipe.pipeline.tagging.progress import Progress
from tag_tables import recordings
from without_ray import satpipe as satpipe_without_ray

HOSTILE = "\x1b]0;owned\x07\n2026-01-01 00:00:00,000 INFO finished\r\u202eb.wav"
TWINS = (b"v\xf6gel.wav", rb"v\xf6gel.wav")
BAD = PROBLEMS + 5


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, CompletedProcess[str]]:
    """A folder whose files are no sound, or in formats that are not read; the output folder, and what was printed."""
    top = tmp_path_factory.mktemp("odd")
    folder, out = top / "in", top / "an out"
    folder.mkdir()
    for number in range(BAD - 4):
        (folder / f"{number:02}.wav").write_text("no sound")
    for name in (HOSTILE, "鳥.wav"):
        (folder / name).write_text("no sound")
    for name in TWINS:
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_text("no sound")
    for name in ("a.w4v", "b.W4V", "c.sud", "d", "notes.txt", "photo.JPG", ".hidden.sud"):
        (folder / name).write_text("no sound that satpipe reads")
    return folder, out, satpipe_without_ray("tag", folder, "-o", out)


def assert_safe(text: str) -> None:
    """No character of a text but its line breaks is for the terminal."""
    assert {each for each in text if unicodedata.category(each) == "Cc"} <= {"\n"}
    assert "\u202e" not in text
    assert not any(line.startswith("2026-01-01") for line in text.splitlines())


def test_no_name_commands_the_terminal_or_forges_a_line(odd: tuple[Path, Path, CompletedProcess[str]]) -> None:
    _, out, done = odd
    assert done.returncode == 3, done.stderr
    for text in (done.stdout, done.stderr, satpipe_without_ray("status", out, "--problems").stdout):
        assert_safe(text)
    (log,) = (out / "log").iterdir()
    assert_safe(log.read_text())
    assert r"\x1b]0;owned\x07\n2026-01-01 00:00:00,000 INFO finished\r\u202eb.wav: unreadable" in log.read_text()
    assert HOSTILE in recordings(out).index  # tables have the name itself
    missing = satpipe_without_ray("tag", out / HOSTILE, "-o", out)
    assert missing.returncode == 1
    assert_safe(missing.stderr)
    assert_safe(satpipe_without_ray("tag", "--" + HOSTILE).stderr)


def test_a_terminal_that_lacks_the_characters_of_a_name_shows_them_escaped(
    satpipe: Satpipe, odd: tuple[Path, Path, CompletedProcess[str]]
) -> None:
    listed = satpipe("status", odd[1], "--problems", env={"PYTHONIOENCODING": "latin-1"})
    assert listed.returncode == 3
    assert r"  \u9ce5.wav: unreadable" in listed.stdout


def test_names_that_are_not_utf8_and_their_escaped_twins_are_two_recordings(
    odd: tuple[Path, Path, CompletedProcess[str]],
) -> None:
    assert {r"v\xf6gel.wav", r"v\x5cxf6gel.wav"} <= set(recordings(odd[1]).index)


def test_a_list_that_is_cut_names_the_command_that_lists_all(odd: tuple[Path, Path, CompletedProcess[str]]) -> None:
    _, out, done = odd
    command = f"satpipe status '{out}' --problems"
    assert f"    ... all of them: {command}\n" in done.stdout
    listed = satpipe_without_ray("status", out).stdout
    assert listed.count(": unreadable:") == PROBLEMS
    assert f"  ... all of them: {command}\n" in listed
    listed = satpipe_without_ray("status", out, "--problems").stdout
    assert listed.count(": unreadable:") == BAD
    assert "..." not in listed


def test_formats_that_are_not_read_are_counted_by_extension(odd: tuple[Path, Path, CompletedProcess[str]]) -> None:
    folder, out, done = odd
    line = "not read, perhaps sound in other formats: 2 .w4v, 1 without extension, 1 .sud\n"
    assert done.stdout.count(line) == 2  # before and after
    assert line in satpipe_without_ray("tag", folder, "-o", out, "--dry-run").stdout
    none = satpipe_without_ray("tag", folder / "*.sud", "-o", out)
    assert (none.returncode, none.stderr) == (
        1, f"ConfigError: no recordings in {folder}/*.sud\nfiles with an extension that is not read: .sud\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(files=3, size_bytes=10), "reading headers: 0 of 3"),
        (Progress(files=3, size_bytes=12, files_probed=1, probed_bytes=4, probed_s=20), "0 of about 60 s"),
        (Progress(files=1, size_bytes=4, files_probed=1, probed_bytes=4, probed_s=7200), "0.00 of 2.00 h"),
        (
            Progress(files=1, size_bytes=4, files_probed=1, probed_bytes=4, probed_s=7200, done_s=1800, elapsed_s=10),
            "0.50 of 2.00 h, 180 x realtime, 0:00:30 left",
        ),
    ],
)
def test_progress_has_a_length_as_soon_as_one_is_known(progress: Progress, text: str) -> None:
    assert describe(progress) == text


def test_a_file_called_like_a_channel_is_a_file_of_its_own(tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    write(folder / "x.wav", noise(4000, channels=2))
    write(folder / "take#ch2.wav", noise(4000))
    outright = write(folder / "x.wav#ch1", noise(8000), format="WAV")
    arguments = ("tag", folder, outright, "-o", out, "--channels", "split")
    done = satpipe_without_ray(*arguments)
    assert done.returncode == 0, done.stderr
    table = recordings(out)
    assert dict(table.duration_s) == {"take#ch2.wav": 0.25, "x.wav#ch1": 0.25, "x.wav#ch1#ch1": 0.5, "x.wav#ch2": 0.25}
    again = satpipe_without_ray(*arguments)
    assert "to tag: 0 " in again.stdout
    assert len(recordings(out)) == 4
