"""`satpipe labels`: classes and groups."""

import re

import pytest
from click.testing import CliRunner
from satpipe.jobs.commands.main import cli
from satpipe.sat.errors import LabelError
from satpipe.sat.groups import shipped
from satpipe.sat.labels import parents, weak_labels


def listed(*search: str) -> str:
    return CliRunner().invoke(cli, ["labels", *search], catch_exceptions=False).stdout


def test_the_list_has_each_class_with_its_parents_and_groups() -> None:
    lines = listed().splitlines()
    classes = lines[lines.index("") + 2 :]
    assert [line.split()[:2] for line in classes] == [[str(label.index), label.mid] for label in weak_labels()]
    for label, line in zip(weak_labels(), classes, strict=True):
        groups = [group.name for group in shipped().values() if label.index in group.columns]
        expected = [label.name, "; ".join(parent.name for parent in parents(label.mid)), ", ".join(groups)]
        assert re.split(" {2,}", line)[2:] == [text for text in expected if text]
    assert [line.rsplit(maxsplit=1) for line in lines[1 : lines.index("")]] == [
        [group.name, str(len(group.columns))] for group in shipped().values()
    ]


@pytest.mark.parametrize("search", [("Howl",), ("/m/07qf0zm",)])
def test_a_class_is_found_by_name_and_mid(search: tuple[str, ...]) -> None:
    assert re.search(
        r"^77 +/m/07qf0zm +Howl +Dog; Canidae, dogs, wolves +dogs, animals$", listed(*search), re.MULTILINE
    )


def test_a_search_lists_the_classes_of_groups_and_says_what_has_no_output() -> None:
    found = listed("rain", "and")
    assert re.search(r"^rain and water +14$", found, re.MULTILINE)
    assert "Waterfall" in found
    assert listed("gull").endswith("-: the models have no output for this class\n")
    with pytest.raises(LabelError, match="no group and no class is called 'crickt'; did you mean 'Cricket' or"):
        listed("crickt")
    assert "Download the strong labels" in listed("pull", "--help")
