"""Clips of ground truth are matched with recordings by their names."""

import random
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.jobs.ground_truth import match, read_list, read_mapping, read_weak
from satpipe.sat.errors import TruthError
from truth_files import SEGMENTS, write

YTIDS = ["s9d-2nhuJCQ", "--4gqARaEJE", "_0BIyqJj9ZU", "-_-_-_-_-_-", "Y1234567890", "abc_30_40_5", "___________"]


@pytest.mark.parametrize("ytid", YTIDS)
@pytest.mark.parametrize(
    "recording",
    [
        "{0}.wav", "Y{0}.wav", "eval/Y{0}.flac", "{0}_30.000_40.000.wav", "Y{0}_30.000_40.000.wav", "{0}_30_40.m4a",
        "{0}_30000_40000", "{0}_30000.mp3", "{0}_30.WAV", "x/y/{0}_000030.opus", "{0}",
    ],
)  # fmt: skip
def test_recordings_are_matched_by_audiosets_naming_habits(ytid: str, recording: str) -> None:
    name = recording.format(ytid)
    for clip in (f"{ytid}_30.000_40.000", f"{ytid}_30000", ytid, f"Y{ytid}", f"{ytid}.wav"):
        found = match([f"{'x' * 11}_30000", clip], ["other.wav", name, f"{'z' * 11}_30_40.wav"])
        assert (found.clip.tolist(), found.recording.tolist()) == ([1], [1]), (clip, name)
        assert found.missing == ("xxxxxxxxxxx_30000",)
        assert found.unlisted == ("other.wav", "zzzzzzzzzzz_30_40.wav")


some_ytid = st.text("abXY01-_", min_size=11, max_size=11)
FORMS = (
    "{}_{:.3f}_{:.3f}",
    "Y{}_{:.3f}_{:.3f}",
    "{0}_{3}",
    "Y{0}_{3}",
    "{0}_{3}_{4}",
    "eval/{}_{:.3f}_{:.3f}.wav",
    "{0}_{3}.flac",
)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(some_ytid, st.integers(0, 5_000_000)), unique_by=lambda each: each[0]), st.data())
def test_every_clip_finds_its_recording(segments: list[tuple[str, int]], data: st.DataObject) -> None:
    def name(ytid: str, start_ms: int) -> str:
        end_ms = start_ms + 10_000
        form = data.draw(st.sampled_from(FORMS))
        return form.format(ytid, start_ms / 1000, end_ms / 1000, start_ms, end_ms)

    clips = [name(*segment) for segment in segments]
    order = data.draw(st.permutations(range(len(segments))))
    found = match(clips, [name(*segments[place]) for place in order])
    assert found.clip.tolist() == list(range(len(clips)))
    assert [order[place] for place in found.recording] == list(range(len(clips)))


@pytest.mark.parametrize(
    ("clips", "recordings", "expected"),
    [
        (["a"], ["a.wav"], ["a.wav"]),
        (["a.wav"], ["x/a.flac"], ["x/a.flac"]),
        (["a.wav"], ["a.wav", "a.flac"], ["a.wav"]),
        (["./a.wav"], ["a.wav", "x/a.wav"], ["a.wav"]),
        (["s1/a"], ["d/s1/a.wav", "a.wav"], ["d/s1/a.wav"]),
        (["d/s1/a"], ["a.wav", "s1/a.wav", "s2/a.wav"], ["s1/a.wav"]),
        (["s1/a", "s2/a"], ["s2/a.wav", "s1/a.wav"], ["s1/a.wav", "s2/a.wav"]),
        (["/mnt/d/s1/a.wav", "/mnt/d/s3/a.wav"], ["s2/a.wav", "s1/a.wav"], ["s1/a.wav", None]),
        (["C:\\data\\s1\\a.wav"], ["s2/a.wav", "s1/a.wav"], ["s1/a.wav"]),
        (["audio/a.wav"], ["eval16k/a.wav"], ["eval16k/a.wav"]),
        (["s1/a.wav", "s2/a.wav"], ["s3/a.wav"], [None, None]),
        (["s1/a.wav"], ["s2/a.wav", "s3/a.wav"], [None]),
        (["a", "s1/a"], ["s1/a.wav"], [None, "s1/a.wav"]),
        (["2023.05.01"], ["2023.05.wav", "2023.05.01.wav"], ["2023.05.01.wav"]),
        (["a"], ["a.wav#ch1"], ["a.wav#ch1"]),
        (["a.wav#ch2"], ["a.wav#ch1", "a.wav#ch2"], ["a.wav#ch2"]),
        (["caf\u00e9"], ["cafe\u0301.wav"], ["cafe\u0301.wav"]),
        (["A.wav"], ["a.wav"], [None]),
        (["--4gqARaEJE"], ["--4gqARaEJE.wav", "--4gqARaEJE_30_40.wav"], ["--4gqARaEJE.wav"]),
        (["--4gqARaEJE_30000"], ["--4gqARaEJE_40_50.wav"], [None]),
        (["--4gqARaEJE_30000", "--4gqARaEJE_40000"], ["--4gqARaEJE_40_50.wav"], [None, "--4gqARaEJE_40_50.wav"]),
        (["--4gqARaEJE", "--4gqARaEJE_40000"], ["--4gqARaEJE_40_50.wav"], [None, "--4gqARaEJE_40_50.wav"]),
        ([], ["a.wav"], []),
        (["a"], [], [None]),
    ],
)  # fmt: skip
def test_the_nearest_name_decides(clips: list[str], recordings: list[str], expected: list[str | None]) -> None:
    found = match(clips, recordings)
    names = {clips[clip]: recordings[place] for clip, place in zip(found.clip, found.recording, strict=True)}
    assert [names.get(clip) for clip in clips] == expected
    assert found.missing == tuple(clip for clip in clips if clip not in names)
    assert found.unlisted == tuple(name for name in recordings if name not in names.values())


@pytest.mark.parametrize(
    ("clips", "recordings", "says"),
    [
        (["a"], ["x/a.wav", "y/a.wav"], "clip a could be any of 2 recordings: x/a.wav, y/a.wav"),
        (["a.wav"], ["a.wav#ch1", "a.wav#ch2"], "clip a.wav could be any of 2 recordings: a.wav#ch1, a.wav#ch2"),
        (["a.wav", "a"], ["a.flac"], "recording a.flac could be any of 2 clips: a.wav, a"),
        (["--4gqARaEJE"], ["--4gqARaEJE_0_10.wav", "--4gqARaEJE_30_40.wav"], "clip --4gqARaEJE could be any of 2 rec"),
        (["--4gqARaEJE_0"], ["--4gqARaEJE_0_10.wav", "Y--4gqARaEJE_0_10.wav"], "clip --4gqARaEJE_0 could be any of 2"),
        (["--4gqARaEJE_0", "--4gqARaEJE_90000"], ["Y--4gqARaEJE.wav"], "recording Y--4gqARaEJE.wav could be any of 2"),
        (list("012345678"), [f"{x}/{n}.wav" for n in range(9) for x in "xy"], "9 names are(.*\n){6}  and 4 more"),
    ],
)  # fmt: skip
def test_names_that_do_not_tell_are_an_error(clips: list[str], recordings: list[str], says: str) -> None:
    with pytest.raises(TruthError, match=says):
        match(clips, recordings)
    mapping = {recordings[0]: clips[0], **{name: "elsewhere" for name in recordings[1:]}}
    found = match(clips, recordings, mapping)
    assert (found.clip.tolist(), found.recording.tolist()) == ([0], [0])


def test_a_mapping_goes_before_names(tmp_path: Path) -> None:
    text = "clip,recording\n--4gqARaEJE,dawn.wav\nnoon,x/b.wav\nnot listed,c.wav\nb,not tagged.wav\n"
    mapping = read_mapping(write(tmp_path, text))
    found = match(["--4gqARaEJE_0.000_10.000", "noon", "b", "c"], ["x/b.wav", "c.wav", "dawn.wav"], mapping)
    assert (found.clip.tolist(), found.recording.tolist()) == ([0, 1], [2, 0])
    assert found.missing == ("b", "c")
    assert found.unlisted == ("c.wav",)
    with pytest.raises(TruthError, match="the mapping has no recording"):
        match(["a"], ["a.wav"], {"b.wav": "a"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b\n", "must have a header with the columns recording and clip"),
        ("", "must have a header"),
        ("recording,clip\n", "lists no recording"),
        ("recording,clip\na.wav,\n", "line 2: the recording or the clip is missing"),
        ("recording,clip\na.wav,x\na.wav,y\n", "line 3: recording a.wav is already in line 2"),
    ],
)
def test_what_is_wrong_with_a_mapping_is_said(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(TruthError, match=says):
        read_mapping(write(tmp_path, text))


def test_many_names_take_little_time() -> None:
    draw = random.Random(1)
    ytids = [
        "".join(draw.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", k=11))
        for _ in range(10_000)
    ]
    begun = process_time()
    found = match([f"{ytid}_30000" for ytid in ytids], [f"eval/Y{ytid}_30.000_40.000.wav" for ytid in reversed(ytids)])
    assert found.recording.tolist() == list(range(10_000))[::-1]
    found = match([f"{ytid}/audio.wav" for ytid in ytids], [f"eval/{ytid}/audio.wav" for ytid in reversed(ytids)])
    assert found.recording.tolist() == list(range(10_000))[::-1]
    assert process_time() - begun < 10  # less than a second; with a search for each name it would be an hour


@pytest.mark.parametrize(
    "text",
    ["a.wav\nb, c.wav\na.wav\n", 'recording,split\na.wav,tune\n"b, c.wav",tune\n', 'clip\na.wav\n"b, c.wav"\n# d\n'],
)
def test_lists_of_names_are_read(tmp_path: Path, text: str) -> None:
    assert read_list(write(tmp_path, text)) == ("a.wav", "b, c.wav")
    with pytest.raises(TruthError, match="lists no clip"):
        read_list(write(tmp_path, "\n"))


def test_a_segment_list_is_a_list_of_names(tmp_path: Path) -> None:
    path = write(tmp_path, SEGMENTS)
    assert read_list(path) == read_weak(path).clips
