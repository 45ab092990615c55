"""Labels in the formats in common use, matched with recordings; and the scores that they are compared with."""

import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
import soundfile
from conftest import ROOT, Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from outputs import CHUNK_S, IDENTITY, LABELS, RUN, write_output
from satpipe.jobs.ground_truth import (
    class_set,
    match,
    positives,
    read_list,
    read_mapping,
    read_strong,
    read_thresholds,
    read_weak,
)
from satpipe.pipeline.tables import files
from satpipe.pipeline.tables.chunk_scores import read_chunks
from satpipe.pipeline.tables.files import PLACE
from satpipe.pipeline.tables.open_folder import Tables
from satpipe.pipeline.tables.output_folder import Output
from satpipe.sat.errors import LabelError, OutputError, SatpipeError, TruthError
from satpipe.sat.labels import Label, find, strong_labels, weak_labels
from satpipe.sat.model.config import CLASSES
from truth_files import SEGMENTS, Row, rows, write
from upath import UPath

STRONG = """\
segment_id\tstart_time_seconds\tend_time_seconds\tlabel
s9d-2nhuJCQ_30000\t2.627\t7.237\t/m/053hz1
b0RFKhbpFJA_30000\t0.000\t10.000\t/m/03m9d0z
b0RFKhbpFJA_30000\t4.753\t5.720\t/m/05zppz
--4gqARaEJE_0\t0.068\t2.497\t/m/068hy
--4gqARaEJE_0\t0.068\t2.497\t/m/068hy
"""
RAVEN = """\
Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tAvg Power (dB FS)\tAnnotation
1\tWaveform 1\t1\t6.709509878\t15.096397225\t1739.012\t3798.813\t\tBird
1\tSpectrogram 1\t1\t6.709509878\t15.096397225\t1739.012\t3798.813\t-75.87\tBird
2\tWaveform 1\t1\t29.383026016\t40.25\t1587.060\t4136.485\t\tOwl
2\tSpectrogram 1\t1\t29.383026016\t40.25\t1587.060\t4136.485\t-75.64\tOwl
"""
AUDACITY = """\
0.500000\t2.250000\tMale speech, man speaking
\\\t120.000000\t3400.000000
3.000000\t3.000000\tBark
"""


def mids(path: Path, **options: Any) -> dict[str, set[str]]:
    """Weak labels of a file: the mids of each clip."""
    truth = read_weak(path, **options)
    found: dict[str, set[str]] = {clip: set() for clip in truth.clips}
    for clip, label in zip(truth.clip, truth.label, strict=True):
        found[truth.clips[clip]].add(truth.labels[label].mid)
    return found


# Weak labels


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text,
        lambda text: text.replace('"', ""),
        lambda text: "\n".join(line for line in text.splitlines() if not line.startswith("#")),
        lambda text: text.replace("# YTID", "YTID"),
        lambda text: "\ufeff" + text.replace("\n", "\r\n"),
        lambda text: text.replace(", ", ",").replace("\n", "\n\n"),
    ],
    ids=["as published", "without quotes", "without comments", "with a header", "from Windows", "without blanks"],
)
def test_segment_lists_of_audioset_are_read(tmp_path: Path, change: Any) -> None:
    assert mids(write(tmp_path, change(SEGMENTS))) == {
        "--4gqARaEJE_0.000_10.000": {"/m/068hy", "/m/07q6cd_", "/m/0bt9lr", "/m/0jbk"},
        "--BfvyPmVMo_20.000_30.000": {"/m/03l9g"},
        "--i-y1v8Hy8_0.000_9.000": {"/m/04rlf", "/m/09x0r", "/t/dd00004", "/t/dd00005"},
        "_0BIyqJj9ZU_30.000_40.000": {"/m/07rgt08", "/m/07sq110", "/t/dd00001"},
        "Arg6lz6Wryw_417.300_427.300": set(),
    }


@pytest.mark.parametrize(
    "text",
    [
        "recording,label\na.wav,Speech\na.wav,/m/0jbk\nb.wav,dog\nc.wav,\n",
        'filename,labels\na.wav,"/m/09x0r,/m/0jbk"\nb.wav,/m/0bt9lr\nc.wav,\n',
        "filename\tevent_labels\na.wav\tSpeech;Animal\nb.wav\tDog\nc.wav\n",
        "file;tags\na.wav;Speech|Animal\nb.wav;Dog\nc.wav;\n",
        'fname,labels,mids,split\na.wav,"x,y","/m/09x0r,/m/0jbk",eval\nb.wav,z,/m/0bt9lr,eval\nc.wav,,,eval\n',
    ],
    ids=["a row for each label", "a row for each clip", "names", "semicolons", "mids go before names"],
)
def test_weak_labels_in_tables_are_read(tmp_path: Path, text: str) -> None:
    assert mids(write(tmp_path, text)) == {"a.wav": {"/m/09x0r", "/m/0jbk"}, "b.wav": {"/m/0bt9lr"}, "c.wav": set()}


def test_classes_that_were_renamed_are_the_same_by_both_names(tmp_path: Path) -> None:
    text = 'recording,label\na,"Canidae, dogs, wolves"\nb,"Canidae, wild dogs, wolves"\nc,/m/01z5f\n'
    assert mids(write(tmp_path, text)) == {clip: {"/m/01z5f"} for clip in "abc"}


def test_weak_labels_become_the_models_outputs(tmp_path: Path) -> None:
    found = positives(read_weak(write(tmp_path, SEGMENTS)))
    assert found.shape == (5, 527)
    assert [np.flatnonzero(row).tolist() for row in found[:2]] == [
        sorted(weak_labels().index(find(each)) for each in ("/m/068hy", "/m/07q6cd_", "/m/0bt9lr", "/m/0jbk")),
        [find("/m/03l9g").index],
    ]
    assert not found[4].any()


def test_weak_labels_close_over_the_ontology(tmp_path: Path) -> None:
    truth = read_weak(write(tmp_path, 'recording,label\na,"Male speech, man speaking"\nb,Music\n'))
    classes = (find("Speech"), find("Human voice"), find("Music"))
    assert positives(truth, classes).tolist() == [[False, False, False], [False, False, True]]
    assert positives(truth, classes, expand=True).tolist() == [[True, True, False], [False, False, True]]


def test_some_clips_can_be_taken(tmp_path: Path) -> None:
    truth = read_weak(write(tmp_path, SEGMENTS))
    part = truth.take(np.array([3, 1]))
    assert part.clips == (truth.clips[3], truth.clips[1])
    np.testing.assert_array_equal(positives(part), positives(truth)[[3, 1]])


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (SEGMENTS + SEGMENTS, TruthError, r"line 12: clip --4gqARaEJE_0.000_10.000 is already in line 4"),
        ("recording,label\na,Dog\nb,Dog\na,Dog\n", TruthError, "line 4: 'Dog' of clip a is already in line 2"),
        ('recording,labels\na,Dog;Cat\nb,Dog\na,Music\n', TruthError, "line 4: clip a is already in line 2"),
        ("--4gqARaEJE, 0.000, ten, /m/09x0r", TruthError, "line 1: offset 'ten' is not a number"),
        ("--4gqARaEJE, 10.000, 0.000, /m/09x0r", TruthError, "line 1: offset 0 s is before onset 10 s"),
        ("--4gqARaEJE, 0.000, 0.000, /m/09x0r", TruthError, "line 1: clip --4gqARaEJE starts and ends at 0 s"),
        ("--4gqARaEJE, -1, 9, /m/09x0r", TruthError, "line 1: time -1 s is negative"),
        ("dawn.wav, 30, 40, /m/09x0r", TruthError, "line 1: dawn.wav from 30 s to 40 s: weak labels must be of"),
        ("--4gqARaEJE, 0.000, 10.000", TruthError, "line 1: 3 cells instead of 4"),
        ('--4gqARaEJE, 0.000, 10.000, "/m/09x0r', TruthError, "line 1: a quote is not closed"),
        ("recording,label\n,Dog", TruthError, "line 2: the clip is missing"),
        ("recording,label\na,Speech, Music", TruthError, "line 2: 3 cells but 2 in the header: cells with commas"),
        (STRONG, TruthError, "line 2: s9d-2nhuJCQ_30000 from 2.627 s to 7.237 s: weak labels must be of whole clips"),
        ("a.wav,Dog\n", TruthError, "no column of clips among a.wav, dog"),
        ("recording,loudness\na,1\n", TruthError, "no column of labels among recording, loudness"),
        ("", TruthError, "lists no clips"),
        ("# nothing\n", TruthError, "lists no clips"),
        (b"recording,label\n\xff\xfe,Dog", TruthError, "not UTF-8 text"),
        ("recording,label\na,Dogg", LabelError, r"line 2: label 'Dogg' not found; did you mean 'Dog' \(/m/0bt9lr\)"),
        ("recording,label\na,137", LabelError, "line 2: 137 is a number: a label must be a mid or a name"),
        ("recording,label\na,/m/0nosuch", LabelError, "line 2: label '/m/0nosuch' not found"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_weak_labels_is_said(
    tmp_path: Path, text: str | bytes, error: type[SatpipeError], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_weak(write(tmp_path, text))


def test_of_many_bad_lines_five_are_shown_in_their_order(tmp_path: Path) -> None:
    labels = [label for n in range(10) for label in ("Dog", f"Dogg{n}")]
    text = "recording,label\n" + "".join(f"{n},{label}\n" for n, label in enumerate(labels)) + '"x,Dog\n'
    with pytest.raises(TruthError) as raised:
        read_weak(write(tmp_path, text))
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("truth.csv has 11 invalid lines:")
    assert [line.split(":")[0] for line in lines[1:]] == [*(f"  line {n}" for n in (3, 5, 7, 9, 11)), "  and 6 more"]


def test_an_unknown_label_is_named_once_however_often_it_occurs(tmp_path: Path) -> None:
    text = "recording,label\n" + "".join(f"{n},{label}\n" for n, label in enumerate(["Dog", "Dogg", "Catt"] * 4))
    with pytest.raises(LabelError) as raised:
        read_weak(write(tmp_path, text))
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("has 8 invalid lines:")
    assert [line.split(":")[0] for line in lines[1:]] == ["  line 3 and 3 more", "  line 4 and 3 more"]
    assert ("'Dogg'" in lines[1], "'Catt'" in lines[2]) == (True, True)


def test_unknown_labels_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path, "recording,labels\na,Dog;Quokka\nb,Quokka\n")
    assert mids(path, unknown="skip") == {"a": {"/m/0bt9lr"}, "b": set()}
    assert read_weak(path, unknown="skip").unknown == {"Quokka": 2}
    path = write(tmp_path, "0\t1\tQuokka\n1\t2\tDog\n2\t3\tQuokka\n", "dawn.txt")
    truth = read_strong(path, unknown="skip")
    assert rows(truth) == [("dawn", "Dog", 1, 2)]
    assert truth.unknown == {"Quokka": 2}


# Strong labels


def test_strong_labels_of_audioset_are_read(tmp_path: Path) -> None:
    truth = read_strong(write(tmp_path, STRONG, "audioset_eval_strong.tsv"))
    assert truth.clips == ("s9d-2nhuJCQ_30000", "b0RFKhbpFJA_30000", "--4gqARaEJE_0")
    assert rows(truth)[:3] == [
        ("s9d-2nhuJCQ_30000", "Cheering", 2.627, 7.237),
        ("b0RFKhbpFJA_30000", "Wind", 0, 10),
        ("b0RFKhbpFJA_30000", "Male speech, man speaking", 4.753, 5.72),
    ]
    assert len(truth.events) == 5
    assert truth.duplicates == 1
    assert truth.take(np.array([0, 1])).duplicates == 0


EVENTS: list[Row] = [("a.wav", "Dog", 0.5, 2.25), ("a.wav", "Male speech, man speaking", 3, 3), ("b.wav", "Dog", 0, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "filename\tonset\toffset\tevent_label\na.wav\t0.5\t2.25\tDog\na.wav\t3\t3\tMale speech, man speaking\n"
        "b.wav\t0\t1e0\tDog\nc.wav\t\t\t\n",
        'filename,onset,offset,event_label\na.wav,0.5,2.25,dog\na.wav,3,3,"Male speech, man speaking"\n'
        "b.wav,0,1,Dog\nc.wav,,,\n",
        "onset_s;offset_s;mid;label;recording\n0.5;2.25;/m/0bt9lr;Hund;a.wav\n3;3;/m/05zppz;Mann;a.wav\n"
        "0;1;/m/0bt9lr;Hund;b.wav\nnan;nan;;;c.wav\n",
        "Audio_File,Start Time (s),End Time (s),Species\na.wav,0.5,2.25,Dog\na.wav,3,3,/m/05zppz\n"
        "b.wav,0,1,Dog\nc.wav\n",
        "a.wav\t0.5\t2.25\tDog\na.wav\t3\t3\tMale speech, man speaking\nb.wav\t0\t1\tDog\nc.wav\n",
        "c.wav\na.wav,0.5,2.25,Dog\na.wav,3,3,Male speech, man speaking\nb.wav,0,1,Dog\n",
        '"segment_id"\t"start"\t"end"\t"label"\n"a.wav"\t0.5\t2.25\t"Dog"\n"a.wav"\t3\t3\t"Male speech, man speaking"\n'
        '"b.wav"\t0\t1\t"Dog"\n"c.wav"\t\t\t""\n',
    ],
    ids=["DCASE", "commas", "semicolons and mids", "other names", "sed_eval", "no header, commas", "quoted tabs"],
)  # fmt: skip
def test_strong_labels_in_tables_are_read(tmp_path: Path, text: str) -> None:
    truth = read_strong(write(tmp_path, text))
    assert rows(truth) == EVENTS
    assert set(truth.clips) == {"a.wav", "b.wav", "c.wav"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("dawn.txt", AUDACITY, [("Male speech, man speaking", 0.5, 2.25), ("Bark", 3, 3)]),
        ("dawn.csv", "onset,offset,label\n0.5,2.25,Dog\n", [("Dog", 0.5, 2.25)]),
        ("dawn.csv", "0.5,2.25,Male speech, man speaking\n", [("Male speech, man speaking", 0.5, 2.25)]),
        ("dawn.Table.1.selections.txt", RAVEN, [("Bird", 6.709509878, 15.096397225), ("Owl", 29.383026016, 40.25)]),
        ("dawn.selections.txt", "Begin Time (s)\tEnd Time (s)\tTag\n1\t2\tOwl\n", [("Owl", 1, 2)]),
        ("dawn.tsv", "onset\toffset\tlabel\n", []),
    ],
    ids=["Audacity", "simple", "no header", "Raven", "Raven, few columns", "no events"],
)  # fmt: skip
def test_files_of_one_recording_are_read(tmp_path: Path, name: str, text: str, expected: Sequence[Any]) -> None:
    truth = read_strong(write(tmp_path, text, name))
    assert truth.clips == ("dawn",)
    assert rows(truth) == [("dawn", *event) for event in expected]


def test_ravens_tables_over_several_files_take_the_place_in_the_file(tmp_path: Path) -> None:
    header = "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tBegin File\tFile Offset (s)\tSpecies\n"
    text = header + "1\tSpectrogram 1\t1\t5\t6.5\ta.wav\t5\tOwl\n2\tSpectrogram 1\t1\t65\t66\tb.wav\t5.25\tOwl\n"
    assert rows(read_strong(write(tmp_path, text))) == [("a.wav", "Owl", 5, 6.5), ("b.wav", "Owl", 5.25, 6.25)]
    text = "Begin Time (s)\tEnd Time (s)\tBegin File\tSpecies\n5\t6\ta.wav\tOwl\n65\t66\tb.wav\tOwl\n"
    with pytest.raises(TruthError, match="line 3: Raven's times run through several files"):
        read_strong(write(tmp_path, text))


def test_a_folder_has_a_file_for_each_recording(tmp_path: Path) -> None:
    write(tmp_path, AUDACITY, "in/dawn.txt")
    write(tmp_path, RAVEN, "in/site1/dusk.Table.1.selections.txt")
    write(tmp_path, "", "in/site1/noon.wav.txt")
    write(tmp_path, "Begin Time (s)\tEnd Time (s)\tBegin File\tAnnotation\n", "in/night.Table.1.selections.txt")
    write(tmp_path, "no labels", "in/notes.md")
    write(tmp_path, "no labels", "in/.hidden.txt")
    truth = read_strong(tmp_path / "in")
    assert set(truth.clips) == {"dawn", "site1/dusk", "site1/noon.wav", "night"}
    assert [row[:2] for row in rows(truth)] == [
        ("dawn", "Male speech, man speaking"), ("dawn", "Bark"), ("site1/dusk", "Bird"), ("site1/dusk", "Owl")
    ]  # fmt: skip
    found = match(truth.clips, ["dawn.wav", "site1/dusk.flac", "site1/noon.wav", "site2/night.mp3"])
    assert not found.missing
    assert not found.unlisted

    write(tmp_path, AUDACITY, "in/dawn.csv")
    with pytest.raises(TruthError, match=r"dawn.csv and \S*dawn.txt both belong to recording dawn: keep one"):
        read_strong(tmp_path / "in")
    with pytest.raises(TruthError, match="no files with the suffixes .txt, .tsv"):
        read_strong(write(tmp_path, "", "audio/dawn.wav").parent)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        (STRONG + "x\t-0.5\t1\t/m/053hz1\n", TruthError, "line 7: time -0.5 s is negative"),
        (STRONG + "x\t3\t1\t/m/053hz1\n", TruthError, "line 7: offset 1 s is before onset 3 s"),
        (STRONG + "x\t1\tinf\t/m/053hz1\n", TruthError, "line 7: offset 'inf' is not a number"),
        (STRONG + "x\t1_0\t30\t/m/053hz1\n", TruthError, "line 7: onset '1_0' is not a number"),
        (STRONG + "x\t1\t\t/m/053hz1\n", TruthError, "line 7: the offset is missing"),
        (STRONG + "\t1\t2\t/m/053hz1\n", TruthError, "line 7: the clip is missing"),
        (STRONG + "x\t1\t2\n", LabelError, "line 7: the label is missing$"),
        (STRONG + "x\t1\t2\tCheeering\n", LabelError, "line 7: label 'Cheeering' not found; did you mean 'Cheering'"),
        (STRONG + "x\t1\t2\tx\nx\t2\t1\t/m/053hz1\n", TruthError, "2 invalid lines:\n  line 7: .*\n  line 8: offset"),
        (SEGMENTS, LabelError, "line 4: /m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk must be one label"),
        ("0.5\t1.5\t3\n", LabelError, "line 1: 3 is a number"),
        ("filename\tonset\toffset\na.wav\t1\t2\n", TruthError, "no column of labels; its columns are filename, onset"),
        ("filename,onset_ms,offset_ms,label\na.wav,1,2,Dog\n", TruthError, "no column of onsets or of offsets"),
        ("a b c\nd e f\n", TruthError, "has no strong labels in a format that satpipe reads"),
        ("filename,onset,offset,label\n", TruthError, "lists no clips"),
        ("", TruthError, "is empty"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_strong_labels_is_said(
    tmp_path: Path, text: str, error: type[SatpipeError], says: str
) -> None:
    with pytest.raises(error, match=says):
        read_strong(write(tmp_path, text, "truth.tsv"))
    with pytest.raises(TruthError, match="there_is_none.csv cannot be read: No such file"):
        read_strong(tmp_path / "there_is_none.csv")


numbers_s = st.floats(0, 1e5).map(lambda value: round(value, 6))
some_class = st.sampled_from(strong_labels())
some_event = st.tuples(st.sampled_from(["a", "-b_1", "c d"]), some_class, numbers_s, numbers_s)


@settings(deadline=None)
@given(st.lists(some_event.map(lambda e: (e[0], e[1], min(e[2:]), max(e[2:])))), st.sampled_from("\t,;"), st.booleans())
def test_what_is_written_is_what_is_read(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[str, Label, float, float]], mark: str, by_mid: bool
) -> None:
    lines = [mark.join(["filename", "onset", "offset", "event_label"]), mark.join(["empty", "", "", ""])]
    lines += [
        mark.join([clip, repr(onset), repr(offset), label.mid if by_mid else f'"{label.name}"'])
        for clip, label, onset, offset in events
    ]
    truth = read_strong(write(tmp_path_factory.getbasetemp(), "\n".join(lines), "round.csv"))
    assert rows(truth) == [(clip, label.name, onset, offset) for clip, label, onset, offset in events]
    assert truth.duplicates == len(events) - len(set(events))


columns = ["filename", "onset", "offset", "label", "mid", "threshold", "Selection", "View", "Begin File", "clip"]
cells = ["recording", "--4gqARaEJE", "a.wav", "0", "1.5", "-1", "nan", "inf", "", '"', "/m/09x0r", "Dog", "x" * 20]
pieces = st.sampled_from(columns + cells + ["#", "\\", "\x00"] + ["\t", ",", ";", "\n", "\r", "|", " "] * 3)
readers = st.sampled_from(
    [
        lambda path: read_weak(path).clips, lambda path: read_strong(path).clips, read_list, read_mapping,
        lambda path: class_set(path).labels, read_thresholds,
    ]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=60).map("".join) | st.binary(max_size=60), readers)
def test_whatever_a_file_holds_it_is_read_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: str | bytes, read: Any
) -> None:
    path = write(tmp_path_factory.getbasetemp(), content, "whatever.csv")
    with suppress(TruthError, LabelError):
        assert len(read(path)) > 0


# Scores


def scores_by_rule(name: str, chunks: int) -> npt.NDArray[np.float32]:
    seed = int.from_bytes(name.encode(), "big") % 2**32
    return np.random.default_rng(seed).random((chunks, CLASSES), np.float32)


def make(folder: str | Path, *batches: dict[str, int], **given: Any) -> Output:
    """An output folder with batches of recordings, each with so many chunks."""
    by_rule = ({name: scores_by_rule(name, chunks) for name, chunks in batch.items()} for batch in batches)
    return write_output(folder, *by_rule, **given)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    make(tmp_path / "out", {"x/a.wav": 3, "b.wav": 5, "none.wav": 0}, {"c.wav": 1, "d.wav": 20})
    return tmp_path / "out"


CHUNKS = {"x/a.wav": 3, "b.wav": 5, "none.wav": 0, "c.wav": 1, "d.wav": 20}


@pytest.mark.parametrize("where", ["local", "store"])
@pytest.mark.parametrize("row_group", [4, 16_384])
def test_scores_are_read_recording_by_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, row_group: int
) -> None:
    monkeypatch.setattr(files, "ROW_GROUP_CHUNKS", row_group)
    folder = str(tmp_path / "out") if where == "local" else f"memory://out{row_group}"
    make(folder, {"x/a.wav": 3, "b.wav": 5, "none.wav": 0}, {"c.wav": 1, "d.wav": 20})
    found = Tables(folder)
    assert dict(zip(found.recordings, found.chunks, strict=True)) == CHUNKS
    assert dict(zip(found.recordings, found.statuses, strict=True))["none.wav"] == "empty"
    assert [found.recordings[place] for place in np.flatnonzero(np.isnan(found.duration_s))] == ["none.wav"]
    assert found.notes == ()
    assert found.model["chunk_s"] == CHUNK_S
    assert (found.model["memory"], found.model["delay_s"], found.model["cut"]) == ("on", 2.0, "gapless")
    for names in (list(CHUNKS), ["d.wav", "none.wav", "x/a.wav"], ["c.wav"], []):
        for columns in (None, [5, 500, 0]):
            read = read_chunks(found, names, columns)
            counts = [CHUNKS[name] for name in names]
            expected = [scores_by_rule(name, CHUNKS[name]).astype(np.float16) for name in names if CHUNKS[name]]
            values = np.concatenate([np.empty((0, CLASSES), np.float16), *expected])
            np.testing.assert_array_equal(read.scores, values if columns is None else values[:, columns])
            np.testing.assert_array_equal(read.clip, np.repeat(np.arange(len(names)), counts))
            np.testing.assert_array_equal(read.chunk, np.concatenate([[], *map(np.arange, counts)]))
            np.testing.assert_array_equal(read.first, np.cumsum([0, *counts]))
            np.testing.assert_allclose(read.start_s, read.chunk * CHUNK_S)
            np.testing.assert_allclose(
                read.end_s[read.first[1:][np.array(counts, int) > 0] - 1], [(n - 0.5) * CHUNK_S for n in counts if n]
            )
            assert len(read) == sum(counts)
    assert read_chunks(Tables(folder)).recordings == found.recordings


def test_many_recordings_and_long_ones_take_little_time(tmp_path: Path) -> None:
    short = {f"Y{number:011}.wav": 5 for number in range(200)}
    make(tmp_path, short, {"day.wav": 4_000})
    begun = process_time()
    read = read_chunks(Tables(tmp_path), ["day.wav", "Y00000000007.wav"], [3])
    np.testing.assert_array_equal(read.scores[-5:, 0], scores_by_rule("Y00000000007.wav", 5)[:, 3].astype(np.float16))
    np.testing.assert_array_equal(read.scores[:-5, 0], scores_by_rule("day.wav", 4_000)[:, 3].astype(np.float16))
    assert process_time() - begun < 10  # half a second
    assert read.scores.nbytes == 2 * 4_005


def test_a_folder_without_scores_says_how_to_make_them(out: Path, tmp_path: Path) -> None:
    make(tmp_path / "bare", run={**RUN, "identity": {**IDENTITY, "scores": False}})
    with pytest.raises(OutputError, match="has no scores of chunks: run `satpipe tag ... --scores` into another"):
        Tables(tmp_path / "bare")
    with pytest.raises(OutputError, match="is not an output folder of satpipe: it has no run.json"):
        Tables(tmp_path)
    with pytest.raises(OutputError, match="has no recording e.wav, f.wav"):
        read_chunks(Tables(out), ["e.wav", "c.wav", "f.wav"])


def test_scores_of_other_classes_are_refused(tmp_path: Path) -> None:
    swapped = [*LABELS[:7], LABELS[8], LABELS[7], *LABELS[9:]]
    make(tmp_path / "swapped", run={**RUN, "labels": swapped})
    says = f"index 7 is {LABELS[8]['mid']}, not {LABELS[7]['mid']}"
    with pytest.raises(OutputError, match=f"has other classes than this version of satpipe: {says}"):
        Tables(tmp_path / "swapped")
    make(tmp_path / "fewer", run={**RUN, "labels": LABELS[:-1]})
    with pytest.raises(OutputError, match="has scores of 526 classes, this version of satpipe knows 527"):
        Tables(tmp_path / "fewer")
    renamed = [{**label, "name": "?"} for label in LABELS]
    make(tmp_path / "renamed", {"a.wav": 1}, run={**RUN, "labels": renamed})
    assert Tables(tmp_path / "renamed").recordings == ("a.wav",)


def test_a_run_that_is_not_finished_is_noted(tmp_path: Path) -> None:
    running = {key: value for key, value in RUN.items() if key != "finished"}
    make(tmp_path / "running", {"a.wav": 1}, run=running)
    with make(tmp_path / "staged", {"a.wav": 1}, done=False).staging.stage() as file:
        file.conclude([])
    for name in ("running", "staged"):
        (note,) = Tables(tmp_path / name).notes
        assert "is not finished: recordings may be missing; the same `satpipe tag` command continues" in note


def test_what_a_killed_run_left_does_not_count(out: Path) -> None:
    run = {key: value for key, value in RUN.items() if key != "finished"}
    (out / "run.json").write_text(json.dumps(run))
    expected = read_chunks(Tables(out))
    batch = next((out / "scores").iterdir())
    shutil.copy(batch, out / "scores" / "unpublished.parquet")
    np.testing.assert_array_equal(read_chunks(Tables(out)).scores, expected.scores)
    shutil.copy(out / "recordings" / batch.name, out / "recordings" / "unpublished.parquet")
    with pytest.raises(OutputError, match=f"unpublished.parquet was recordings/{batch.name} originally"):
        Tables(out)


def test_tables_that_are_not_whole_are_an_error(out: Path) -> None:
    batch = next(path for path in (out / "scores").iterdir() if "b.wav" in pq.read_table(path)["recording"].to_pylist())
    whole = pq.read_table(batch)
    pq.write_table(whole, batch)
    with pytest.raises(OutputError, match=f"{batch.name} was replaced"):
        read_chunks(Tables(out))
    whole = whole.replace_schema_metadata({PLACE: f"scores/{batch.name}"})
    pq.write_table(whole.slice(1), batch)
    with pytest.raises(OutputError, match=f"{batch.name} has {len(whole) - 1} rows instead of {len(whole)}"):
        read_chunks(Tables(out))
    pq.write_table(whole.take([*range(len(whole) - 1), 0]), batch)
    with pytest.raises(OutputError, match=f"{batch.name} has scores of a chunk twice: delete it, then `satpipe"):
        read_chunks(Tables(out))
    pq.write_table(whole.drop(["end_s"]), batch)
    with pytest.raises(OutputError, match="is not a table of scores of this version of satpipe"):
        read_chunks(Tables(out))
    batch.write_bytes(b"PAR1")
    with pytest.raises(OutputError, match=f"{batch.name} cannot be read, or is not a satpipe table"):
        read_chunks(Tables(out))
    batch.unlink()
    with pytest.raises(OutputError, match=f"{batch.name} is missing"):
        Tables(out)


def test_a_run_that_does_not_say_what_made_it_is_an_error(out: Path) -> None:
    path = out / "run.json"
    path.write_text(json.dumps({**RUN, "identity": {"scores": True}}))
    with pytest.raises(OutputError, match="run.json does not contain the model of the scores"):
        Tables(out)


def test_labels_are_read_from_a_store(tmp_path: Path) -> None:
    UPath("memory://truth/weak.csv").write_text(SEGMENTS)
    UPath("memory://truth/strong/dawn.txt").write_text(AUDACITY)
    assert len(read_weak("memory://truth/weak.csv").clips) == 5
    assert read_strong("memory://truth/strong").clips == ("dawn",)
    with pytest.raises(TruthError, match="cannot be read"):
        read_weak("memory://truth/none.csv")


@pytest.mark.slow
def test_what_tag_wrote_is_read(satpipe_here: Satpipe, tmp_path: Path) -> None:
    sound, rate_hz = soundfile.read(ROOT / "examples" / "recordings" / "speech_16k_mono.WAV", dtype="float32")
    folder = tmp_path / "in" / "eval"
    folder.mkdir(parents=True)
    for name, seconds in (("Y--4gqARaEJE.wav", 4), ("Y_0BIyqJj9ZU.wav", 2), ("other.wav", 1)):
        soundfile.write(folder / name, sound[: seconds * rate_hz], rate_hz)
    done = satpipe_here("tag", tmp_path / "in", "-o", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = Tables(tmp_path / "out")
    truth = read_weak(write(tmp_path, SEGMENTS))
    matched = match(truth.clips, found.recordings)
    names = [found.recordings[place] for place in matched.recording]
    assert names == ["eval/Y--4gqARaEJE.wav", "eval/Y_0BIyqJj9ZU.wav"]
    assert matched.unlisted == ("eval/other.wav",)
    read = read_chunks(found, names)
    assert read.first.tolist() == [0, 3, 5]
    assert read.end_s[[2, 4]].tolist() == found.duration_s[matched.recording].tolist() == [4, 2]
    assert weak_labels()[read.scores.astype(np.float32).mean(0).argmax()].name == "Speech"
    assert positives(truth.take(matched.clip)).shape == (2, 527)
    assert (found.model["arch"], found.model["memory"], found.notes) == ("SAT_T_2s", "on", ())
