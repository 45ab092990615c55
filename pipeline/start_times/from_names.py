"""Parse the names of recordings: start time and recorder."""

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from posixpath import splitext
from typing import NamedTuple

from satpipe.sat.errors import ConfigError

YEARS = range(1990, 2080)  # plausible years
_HEX_YEARS = range(2015, 2031)  # when AudioMoths wrote names in hexadecimal digits
# Offsets from UTC that are or were in use since 2005, by the time zone database.
OFFSETS = frozenset(
    [timedelta(hours=hours) for hours in range(-12, 15)]
    + [timedelta(minutes=minutes) for minutes in (-570, -270, -210, -150, 210, 270, 330, 345, 390, 510, 525, 570)]
    + [timedelta(minutes=minutes) for minutes in (585, 630, 690, 765, 825)]
)

_LONG = re.compile(
    r"(?<!\d)(?P<year>(?:19|20)\d\d)(?P<dash>[-._ ]?)(?P<month>\d\d)(?P=dash)(?P<day>\d\d)(?P<gap>[T _$-]{0,3})"
    r"(?P<hour>\d\d)(?P<colon>[-:._]?)(?P<minute>\d\d)"
    r"(?:(?P=colon)(?P<second>\d\d)(?:[.,](?P<fraction>\d{1,9})|(?:_(?P<micro>\d{6})|_?(?P<milli>\d{3})))?)?(?!\d)"
    r"[ _]?(?P<zone>Z(?![A-Za-z])|[+-]\d\d:?\d\d(?!\d))?"
)
_SHORT = re.compile(
    r"(?<!\d)(?P<year>\d\d)(?P<month>\d\d)(?P<day>\d\d)[-_](?P<hour>\d\d)(?P<minute>\d\d)(?P<second>\d\d)?(?!\d)"
)
_NUMBER = re.compile(r"\d[ _]?-\d{4}(?!\d)")
_HEX = re.compile(r"[0-9A-F]{8}")
# Directives of `datetime.strptime` that a pattern may contain, and the text they match in a name.
_DIRECTIVES = {
    "Y": r"\d{4}", "y": r"\d\d", "m": r"\d\d", "d": r"\d\d", "j": r"\d{3}", "b": "[A-Za-z]{3}", "B": "[A-Za-z]+",
    "H": r"\d\d", "I": r"\d\d", "p": "[AaPp][Mm]", "M": r"\d\d", "S": r"\d\d", "f": r"\d{1,6}",
    "z": r"Z|[+-]\d\d:?\d\d",
}  # fmt: skip


class NameTime(NamedTuple):
    """A time in a name."""

    time: datetime
    """With a time zone if the name has one, otherwise in the recorder's."""
    to_the_second: bool
    number: str = ""
    """A number such as `-0500` after the time: an offset from UTC if the time has a zone, otherwise a count."""


class NameParser:
    """Finds times in names.

    The usual conventions are a date followed by a time of day, with or without separators (AudioMoth, Song Meter, Zoom,
    ISO 8601), and seconds since 1970 in hexadecimal digits (early AudioMoths).
    """

    def __init__(self, names: Iterable[str], pattern: str | None = None) -> None:
        """Scan all names, since some can only be interpreted together with others.

        Args:
            names: Names of all files.
            pattern: Where names contain the time, in directives of `datetime.strptime`; `*` is any text and `?` any
                character except a slash. A pattern with n parts is compared with the last n parts of a path, with the
                extension or without it.

        Raises:
            ConfigError: The pattern is invalid, or incomplete.
        """
        self._pattern = Pattern(pattern) if pattern else None
        self._alone: dict[str, bool] = {}  # folder: True if it contains a single file
        self._hex: set[str] = set()  # folders of early AudioMoths; a name of decimal digits alone could be any number
        self._counted: set[str] = set()  # folders whose files have a count after the time
        for name in names:
            folder, stem, _ = _split(name)
            self._alone[folder] = folder not in self._alone
            if _HEX.fullmatch(stem) and not stem.isdecimal():
                self._hex.add(folder)
            if _NUMBER.search(stem) and any(named.number and not named.time.tzinfo for _, named in _times(stem)):
                self._counted.add(folder)

    def by_pattern(self, name: str) -> datetime | None:
        """Return the time according to the pattern; None without a pattern, or if it does not match."""
        return self._pattern.time(name) if self._pattern else None

    def by_convention(self, name: str) -> NameTime | None:
        """Return the time in the name, or in that of its folder if it has a single file, by the usual conventions."""
        folder, stem, _ = _split(name)
        for _, named in _times(stem):
            is_count = named.number and folder in self._counted
            return NameTime(named.time.replace(tzinfo=None), named.to_the_second) if is_count else named
        if folder in self._hex and _HEX.fullmatch(stem):
            time = datetime.fromtimestamp(int(stem, 16), UTC)
            return NameTime(time, to_the_second=True) if time.year in _HEX_YEARS else None
        if self._alone.get(folder):
            for _, named in _times(folder.rpartition("/")[2]):
                return named
        return None

    def recorder(self, name: str) -> str:
        """Return the key of a file's recorder: folder, and name without time or number."""
        if self._pattern and (constant := self._pattern.without_time(name)):
            return constant
        folder, stem, suffix = _split(name)
        spans = [span for span, _ in _times(stem)]
        rest = _without(stem, spans)
        if not spans:
            rest = "" if _HEX.fullmatch(stem) else stem.rstrip("0123456789")
        # A T after the time of an AudioMoth marks a recording triggered by a sound.
        return f"{folder}/{'' if rest == 'T' else rest}{suffix.lower()}"


class Pattern:
    """A pattern for the time in a name."""

    def __init__(self, pattern: str) -> None:
        """Parse the pattern.

        Raises:
            ConfigError: It has unknown directives, or no complete date with a time of day.
        """
        tokens = re.findall(r"%.?|\*|\?|[^%*?]+", pattern.strip("/"))
        self._directives = [token for token in tokens if token.startswith("%") and token != "%%"]
        unknown = [token for token in self._directives if token[1:] not in _DIRECTIVES]
        if unknown:
            known = " ".join(f"%{letter}" for letter in _DIRECTIVES)
            raise ConfigError(f"--time-pattern {pattern}: unknown directive {unknown[0]}; use {known}")
        repeated = [token for token in self._directives if self._directives.count(token) > 1]
        if repeated:
            raise ConfigError(f"--time-pattern {pattern} has {repeated[0]} twice")
        has = {token[1:] for token in self._directives}
        if not (has & {"Y", "y"} and ((has & {"m", "b", "B"} and "d" in has) or "j" in has) and has & {"H", "I"}):
            raise ConfigError(f"--time-pattern {pattern} must have year, day and hour, such as *_%Y%m%d_%H%M%S*")
        self._expression = re.compile("".join(map(_expression, tokens)))
        self._parts = pattern.strip("/").count("/") + 1

    def time(self, name: str) -> datetime | None:
        """Return the time in a name; None if the pattern does not match, or the time does not exist."""
        found = self._match(self._split(name)[1])
        if found is None:
            return None
        try:
            time = datetime.strptime(" ".join(found.groups()), " ".join(self._directives))
        except ValueError:
            return None
        return time if time.year in YEARS else None

    def without_time(self, name: str) -> str:
        """Return the name without the text that the directives match; "" if the pattern does not match."""
        before, text = self._split(name)
        found = self._match(text)
        if found is None:
            return ""
        return f"{before}/" + _without(text, [found.span(group) for group in range(1, len(found.groups()) + 1)])

    def _match(self, text: str) -> re.Match[str] | None:
        return self._expression.fullmatch(text) or self._expression.fullmatch(splitext(text)[0])

    def _split(self, name: str) -> tuple[str, str]:
        parts = name.split("/")
        return "/".join(parts[: -self._parts]), "/".join(parts[-self._parts :])


def _split(name: str) -> tuple[str, str, str]:
    """Return folder, name without extension, and extension."""
    folder, _, file = name.rpartition("/")
    return folder, *splitext(file)


def _expression(token: str) -> str:
    if token in ("*", "?"):
        return "[^/]" + token.replace("?", "")
    if token.startswith("%") and token != "%%":
        return f"({_DIRECTIVES[token[1:]]})"
    return re.escape(token.replace("%%", "%"))


def _times(text: str) -> Iterator[tuple[tuple[int, int], NameTime]]:
    """Yield the times in a text, with their positions."""
    for pattern in (_LONG, _SHORT):
        for found in pattern.finditer(text):
            if named := _read(found.groupdict("")):
                yield found.span(), named


def _read(parts: dict[str, str]) -> NameTime | None:
    year, month, day, hour, minute, second = (
        int(parts[name] or 0) for name in ("year", "month", "day", "hour", "minute", "second")
    )
    fraction = "".join(parts.get(name, "") for name in ("fraction", "micro", "milli"))
    try:
        time = datetime(year + 2000 * (year < 100), month, day, hour, minute, second, int(fraction[:6].ljust(6, "0")))
    except ValueError:
        return None
    if time.year not in YEARS:
        return None
    zone, to_the_second = parts.get("zone", ""), bool(parts["second"])
    is_number = zone[:1] == "-" and ":" not in zone and "T" not in parts["gap"]
    offset = _offset(zone) if zone else None
    if offset is not None and (not is_number or (offset and to_the_second)):
        time = time.replace(tzinfo=timezone(offset))
    return NameTime(time, to_the_second, zone if is_number else "")


def _offset(zone: str) -> timedelta | None:
    """Return an offset from UTC; None if it is not one of `OFFSETS`."""
    try:
        offset = datetime.strptime(zone, "%z").utcoffset()
    except ValueError:  # such as +0190
        return None
    return offset if offset in OFFSETS else None


def _without(text: str, spans: Iterable[tuple[int, int]]) -> str:
    for start, end in sorted(spans, reverse=True):
        text = text[:start] + text[end:]
    return text
