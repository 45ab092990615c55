"""Where files about a recording go: any name gives a path of its own."""

import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st
from satpipe.pipeline.storage import relative_path

SUFFIX = ".Table.1.selections.txt"
PART = st.sampled_from(["", ".", "..", "a", "a.wav", "~0123456789abcdef", SUFFIX, "a\0", "x" * 251, "\N{BIRD}" * 70])
some_name = st.lists(PART | st.text(max_size=300), min_size=1, max_size=20).map("/".join)


@given(some_name, some_name)
@example("a", "./a")
@example("a//b", "a/b")
@example("..", ".")
@example("x" * 260 + "1", "x" * 260 + "2")
def test_every_recording_has_a_path_of_its_own_inside_the_folder(one: str, other: str) -> None:
    ours, theirs = (relative_path(name, SUFFIX) for name in (one, other))
    assert (ours == theirs) == (one == other)
    parts = ours.split("/")
    assert not {"", ".", ".."} & set(parts)
    assert max(len(part.encode()) for part in parts) <= 255
    assert len(ours.encode()) < 2100
    assert "\0" not in ours
    assert ours.endswith(SUFFIX)
    assert not theirs.startswith(f"{ours}/")  # a folder that is in the way of a file


@given(
    st.lists(st.from_regex(re.compile(r"[a-z0-9 _#.-]{0,40}[a-z]", re.ASCII), fullmatch=True), min_size=1, max_size=4)
)
def test_an_ordinary_name_is_its_path(parts: list[str]) -> None:
    name = "/".join(parts)
    assert relative_path(name, SUFFIX) == name + SUFFIX
    assert Path(relative_path(name)) == Path(name)
