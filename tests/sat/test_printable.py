"""Text for a person: no name in it commands the terminal, starts a line or turns the text round."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.printable import printable, printable_lines

some_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too: names that are not UTF-8 have them
TURNED = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}


@given(some_text)
def test_a_text_is_one_line_without_control_characters(text: str) -> None:
    shown = printable(text)
    assert not {unicodedata.category(each) for each in shown} & {"Cc", "Cs", "Zl", "Zp"}
    assert not {unicodedata.bidirectional(each) for each in shown} & TURNED
    assert len(f"-{shown}".splitlines()) == 1
    assert printable(shown) == shown


@given(st.text(st.characters(categories=["L", "M", "N", "P", "S", "Zs"])))
def test_an_ordinary_name_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_what_is_escaped_can_still_be_recognised() -> None:
    assert printable("a\x1b[2J\n\t\x9b\u202e\udcffb \N{DOG FACE}") == r"a\x1b[2J\n\t\x9b\u202e\udcffb " + "\N{DOG FACE}"
    assert printable_lines(["a\nb", 3]) == "a\\nb\n3"


def test_an_error_has_a_line_for_each_argument() -> None:
    assert str(ConfigError("no recordings in a\nb", "  c\x1b")) == "no recordings in a\\nb\n  c\\x1b"
    assert str(AudioError("cut off\n", "truncated")) == "cut off\\n"
