"""Make text safe to print on a terminal or in a log.

Names of files may contain any character. Some characters control a terminal, start a new line or reverse the direction
of the text: with them, a name could forge a message. Tables, and files that programs read, contain the exact names.
"""

import re
from collections.abc import Iterable

# Control characters, line and paragraph separators, controls of the direction of text, lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: object) -> str:
    r"""Return a line of text with unsafe characters escaped.

    >>> print(printable("a\x1b]0;b.wav\ndone"))
    a\x1b]0;b.wav\ndone
    """
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def printable_lines(lines: Iterable[object]) -> str:
    """Return several lines as one text; line breaks within a line are escaped."""
    return "\n".join(map(printable, lines))


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return a number with its noun, in the plural if needed; by default that has an s.

    >>> counted(1, "class", "classes"), counted(1000, "event")
    ('1 class', '1,000 events')
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
