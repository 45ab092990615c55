"""Which recordings are found, and what they are called in the tables."""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from satpipe.pipeline.recordings.find import EXTENSIONS, Search, Source, name_in_tables
from satpipe.sat.errors import ConfigError

LONGEST_NAME_BYTES = 255


def touch(path: Path, content: bytes = b"sound") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def found(*inputs: Path | str) -> list[Source]:
    return list(Search(tuple(map(str, inputs))))


def names(*inputs: Path | str) -> list[str]:
    return [source.recording for source in found(*inputs)]


def test_a_folder_gives_its_recordings_in_order_of_name_with_posix_paths_relative_to_it(tmp_path: Path) -> None:
    for name in ("z.wav", "a.flac", "b/2/x.mp3", "b/1/x.mp3", "b/notes.txt", "b/wav"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a.flac", "z.wav", "b/1/x.mp3", "b/2/x.mp3"]


def test_a_recording_knows_where_its_file_is_how_large_and_how_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = touch(tmp_path / "day" / "a.wav", b"12345")
    os.utime(path, ns=(0, 1_700_000_000_123_456_789))
    monkeypatch.chdir(tmp_path)
    assert found("day") == [Source("a.wav", str(path), 5, 1_700_000_000_123_456_789)]


@pytest.mark.parametrize("extension", sorted(EXTENSIONS))
def test_the_extension_decides_in_any_letter_case(tmp_path: Path, extension: str) -> None:
    touch(tmp_path / f"a{extension}")
    touch(tmp_path / f"b{extension.upper()}")
    touch(tmp_path / f"c{extension}.part")
    assert names(tmp_path) == [f"a{extension}", f"b{extension.upper()}"]


def test_a_file_named_outright_is_taken_whatever_its_extension(tmp_path: Path) -> None:
    assert names(touch(tmp_path / "sub" / "recording.dat")) == ["recording.dat"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    touch(tmp_path / "1.wav")
    assert names(touch(tmp_path / "[1].wav")) == ["[1].wav"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.wav", ["a.wav"]),
        ("*", ["a.wav", "day1/b.WAV", "day2/b.wav", "day2/night/c.flac"]),
        ("**/*.wav", ["a.wav", "day2/b.wav"]),
        ("day?/b.*", ["day1/b.WAV", "day2/b.wav"]),
        ("day[2-9]", ["day2/b.wav", "day2/night/c.flac"]),
        ("day2/*/*", ["night/c.flac"]),
        ("**", ["a.wav", "day1/b.WAV", "day2/b.wav", "day2/night/c.flac"]),
        ("*.aiff", []),
    ],
)
def test_a_pattern_names_recordings_from_its_first_wild_folder_on(
    tmp_path: Path, pattern: str, expected: list[str]
) -> None:
    for name in ("a.wav", "a.txt", "day1/b.WAV", "day2/b.wav", "day2/night/c.flac", "day2/night/c.txt"):
        touch(tmp_path / name)
    assert sorted(names(tmp_path / pattern)) == expected


def test_hidden_files_and_folders_are_skipped(tmp_path: Path) -> None:
    for name in (".hidden.wav", "._a.wav", ".trash/a.wav", "a/.cache/b.wav", "a/b.wav"):
        touch(tmp_path / name)
    assert names(tmp_path) == ["a/b.wav"]
    assert names(tmp_path / "*") == ["a/b.wav"]


def test_a_circle_of_links_ends(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "b" / "x.wav")
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    (tmp_path / "top").symlink_to(tmp_path)
    assert names(tmp_path) == ["a/b/x.wav"]


def test_a_linked_folder_is_searched_once(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere" / "x.wav")
    (tmp_path / "in").mkdir()
    for link in ("1", "2"):
        (tmp_path / "in" / link).symlink_to(tmp_path / "elsewhere")
    assert names(tmp_path / "in") == ["1/x.wav"]


def test_a_recording_given_twice_counts_once(tmp_path: Path) -> None:
    path = touch(tmp_path / "a.wav")
    (tmp_path / "again").symlink_to(tmp_path)
    assert names(path, tmp_path, f"{tmp_path}/*.wav", f"{tmp_path}/./a.wav", tmp_path / "again" / "a.wav") == ["a.wav"]


def test_two_recordings_that_would_share_a_name_are_an_error_that_names_both(tmp_path: Path) -> None:
    one, two = touch(tmp_path / "one" / "x.wav"), touch(tmp_path / "two" / "x.wav")
    with pytest.raises(ConfigError, match=r"'x\.wav' in the tables") as caught:
        found(one.parent, two.parent)
    assert str(one) in str(caught.value)
    assert str(two) in str(caught.value)
    assert names(tmp_path) == ["one/x.wav", "two/x.wav"]


@pytest.mark.parametrize(
    "name", ["two\nlines.wav", "öäü 鳥 🐦.wav", " spaces .wav", "-o.wav", "x" * (LONGEST_NAME_BYTES - 4) + ".wav"]
)
def test_any_name_a_file_can_have_is_its_name_in_the_tables(tmp_path: Path, name: str) -> None:
    path = touch(tmp_path / name)
    assert found(tmp_path) == [Source(name, str(path), 5, path.stat().st_mtime_ns)]


def test_a_name_that_is_not_utf8_is_shown_with_its_bytes_escaped(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/v\xf6gel \xff.wav"))
    try:
        touch(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    [source] = found(tmp_path)
    assert source.recording == r"v\xf6gel \xff.wav"
    assert Path(source.path).read_bytes() == b"sound"


some_name = st.lists(st.sampled_from([b"\xf6", b"\xc3", b"\\", b"x", b"f6", b"c3", b"5c", b"8", b"a"]), max_size=8).map(
    b"".join
)


@given(some_name, some_name)
@example(b"\xf6", rb"\xf6")
@example(rb"\xf6", rb"\x5cxf6")
def test_no_two_names_are_shown_alike(one: bytes, other: bytes) -> None:
    ours, theirs = (name_in_tables(os.fsdecode(name)) for name in (one, other))
    assert (ours.encode() == theirs.encode()) == (one == other)


@pytest.mark.parametrize("target", ["nowhere.wav", "dangling.wav"])
def test_a_dangling_link_is_found_like_a_file_that_cannot_be_opened(tmp_path: Path, target: str) -> None:
    (tmp_path / "dangling.wav").symlink_to(tmp_path / target)
    touch(tmp_path / "good.wav")
    dangling, good = found(tmp_path)
    assert dangling == Source("dangling.wav", str(tmp_path / "dangling.wav"), 0, 0)
    assert good.recording == "good.wav"


def test_an_input_that_does_not_exist_is_an_error_that_names_it(tmp_path: Path) -> None:
    touch(tmp_path / "a.wav")
    with pytest.raises(ConfigError, match=r"missing.* not found"):
        found(tmp_path, tmp_path / "missing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_reported_and_the_rest_is_found(tmp_path: Path) -> None:
    touch(tmp_path / "a" / "x.wav")
    touch(tmp_path / "b" / "y.wav")
    (tmp_path / "a").chmod(0)
    search = Search((str(tmp_path),))
    try:
        assert [source.recording for source in search] == ["b/y.wav"]
    finally:
        (tmp_path / "a").chmod(0o700)
    assert search.problems == [f"{tmp_path / 'a'}: Permission denied"]


def test_a_folder_too_deep_to_be_read_is_reported_and_the_rest_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path / "z.wav")
    monkeypatch.chdir(tmp_path)
    for _ in range(1 + 4096 // 200):  # Linux and macOS take paths of up to 4095 bytes
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    search = Search((str(tmp_path),))
    for _ in range(2):  # what is in the way is listed once, however often one looks
        assert [source.recording for source in search] == ["z.wav"]
        [problem] = search.problems
        assert problem.startswith(str(tmp_path / ("d" * 200)))
        assert problem.endswith("File name too long")
