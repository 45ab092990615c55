"""The label lists and the ontology, as one who looks labels up sees them."""

import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from satpipe.sat.errors import ConfigError, LabelError
from satpipe.sat.labels import (
    Key,
    Label,
    ancestors,
    children,
    choose,
    descendants,
    find,
    parents,
    strong_labels,
    weak_labels,
)
from satpipe.sat.model.config import CLASSES

RENAMED = {
    "Bicycle": "Bicycle, tricycle",
    "Blender": "Blender, food processor",
    "Canidae, dogs, wolves": "Canidae, wild dogs, wolves",
    "Chink, clink": "Glass chink, clink",
    "Duck": "Ducks, geese, waterfowl",
    "Field recording": "Unmodified field recording",
    "Gurgling": "Gurgling, bubbling",
    "Shatter": "Glass shatter",
    "Stream": "Stream, river",
    "Tire squeal": "Tire squeal, skidding",
    "Vehicle horn, car horn, honking": "Vehicle horn, car horn, honking, toot",
    "White noise": "White noise, pink noise",
}
TOP_CLASSES = [
    "Human sounds",
    "Animal",
    "Music",
    "Natural sounds",
    "Sounds of things",
    "Source-ambiguous sounds",
    "Channel, environment and background",
]


def everything() -> list[Label]:
    below = {label for name in TOP_CLASSES for label in (find(name), *descendants(name))}
    return sorted(below | set(weak_labels()) | set(strong_labels()), key=lambda label: label.mid)


any_label = st.sampled_from(everything())


def names(labels: tuple[Label, ...]) -> list[str]:
    return [label.name for label in labels]


def test_weak_labels_are_the_outputs_of_the_model_in_order() -> None:
    labels = weak_labels()
    assert len(set(labels)) == CLASSES
    assert [label.index for label in labels] == list(range(CLASSES))
    assert labels[0] == Label("/m/09x0r", "Speech", 0)
    assert labels[137] == Label("/m/04rlf", "Music", 137)
    assert labels[526] == Label("/m/07hvw1", "Field recording", 526)


def test_strong_labels_and_their_subsets() -> None:
    every, train, evaluation = (set(strong_labels(subset)) for subset in ("all", "train", "eval"))
    shared = set(strong_labels("shared"))
    assert [len(labels) for labels in (every, train, evaluation, shared)] == [456, 447, 416, 381]
    assert train | evaluation == every
    assert shared == evaluation & set(weak_labels())
    assert strong_labels() == strong_labels("all")


def test_a_strong_label_the_model_has_no_output_for() -> None:
    whistle = find("Kettle whistle")
    assert whistle == Label("/g/11b630rrvh", "Kettle whistle", None)
    assert whistle in strong_labels("train")
    assert whistle not in strong_labels("eval")


def test_an_unknown_subset_is_refused() -> None:
    with pytest.raises(ConfigError, match="all, train, eval, shared, not 'test'"):
        strong_labels("test")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "key", [1, np.int64(1), "1", "/m/05zppz", "Male speech, man speaking", "male Speech, MAN speaking", " 1 "]
)
def test_find_takes_an_index_a_mid_or_a_name(key: Key) -> None:
    assert find(key) == Label("/m/05zppz", "Male speech, man speaking", 1)


@settings(deadline=None)  # a busy machine is no failure
@given(any_label)
def test_every_label_is_found_by_whatever_it_is_called(label: Label) -> None:
    assert find(label.mid) == find(label.name) == find(label.name.upper()) == label
    if label.index is not None:
        assert find(label.index) == find(str(label.index)) == weak_labels()[label.index] == label


@pytest.mark.parametrize(("weak", "strong"), RENAMED.items())
def test_a_renamed_class_is_found_under_both_names(weak: str, strong: str) -> None:
    label = find(strong)
    assert label == find(weak)
    assert label.name == weak
    assert label in weak_labels()
    assert label in strong_labels("shared")


def test_a_name_with_two_mids_is_one_class() -> None:
    tone = find("Brief tone")
    assert tone == find("/t/dd00138") == find("/t/dd000138")
    assert tone.mid == "/t/dd00138"
    assert tone in strong_labels()
    assert names(parents(tone.mid)) == ["Onomatopoeia"]
    assert "Beep, bleep" in names(children(tone.mid))


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("Speach", "'Speech' (/m/09x0r)"),
        ("gunshot", "'Gunshot, gunfire' (/m/032s66)"),
        ("glass shater", "'Shatter' (/m/07rn7sz)"),
        ("/m/09x0rr", "(/m/09x0r)"),
    ],
)
def test_an_unknown_label_is_answered_with_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(LabelError) as error:
        find(key)
    assert key in str(error.value)
    assert nearest in str(error.value)


@pytest.mark.parametrize("key", [-1, "-1", CLASSES, str(CLASSES)])
def test_an_index_past_the_outputs_is_refused(key: int | str) -> None:
    with pytest.raises(LabelError, match=f"index {key}: indices are 0 to 526"):
        find(key)


@settings(deadline=None)
@given(st.text())
def test_find_gives_a_label_or_a_label_error(text: str) -> None:
    known = {str(label.index) for label in weak_labels()}
    known |= {key.casefold() for label in everything() for key in (label.mid, label.name)}
    if text.strip().casefold() in known:
        assert find(text) in everything()
    else:
        with pytest.raises(LabelError):
            find(text)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ("Speech", ["Speech"]),
        (np.int64(0), ["Speech"]),
        (["/m/04rlf", "speech", 0], ["Music", "Speech"]),
        ("under:Speech", ["Speech", *names(descendants("Speech"))]),
        ([" UNDER:/m/09x0r ", "Speech"], ["Speech", *names(descendants("Speech"))]),
        ([], []),
    ],
)
def test_classes_are_chosen_by_what_they_are_called_or_lie_under(labels: Key | list[Key], chosen: list[str]) -> None:
    assert [weak_labels()[place].name for place in choose(labels)] == chosen


def test_a_subtree_holds_what_the_model_has_of_it() -> None:
    assert find("Human sounds").index is None
    assert set(choose("under:Human sounds")) == {
        label.index for label in weak_labels() if find("Human sounds") in ancestors(label.mid)
    }


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ("Brid", "label 'Brid' not found; did you mean 'Bird'"),
        (["Dog", "under:Brid"], "label 'Brid' not found; did you mean 'Bird'"),
        ("Human sounds", "no output for 'Human sounds' .*'under:Human sounds' selects the 72 classes below it"),
        ("under:Kettle whistle", r"no output for 'Kettle whistle' \(/g/11b630rrvh\)$"),
        (527, "indices are 0 to 526"),
    ],
)
def test_what_cannot_be_chosen_is_said(labels: Key | list[Key], says: str) -> None:
    with pytest.raises(LabelError, match=says):
        choose(labels)


@pytest.mark.parametrize("walk", [parents, ancestors, children, descendants])
def test_relatives_of_an_unknown_label_are_refused(walk) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(LabelError):
        walk("/m/none")


def test_ancestors_go_up_to_the_top_nearest_first() -> None:
    assert names(ancestors("/m/05zppz")) == ["Speech", "Human voice", "Human sounds"]
    assert names(parents("/m/05zppz")) == ["Speech"]
    assert [name for name in TOP_CLASSES if ancestors(name) or not descendants(name)] == []


def test_a_class_with_several_parents_has_the_ancestors_of_each() -> None:
    horn = find("Vehicle horn, car horn, honking")
    assert names(parents(horn.mid)) == ["Car", "Alarm"]
    assert names(ancestors(horn.mid))[:2] == ["Car", "Alarm"]
    assert {"Car", "Alarm", "Motor vehicle (road)", "Vehicle", "Sounds of things"} == set(names(ancestors(horn.mid)))


def test_a_strong_label_outside_the_ontology_has_no_relatives() -> None:
    cart = find("Cart")
    assert parents(cart.mid) == ancestors(cart.mid) == children(cart.mid) == descendants(cart.mid) == ()
    alone = [label for label in everything() if not ancestors(label.mid) and not descendants(label.mid)]
    assert len(alone) == 31
    assert set(alone) <= set(strong_labels()) - set(weak_labels())


@settings(deadline=None)
@given(any_label)
def test_up_and_down_are_inverse_and_closed(label: Label) -> None:
    above = ancestors(label.mid)
    assert len(set(above)) == len(above)
    assert label not in above
    assert set(above) == {up for parent in parents(label.mid) for up in (parent, *ancestors(parent.mid))}
    assert all(label in children(parent.mid) for parent in parents(label.mid))
    assert all(label in descendants(other.mid) for other in above)
    assert all(label in ancestors(other.mid) for other in descendants(label.mid))


def test_import_reads_no_file_of_labels() -> None:
    script = """
import sys
read = []
sys.addaudithook(lambda event, args: read.append(str(args[0]).replace("\\\\", "/")) if event == "open" else None)
import satpipe.sat.labels
print(any("sat/data/" in path for path in read))
satpipe.sat.labels.weak_labels()
print(any("sat/data/" in path for path in read))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "True"]


def test_the_attribution_travels_with_the_data() -> None:
    data = files("satpipe.sat") / "data"
    text = (data / "README.md").read_text(encoding="utf-8")
    for name in ("class_labels_indices.csv", "strong_classes.tsv", "ontology.json"):
        assert (data / name).is_file()
        assert f"`{name}`" in text
    for credit in (
        "Gemmeke",
        "Google",
        "creativecommons.org/licenses/by/4.0",
        "creativecommons.org/licenses/by-sa/4.0",
    ):
        assert credit in text
