"""Label files of every dialect, each written by its own program, and label sets in terms of AudioSet's classes."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import jams
import numpy as np
import pandas as pd
import parselmouth
import pytest
from outputs import scores_of, write_output
from satpipe.jobs.evaluate import EvaluationResult, evaluate
from satpipe.jobs.evaluate import write as write_result
from satpipe.jobs.events import EventOptions
from satpipe.jobs.events import write as write_events
from satpipe.jobs.ground_truth import StrongLabels, class_set, read_aliases, read_strong, read_weak
from satpipe.jobs.ground_truth.aliases import SHIPPED
from satpipe.jobs.metrics.sound_events import Events, within
from satpipe.pipeline.tables import open_folder
from satpipe.reports.evaluation import result_text
from satpipe.sat.errors import ConfigError, LabelError, TruthError
from satpipe.sat.labels import find

EVENTS = [(0.5, 2.25, "Dog"), (3.0, 4.125, "Male speech, man speaking"), (3.5, 6.0, "Dog")]
Rows = list[tuple[str, float, float, str]]


def rows(labels: StrongLabels) -> Rows:
    events = labels.events
    columns = (events.clip, events.onset_s, events.offset_s, events.label)
    return sorted(
        (labels.clips[clip], round(float(onset), 6), round(float(offset), 6), labels.labels[label].name)
        for clip, onset, offset, label in zip(*columns, strict=True)
    )


EXPECTED = [("dawn", *event) for event in EVENTS]


def by_jams(path: Path) -> None:
    sounds = jams.Annotation("tag_open", duration=10.0)
    for start, end, label in EVENTS:
        sounds.append(time=start, duration=end - start, value=label, confidence=1.0)
    beats = jams.Annotation("beat", duration=10.0)
    beats.append(time=1.0, duration=0.0, value=1.0)
    file = jams.JAMS(annotations=[sounds, beats])
    file.file_metadata.duration = 10.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its use of jsonschema
        file.save(str(path))


def by_praat(path: Path, command: str = "Save as text file") -> None:
    grid = parselmouth.praat.call("Create TextGrid", 0.0, 10.0, "Dog speech", "")
    for start, end, label in EVENTS:
        tier = 1 if label == "Dog" else 2
        for time in (start, end):
            parselmouth.praat.call(grid, "Insert boundary", tier, time)
    for start, end, label in EVENTS:
        tier = 1 if label == "Dog" else 2
        place = parselmouth.praat.call(grid, "Get interval at time", tier, (start + end) / 2)
        parselmouth.praat.call(grid, "Set interval text", tier, place, label)
    parselmouth.praat.call(grid, f"{command}...", str(path))


def by_dcase_util(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from dcase_util.containers import MetaDataContainer  # type: ignore[import-untyped, unused-ignore]

        items = [
            {"filename": "dawn.wav", "scene_label": "forest", "onset": start, "offset": end, "event_label": label}
            for start, end, label in EVENTS
        ]
        MetaDataContainer(items).save(str(path), csv_header=False)


def by_pandas(path: Path) -> None:
    frame = pd.DataFrame(EVENTS, columns=["onset", "offset", "event_label"]).assign(filename="dawn.wav")
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)


WRITERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "dawn.jams": (by_jams, "JAMS"),
    "dawn.TextGrid": (by_praat, "TextGrid"),
    "dawn.textgrid": (lambda path: by_praat(path, "Save as short text file"), "TextGrid"),
    "truth.ann": (by_dcase_util, "list of clip, scene, onset, offset, label"),
    "truth.parquet": (by_pandas, "Parquet with the columns filename, onset, offset, event_label"),
    "truth.csv": (by_pandas, "table with the columns filename, onset, offset, event_label"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_what_a_program_wrote_is_read_and_said_what_it_is(tmp_path: Path, name: str) -> None:
    write, dialect = WRITERS[name]
    write(tmp_path / name)
    labels = read_strong(tmp_path / name)
    assert [(clip.removesuffix(".wav"), *rest) for clip, *rest in rows(labels)] == EXPECTED
    assert labels.dialect == dialect


@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ("dawn\t0.5\t2.25\tDog\ndusk\t1\t2\tBird\n", "list of clip, onset, offset, label"),
        ("dawn\tforest\t0.5\t2.25\tDog\ndusk\tforest\t1\t2\tBird\n", "list of clip, scene, onset, offset, label"),
        ("dawn,0.5,2.25,Dog,0.93\ndusk,1,2,Bird,1\n", "list of clip, onset, offset, label"),
    ],
)
def test_lists_without_a_header(tmp_path: Path, text: str, dialect: str) -> None:
    (tmp_path / "list.txt").write_text(text)
    labels = read_strong(tmp_path / "list.txt")
    assert rows(labels) == [("dawn", 0.5, 2.25, "Dog"), ("dusk", 1.0, 2.0, "Bird")]
    assert labels.dialect == dialect


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "events.parquet"
    pd.DataFrame({"recording": "dawn", "onset": [0.5], "offset": [2.25], "label": "Dog"}).to_parquet(path)
    whole = path.read_bytes()
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    path.write_bytes(whole[:footer] + bytes(len(whole) - 8 - footer) + whole[-8:])
    with pytest.raises(TruthError, match=r"events\.parquet is not a Parquet file"):
        read_strong(path)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five chunks each: a dog in two of them, an alarm by its parts, and a vacuum cleaner."""
    folder = tmp_path_factory.mktemp("out")
    made = {
        "dawn.wav": scores_of(5, Dog=[0.9, 0.9, 0, 0, 0], Alarm=[0, 0, 0.7, 0, 0], Doorbell=[0, 0, 0, 0.8, 0]),
        "dusk.wav": scores_of(5, **{"Vacuum cleaner": [0, 0.6, 0.6, 0, 0], "Dog": [0, 0, 0, 0.9, 0]}),
    }
    write_output(folder, made)
    return folder


@pytest.mark.parametrize("format", ["parquet", "csv", "jams", "textgrid", "raven", "audacity"])
def test_the_own_events_of_every_format_are_ground_truth(out: Path, tmp_path: Path, format: str) -> None:
    to = tmp_path / (f"events.{format}" if format in ("parquet", "csv") else "events")
    write_events(out, EventOptions(labels=("Dog", "Vacuum cleaner")), to, format)
    found = [(clip.removesuffix(".wav"), *rest) for clip, *rest in rows(read_strong(to))]
    expected = [("dawn", 0, 3.84, "Dog"), ("dusk", 1.92, 5.76, "Vacuum cleaner"), ("dusk", 5.76, 7.68, "Dog")]
    assert found == expected


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.jams", '{"annotations": [{"namespace": "beat", "data": []}]}', "but of beat"),
        ("a.jams", '{"sandbox": {}}', "not a JAMS file: KeyError: 'annotations'"),
        ("a.TextGrid", 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n10\n<exists>\n1\n', "not a complete"),
        ("a.TextGrid", "onset\toffset\tlabel\n", "not a"),
        ("a.TextGrid", '"ooTextFile" "TextGrid" 0 10 <exists> 1e999', "not a TextGrid"),
        ("a.parquet", "onset\toffset\tlabel\n", "not a Parquet file"),
        ("a.csv", "onset|offset|label\n1|2|Dog\n", r"separated by '\|': tabs, commas or semicolons are read"),
        ("a.txt", "1.0 2.0 Dog\n", "separated by spaces"),
        (
            "a.tsv",
            "onset\toffset\tlabel\n1,2,Dog\n",
            "line 2: cells are separated by commas, but those of the first line by",
        ),
        ("a.csv", "recording,onset,offset,label,correct\na,1,2,Dog,maybe\n", "'maybe' must be yes, no, unsure"),
    ],
)
def test_what_cannot_be_read_is_said_with_the_file(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(TruthError, match=says) as raised:
        read_strong(tmp_path / name)
    assert name in str(raised.value)


# What was judged


FRAMED = """\
segment_id\tstart_time_seconds\tend_time_seconds\tlabel\tpresent
dawn\t0.000\t0.960\tDog\tPRESENT
dawn\t0.960\t1.920\tDog\tPRESENT
dawn\t1.920\t2.880\tDog\tNOT_PRESENT
dawn\t0.000\t0.960\tAlarm\tNOT_PRESENT
dusk\t0.000\t0.960\tAlarm\tNOT_PRESENT
"""


def test_frames_that_are_not_present_are_no_events_and_those_that_touch_are_one(tmp_path: Path) -> None:
    (tmp_path / "framed.tsv").write_text(FRAMED)
    labels = read_strong(tmp_path / "framed.tsv")
    assert rows(labels) == [("dawn", 0.0, 1.92, "Dog")]
    assert (labels.clips, labels.dialect) == (("dawn", "dusk"), "AudioSet's framed labels")
    assert labels.judged is not None
    assert sorted(labels.judged.offset_s.tolist()) == [0.96, 0.96, 2.88]


def test_only_what_was_judged_counts(out: Path, tmp_path: Path) -> None:
    """The dog of dusk was found, but nobody judged dogs there; of the dog of dawn, 0.96 s are wrong."""
    (tmp_path / "framed.tsv").write_text(FRAMED)
    result = evaluate(out, strong=tmp_path / "framed.tsv", segment_s=0.96, bootstrap=0, psds_thresholds="0")
    figures = {(each["name"], each["average"]): each["value"] for each in result["figures"]}
    assert figures["segment_precision", "micro"] == pytest.approx(2 / 3)
    assert figures["segment_recall", "micro"] == 1
    assert result["truth"]["strong"]["judged"] == 3
    assert not any("_closed" in name for name, _ in figures)


def test_sheets_say_what_is_an_event(tmp_path: Path) -> None:
    header = "clip,recording,start_s,end_s,time_local,label,mid,score,correct\n"
    answers = {"yes": 0, "no": 2, "unsure": 4, "": 6}
    text = "".join(f"c{at},dawn.wav,{at},{at + 1},,Dog,/m/0bt9lr,0.9,{answer}\n" for answer, at in answers.items())
    (tmp_path / "sheet.csv").write_text(header + text)
    labels = read_strong(tmp_path / "sheet.csv")
    assert rows(labels) == [("dawn.wav", 0.0, 1.0, "Dog")]
    assert labels.judged is not None
    assert labels.judged.onset_s.tolist() == [0.0, 2.0]
    weak = read_weak(write_text(tmp_path / "weak.csv", "recording,label,correct\na,Dog,no\na,Bird,yes\nb,Dog,no\n"))
    assert (weak.clips, [weak.labels[label].name for label in weak.label]) == (("a", "b"), ["Bird"])


def write_text(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_parts_of_events_within_stretches() -> None:
    events = Events.of([0, 0, 1, 1], [0, 1, 0, 0], [0, 0, 5, 8], [10, 10, 6, 9])
    stretches = Events.of([0, 0, 1], [0, 0, 0], [1, 4, 5.5], [2, 12, 8]).merged()
    row, parts = within(events, stretches)
    assert row.tolist() == [0, 0, 2]
    assert list(zip(parts.onset_s.tolist(), parts.offset_s.tolist(), strict=True)) == [(1, 2), (4, 10), (5.5, 6)]


# Label sets of others


def value(result: EvaluationResult, name: str, average: str = "micro") -> float:
    (found,) = [each for each in result["figures"] if (each["name"], each["average"]) == (name, average)]
    return float(found["value"])


def test_labels_of_desed_are_understood_and_several_classes_are_one_target(out: Path, tmp_path: Path) -> None:
    text = (
        "filename\tonset\toffset\tevent_label\n"
        "dawn.wav\t0.0\t3.84\tDog\ndawn.wav\t3.84\t7.68\tAlarm_bell_ringing\n"
        "dusk.wav\t1.92\t5.76\tVacuum_cleaner\ndusk.wav\t5.76\t7.68\tDog\n"
    )
    truth = write_text(tmp_path / "desed.tsv", text)
    with pytest.raises(LabelError, match="Vacuum_cleaner"):
        evaluate(out, strong=truth, bootstrap=0)
    result = evaluate(out, strong=truth, aliases="desed", bootstrap=0)
    assert value(result, "segment_f1") == 1
    assert value(result, "event_f1") == 1  # the alarm and the doorbell are one event
    assert result["truth"]["strong"]["classes"] == 10
    assert "table with the columns filename, onset, offset, event_label" in "\n".join(result_text(result))
    weak = write_text(
        tmp_path / "weak.tsv", "filename\tevent_labels\ndawn.wav\tDog,Alarm_bell_ringing\ndusk.wav\tDog\n"
    )
    result = evaluate(out, weak=weak, aliases="desed", bootstrap=0)
    by_class = {row["label"]: row for row in result["classes"]}
    assert by_class["Alarm_bell_ringing"]["average_precision"] == 1
    assert by_class["Alarm_bell_ringing"]["clips"] == 1
    assert by_class["Dog"]["clips"] == 2


def test_events_take_the_thresholds_that_evaluate_chose(out: Path, tmp_path: Path) -> None:
    text = "filename\tonset\toffset\tevent_label\ndawn.wav\t3.84\t5.76\tAlarm_bell_ringing\n"
    truth = write_text(tmp_path / "t.tsv", text)
    options = {"strong": truth, "aliases": "desed", "tune": "all", "bootstrap": 0, "psds_thresholds": "0"}
    write_result(evaluate(out, **options), tmp_path / "tuned")
    path = tmp_path / "tuned" / "thresholds.json"
    content = json.loads(path.read_text())
    assert content["model_sha256"] == "abc"
    assert content["groups"]["desed/Alarm_bell_ringing"]["threshold"] <= 0.7  # one threshold for alarm and doorbell
    written = write_events(out, EventOptions(labels=("Alarm", "Dog"), threshold=path), tmp_path / "events.csv")
    assert (written.labels, written.notes) == ({"Alarm": 1, "Dog": 2}, ())
    path.write_text(json.dumps(content | {"model_sha256": "other", "default": 0.95}))
    written = write_events(out, EventOptions(labels=("Alarm", "Dog"), threshold=path), tmp_path / "events.csv")
    assert (written.labels, len(written.notes)) == ({"Alarm": 1}, 1)
    assert "were chosen for another model" in written.notes[0]
    path.write_text(json.dumps(content | {"median_filter": {"/m/0bt9lr": 3}}))
    written = write_events(out, EventOptions(labels=("Alarm", "Dog"), threshold=path), tmp_path / "events.csv")
    assert written.labels == {"Alarm": 1, "Dog": 1}  # the dog of a single chunk is gone, that of two stays


def test_median_filters_of_events_reach_across_the_parts_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.zeros((200, 527), np.float32)
    scores[:, find("Dog").index] = np.random.default_rng(0).random(200)
    write_output(tmp_path / "out", {"long.wav": scores})
    path = write_text(
        tmp_path / "t.json", json.dumps({"thresholds": {"/m/0bt9lr": 0.5}, "median_filter": {"/m/0bt9lr": 5}})
    )
    options = EventOptions(threshold=path, low=0.5)
    write_events(out := tmp_path / "out", options, tmp_path / "whole.csv")
    expected = pd.read_csv(tmp_path / "whole.csv")
    assert 5 < len(expected) < 40
    monkeypatch.setattr(open_folder, "BLOCK_CHUNKS", 7)
    write_events(out, options, tmp_path / "parts.csv")
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "parts.csv"), expected)


def test_a_class_that_no_threshold_detects_keeps_the_default(out: Path, tmp_path: Path) -> None:
    truth = write_text(
        tmp_path / "t.csv", "recording,onset,offset,label\ndawn.wav,0,3.84,Dog\ndusk.wav,3.5,4,Vacuum cleaner\n"
    )
    options = {"strong": truth, "bootstrap": 0, "psds_thresholds": "0"}
    result = evaluate(out, **options, tune="all", tune_for="event-f1")
    assert result["thresholds"]["thresholds"] == {"/m/0bt9lr": 0.001}
    assert {row["label"]: row["threshold"] for row in result["classes"] if row["events"]} == {
        "Dog": 0.001, "Vacuum cleaner": 0.5,
    }  # fmt: skip


def test_shipped_aliases_have_the_labels_of_their_sets() -> None:
    sizes = {"desed": 10, "esc50": 50, "fsd50k": 200, "urban-sed": 10}
    assert {name: len(read_aliases(name).members) for name in SHIPPED} == sizes
    for name in SHIPPED:
        classes = class_set(None, read_aliases(name))
        assert len(classes.unscored) <= 4
    assert class_set(None, read_aliases("esc50")).unscored == ["drinking_sipping", "can_opening", "washing_machine"]


def test_names_of_the_set_go_before_mids_and_a_truth_without_its_classes_is_an_error(out: Path, tmp_path: Path) -> None:
    weak = write_text(tmp_path / "fsd.csv", 'fname,labels,mids\ndawn,"Human_voice,Dog","/m/09l8g,/m/0bt9lr"\n')
    result = evaluate(out, weak=weak, aliases="fsd50k", bootstrap=0)
    assert {row["label"] for row in result["classes"] if row["clips"]} == {"Human_voice", "Dog"}
    write_text(weak, "fname,labels\ndawn,Siren\n")
    with pytest.raises(TruthError, match=r"no clip of the 10 evaluated classes \(desed\)"):
        evaluate(out, weak=weak, aliases="desed", bootstrap=0)


def test_own_aliases_and_their_errors(out: Path, tmp_path: Path) -> None:
    own = write_text(tmp_path / "own.csv", "label,class\nhund,Dog\nhund,Bark\nton,\n")
    truth = write_text(
        tmp_path / "t.csv", "recording,onset,offset,label\ndawn.wav,0,3.84,Hund\ndusk.wav,5.76,7.68,hund\n"
    )
    result = evaluate(out, strong=truth, aliases=str(own), bootstrap=0, psds_thresholds="2")
    assert value(result, "onset_f1") == 1
    assert "the model has no output for 1 class: ton: never detected" in result["notes"]
    for text, says in (("label,class\nhund,Dogg\n", "line 2: label 'Dogg'"), ("label,class\n", "lists no label")):
        with pytest.raises((TruthError, LabelError), match=says):
            read_aliases(write_text(own, text))
    truth.write_text("recording,onset,offset,label\ndawn.wav,0,3.84,hunt\n")
    write_text(own, "label,class\nhund,Dog\n")
    with pytest.raises(LabelError, match="one of the 1 labels of own nor AudioSet's; did you mean 'hund'"):
        evaluate(out, strong=truth, aliases=str(own), bootstrap=0)


def test_labels_separated_by_commas_are_several(tmp_path: Path) -> None:
    text = 'recording,labels\na,"Dog,Gunshot, gunfire,Bird"\nb,"Dog,Male speech, man speaking"\n'
    weak = read_weak(write_text(tmp_path / "w.csv", text))
    names = [[weak.labels[k].name for c, k in zip(weak.clip, weak.label, strict=True) if c == clip] for clip in (0, 1)]
    assert names == [["Dog", "Gunshot, gunfire", "Bird"], ["Dog", "Male speech, man speaking"]]


def test_what_was_skipped_or_is_not_evaluated_is_named(out: Path, tmp_path: Path) -> None:
    text = "recording,onset,offset,label\n" + "".join(
        f"dawn.wav,{at},{at + 1},{label}\n"
        for at, label in enumerate(["Dog", "Nonsense", "Nonsense", "Siren", "Quatsch"])
    )
    classes = write_text(tmp_path / "classes.txt", "Dog\n")
    truth = write_text(tmp_path / "t.csv", text)
    result = evaluate(out, strong=truth, unknown="skip", classes=str(classes), bootstrap=0, psds_thresholds="0")
    left_out = "3 strong labels that satpipe does not know were left out, 2 names: 'Nonsense' (2), 'Quatsch' (1)"
    assert left_out in result["notes"]
    assert f"1 labelled events are not in the class set {classes}, of 1 class: Siren (1)" in result["notes"]
    assert result["truth"]["strong"]["unknown"] == {"Nonsense": 2, "Quatsch": 1}


def test_groups_are_evaluated_as_one_class_each(tmp_path: Path) -> None:
    turns = {"Owl": [0.9, 0, 0, 0, 0], "Crowing, cock-a-doodle-doo": [0, 0.9, 0, 0, 0], "Dog": [0, 0, 0, 0.9, 0.2]}
    write_output(tmp_path / "out", {"dawn.wav": scores_of(6, **turns)})
    lines = (
        "0,1.92,Owl",
        "1.92,3.84,Fowl",
        '1.92,3.84,"Chicken, rooster"',
        '5.76,7.68,"Gull, seagull"',
        "5.76,7.68,Dog",
    )
    truth = write_text(
        tmp_path / "t.csv", "recording,onset,offset,label\n" + "".join(f"dawn.wav,{line}\n" for line in lines)
    )
    options = {"strong": truth, "bootstrap": 0, "psds_thresholds": "0"}
    result = evaluate(tmp_path / "out", group=["birds", "Dog"], **options)
    found = {row["mid"]: row for row in result["classes"]}
    assert (found["group/birds"]["events"], found["group/Dog"]["events"]) == (2, 1)  # owl and rooster; gull
    assert (found["group/birds"]["event_precision"], found["group/birds"]["event_recall"]) == (1, 0.5)
    assert found["group/Dog"]["event_f1"] == 1
    assert "figures with parent classes" not in " ".join(result["notes"])
    result = evaluate(tmp_path / "out", group="birds", tune="all", tune_for="event-f1", **options)
    assert set(result["thresholds"]["groups"]) == {"group/birds"}
    write_result(result, tmp_path / "tuned")
    written = write_events(
        tmp_path / "out", EventOptions(group="birds", threshold=tmp_path / "tuned" / "thresholds.json")
    )
    assert written.labels == {"birds": 1}
    weak = write_text(tmp_path / "weak.csv", 'recording,labels\ndawn.wav,"Owl,Dog,Fowl"\n')
    result = evaluate(tmp_path / "out", group=["birds", "frogs"], weak=weak, bootstrap=0)
    assert [row["clips"] for row in result["classes"]] == [1, 0]
    with pytest.raises(ConfigError, match="--group and --groups choose the classes to evaluate: leave out --classes"):
        evaluate(tmp_path / "out", group="birds", classes="527", strong=truth)


def test_a_judgment_of_a_class_is_none_of_its_group(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"dawn.wav": scores_of(6, Owl=[0.9, 0.9, 0.9, 0.9, 0.9])})
    rows = ("0,1.92,Owl,no", "1.92,3.84,Owl,yes", "3.84,5.76,birds,no", "5.76,7.68,birds,unsure")
    text = "recording,start_s,end_s,label,correct\n" + "".join(f"dawn.wav,{row}\n" for row in rows)
    truth = write_text(tmp_path / "sheet.csv", text)
    result = evaluate(tmp_path / "out", group="birds", strong=truth, bootstrap=0, psds_thresholds="0")
    (row,) = result["classes"]
    assert (row["events"], row["segment_precision"], row["segment_recall"]) == (1, 0.5, 1)
