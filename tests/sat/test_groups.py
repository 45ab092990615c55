"""Groups of classes: those that come with satpipe, branches of the ontology, and files of groups."""

import pytest
from satpipe.sat.errors import LabelError
from satpipe.sat.groups import find_group, parse, shipped
from satpipe.sat.labels import find, weak_labels


def names(columns: tuple[int, ...]) -> set[str]:
    return {weak_labels()[column].name for column in columns}


def test_birds_are_the_branches_of_bird_and_fowl() -> None:
    birds = find_group("birds")
    assert (birds.name, birds.mid) == ("birds", "group/birds")
    assert {"Bird", "Owl", "Caw", "Fowl", "Crowing, cock-a-doodle-doo", "Duck"} <= names(birds.columns)
    assert names(find_group("Bird").columns) == names(birds.columns) - names(find_group("Fowl").columns)


def test_a_class_is_a_group_of_itself_and_all_below_it() -> None:
    assert names(find_group("thunderstorm").columns) == {"Thunderstorm", "Thunder"}
    assert find_group("/m/09x0r").name == "Speech"
    assert find("Human voice").index is None
    assert {"Speech", "Giggle"} <= names(find_group("Human voice").columns)


def test_a_name_means_the_own_group_before_that_of_satpipe_and_before_a_class() -> None:
    own = parse("group,label\nBirds,Owl\n", "own.csv")
    assert names(find_group("birds", own).columns) == {"Owl"}
    assert find_group("wind") == shipped()["wind"]
    assert names(find_group("under:wind").columns) == {"Wind", "Rustling leaves", "Wind noise (microphone)"}


@pytest.mark.parametrize(
    ("name", "near"), [("brids", "birds"), ("rain and watter", "rain and water"), ("Crickt", "Cricket")]
)
def test_an_unknown_group_gets_the_nearest_three(name: str, near: str) -> None:
    with pytest.raises(LabelError, match=f"no group and no class is called '{name}'; did you mean ") as error:
        find_group(name)
    assert repr(near) in str(error.value)
    assert str(error.value).count(" or ") <= 2


@pytest.mark.parametrize(
    "text",
    [
        "group,label,why\npond,Frog,\npond,under:Insect,all\nroad,Car\n",
        "\ufeffgroup;label\r\npond;Frog\r\npond;under:Insect\r\n\r\nroad;Car\r\n",
        'label\tgroup\nFrog\tpond\nunder:Insect\tpond\n"Car"\troad\n',
    ],
)
def test_groups_are_read_from_a_file(text: str) -> None:
    groups = parse(text, "own.csv")
    assert list(groups) == ["pond", "road"]
    assert {"Frog", "Cricket", "Buzz"} <= names(groups["pond"].columns)
    assert names(groups["road"].columns) == {"Car"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("group,label\npond,Frog\npond,Frogg\n", "own.csv, line 3: label 'Frogg' not found; did you mean 'Frog'"),
        ("group,label\npond,Kettle whistle\n", "own.csv, line 2: the model has no output for 'Kettle whistle'"),
        ("group,label\npond,Chirp, tweet\n", "own.csv, line 2: 3 cells but 2 in the header: cells with commas must be"),
        ("group,label\n,Frog\n", "own.csv, line 2: the group is missing"),
        ("group,label\npond,\n", "own.csv, line 2: the label is missing"),
        ("name,label\npond,Frog\n", "own.csv must have a header with the columns group and label"),
        ("", "own.csv must have a header with the columns group and label"),
        ("group,label\n", "own.csv has no groups"),
    ],
)
def test_what_is_wrong_with_a_file_of_groups_is_said_with_its_line(text: str, says: str) -> None:
    with pytest.raises(LabelError) as error:
        parse(text, "own.csv")
    assert says in str(error.value)
