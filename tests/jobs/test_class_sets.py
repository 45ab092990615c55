"""Times, classes, sets of classes and thresholds of ground truth."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.jobs.ground_truth import StrongLabels, class_set, clipped, expanded, read_thresholds, select
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.targets import Target, choose_targets
from satpipe.sat.errors import ConfigError, LabelError, SatpipeError, TruthError
from satpipe.sat.labels import Label, ancestors, find, strong_labels, weak_labels
from truth_files import Row, rows, write

some_class = st.sampled_from(strong_labels())


def strong(events: list[Row], durations: int = 3) -> StrongLabels:
    labels = tuple(dict.fromkeys(find(name) for _, name, _, _ in events))
    clips = tuple(f"clip {n}" for n in range(durations))
    columns = [(clips.index(c), labels.index(find(name)), onset, offset) for c, name, onset, offset in events]
    return StrongLabels(clips, labels, Events.of(*zip(*columns, strict=True)))


def test_events_are_cut_to_the_recording() -> None:
    truth = strong(
        [
            ("clip 0", "Dog", 1, 2), ("clip 0", "Dog", 9, 10.04), ("clip 0", "Dog", 9, 12), ("clip 0", "Dog", 10, 12),
            ("clip 0", "Dog", 11, 11), ("clip 0", "Dog", 10, 10), ("clip 1", "Dog", 11, 12), ("clip 2", "Dog", 99, 100),
        ]
    )  # fmt: skip
    cut, note = clipped(truth, [10, 20, np.nan])
    assert [row[2:] for row in rows(cut)] == [(1, 2), (9, 10), (9, 10), (10, 10), (11, 12), (99, 100)]
    assert note == (
        "1 labelled events end after their recording and were shortened, 2 start after its end and were left out, "
        "such as 'Dog' from 10 s to 12 s in clip 0, which ends at 10 s"
    )
    assert cut.duplicates == 1
    again, note = clipped(cut, [10, 20, np.nan])
    assert rows(again) == rows(cut)
    assert note == ""


def test_events_close_over_the_ontology_and_are_merged() -> None:
    truth = strong(
        [
            ("clip 0", "Male speech, man speaking", 0, 2), ("clip 0", "Female speech, woman speaking", 1, 3),
            ("clip 0", "Speech", 3, 4), ("clip 0", "Bark", 5, 6), ("clip 1", "Bark", 5, 6), ("clip 1", "Bark", 5, 6),
        ]
    )  # fmt: skip
    classes = (find("Bark"), find("Speech"), find("Dog"), find("Music"))
    plain, whole = select(truth, classes), expanded(truth, classes)
    assert [tuple(row) for row in zip(plain.clip, plain.label, plain.onset_s, strict=True)] == [
        (0, 1, 3), (0, 0, 5), (1, 0, 5), (1, 0, 5)
    ]  # fmt: skip
    assert [tuple(row) for row in zip(whole.clip, whole.label, whole.onset_s, whole.offset_s, strict=True)] == [
        (0, 0, 5, 6), (0, 1, 0, 4), (0, 2, 5, 6), (1, 0, 5, 6), (1, 2, 5, 6)
    ]  # fmt: skip


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), some_class, st.integers(0, 9), st.integers(0, 9)), min_size=1),
    st.sets(st.sampled_from(weak_labels()), min_size=1).map(lambda chosen: tuple(sorted(chosen, key=lambda x: x.name))),
)
def test_closing_is_what_the_ontology_says(
    events: list[tuple[int, Label, int, int]], classes: tuple[Label, ...]
) -> None:
    truth = strong([(f"clip {clip}", label.mid, onset, onset + more) for clip, label, onset, more in events])
    active = np.zeros((3, len(classes), 40), bool)  # in half seconds; only the inside of events
    for clip, label, onset, more in events:
        for each in (label, *ancestors(label.mid)):
            if each in classes:
                active[clip, classes.index(each), 2 * onset : 2 * (onset + more)] = True
    ours = np.zeros_like(active)
    found = expanded(truth, classes)
    for clip, place, onset_s, offset_s in zip(found.clip, found.label, found.onset_s, found.offset_s, strict=True):
        assert not ours[clip, place, int(2 * onset_s) : int(2 * offset_s)].any()
        ours[clip, place, int(2 * onset_s) : int(2 * offset_s)] = True
    np.testing.assert_array_equal(ours, active)
    plain = select(truth, classes)
    assert [classes[place] for place in plain.label] == [label for _, label, _, _ in events if label in classes]


def test_class_sets_have_as_many_classes_as_their_names_say() -> None:
    for name in ("381", "407", "416", "527"):
        assert len(set(class_set(name).labels)) == int(name)
    assert set(class_set("381").labels) == set(class_set("416").labels) & set(class_set("527").labels)
    assert set(class_set("407").labels) == set(class_set("416").labels) & set(strong_labels("train"))
    assert class_set("527").labels == weak_labels()


@pytest.mark.parametrize(
    "text",
    [
        "Dog\n/m/09x0r\nMale speech, man speaking\n",
        "/m/0bt9lr\tDog\n/m/09x0r\tSpeech\n/m/05zppz\tMale speech, man speaking\n",
        'index,mid,display_name\n0,/m/0bt9lr,"x"\n1,/m/09x0r,"y"\n2,/m/05zppz,"z"\n',
        'label\n"Dog"\nSpeech\n"Male speech, man speaking"\n',
        '# mine\nDog\nSpeech\n"Male speech, man speaking"\n',
    ],
)
def test_class_sets_are_read_from_files(tmp_path: Path, text: str) -> None:
    names = [label.name for label in class_set(write(tmp_path, text)).labels]
    assert names == ["Dog", "Speech", "Male speech, man speaking"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("Dog\nCat\ndog\n", TruthError, "line 3: 'Dog' is already in line 1"),
        ("Dog\nCatt\n", LabelError, "line 2: label 'Catt' not found; did you mean 'Cat'"),
        ("", TruthError, "lists no class"),
    ],
)
def test_what_is_wrong_with_a_class_set_is_said(
    tmp_path: Path, text: str, error: type[SatpipeError], says: str
) -> None:
    with pytest.raises(error, match=says):
        class_set(write(tmp_path, text))
    with pytest.raises(ConfigError, match=r"'400' is neither a class set \(381, 407, 416, 527\) nor a file"):
        class_set("400")


def test_thresholds_are_read_in_the_order_of_the_classes(tmp_path: Path) -> None:
    classes = choose_targets(["Speech", "Dog"])
    path = write(tmp_path, "label,threshold\nDog,0.25\nMusic,1\nSpeech,0.5\n")
    assert read_thresholds(path).of(classes).tolist() == [0.5, 0.25]
    path = write(tmp_path, "mid\tname\tthreshold\n/m/0bt9lr\t?\t0.25\n/m/09x0r\t?\tnan\n")
    assert read_thresholds(path).of(classes[1:]).tolist() == [0.25]
    with pytest.raises(TruthError, match="has no threshold for 1 class: Speech"):
        read_thresholds(path).of(classes)


def test_thresholds_in_json_are_of_classes_groups_and_the_rest(tmp_path: Path) -> None:
    dog, bark, speech = (find(name) for name in ("Dog", "Bark", "Speech"))
    content = {
        "thresholds": {dog.mid: 0.2},
        "groups": {"set/animal": {"classes": [dog.mid, bark.mid], "threshold": 0.3},
                   "set/loud": {"classes": [bark.mid, speech.mid], "threshold": 0.1}},
        "median_filter": {dog.mid: 3},
        "default": 0.7,
    }  # fmt: skip
    given = read_thresholds(write(tmp_path, json.dumps(content), "t.json"))
    by_name = {**content, "thresholds": {"dog": 0.2}, "median_filter": {"Dog": 3}}
    of_windows = read_thresholds(write(tmp_path, "\ufeff" + json.dumps(by_name), "t.json"))
    assert (of_windows.values, of_windows.filters) == (given.values, given.filters)
    classes = choose_targets(["Dog", "Bark", "Speech", "Music"])
    animal = Target("set/animal", "animal", (dog.index, bark.index))
    assert given.of(classes).tolist() == [0.2, 0.1, 0.1, 0.7]
    assert given.of([animal]).tolist() == [0.3]
    assert given.filters_of(classes[:2]).tolist() == [3, 1]
    assert [target.mid for target in given.targets()] == [dog.mid, "set/animal", "set/loud"]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("label,threshold\nDog,1.5\n", TruthError, "line 2: threshold 1.5 is not from 0 to 1"),
        ("label,threshold\nDog,half\n", TruthError, "line 2: threshold 'half' is not a number"),
        ("label,threshold\nDog,0\nDog,1\n", TruthError, "line 3: 'Dog' is already in line 2"),
        ("label,threshold\nDogg,0\n", LabelError, "line 2: label 'Dogg' not found"),
        ("Dog,0\n", TruthError, "must have a header with the columns mid or label, and threshold"),
        ('{"default": 1.5}', TruthError, "the threshold of default must be from 0 to 1, not 1.5"),
        ('{"thresholds": {"/m/0bt9lr": "high"}}', TruthError, "threshold of /m/0bt9lr must be from 0 to 1, not 'high'"),
        ('{"thresholds": {"/m/x": 0.5}}', LabelError, "label '/m/x' not found"),
        ('{"default": 0.5, "median_filter": {"/m/0bt9lr": 2}}', TruthError, "must be an odd number of chunks, not 2"),
        ('{"default": 0.5, "median_filter": {"Dogg": 3}}', LabelError, "label 'Dogg' not found"),
        ('{"groups": {"a/b": {"threshold": 1}}}', TruthError, "not a file of thresholds: KeyError: 'classes'"),
        ('{"groups": {"a": {"classes": [1], "threshold": 1}}}', TruthError, r"a must be a list of mids, not \[1\]"),
        ('{"groups": {"a": {"classes": "Dog", "threshold": 1}}}', TruthError, 'must be a list of mids, not "Dog"'),
        ('{"thresholds": {"/m/0bt9lr": 0.1, "Dog": 0.2}}', TruthError, "has two thresholds for a class"),
        ('{"sha256": "1"}', TruthError, "has no thresholds"),
        ('{"default": 0.5', TruthError, "is not a file of thresholds"),
    ],
)
def test_what_is_wrong_with_thresholds_is_said(tmp_path: Path, text: str, error: type[SatpipeError], says: str) -> None:
    with pytest.raises(error, match=says):
        read_thresholds(write(tmp_path, text)).of(choose_targets())
