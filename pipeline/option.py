"""Declare each option once, as an annotated field of a dataclass.

    @dataclass(frozen=True)
    class EventOptions(Options):
        min_s: Annotated[float, Option("Minimum length of an event.", minimum=0)] = 0.0

The field has the option's name, type, default, limits and help text. The command line (`satpipe.jobs.commands.shared`),
the signatures and docstrings of Python functions (`takes`, `lists`) and the documentation follow from it.
"""

import inspect
import math
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import lru_cache, wraps
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    NamedTuple,
    ParamSpec,
    Protocol,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from satpipe.sat.errors import ConfigError

OUT, OUT_VARIABLE = "out", "SATPIPE_OUT"

P = ParamSpec("P")
Made = TypeVar("Made")
R = TypeVar("R")
Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Option:
    """Describes a field of an options dataclass.

    Attributes:
        help: Its effect, in one or two short sentences.
        minimum: Minimum value.
        maximum: Maximum value.
        above: The value must be above the minimum.
        below: The value must be below the maximum.
        metavar: Placeholder for the value in the help of a command.
        flags: Names on the command line, if not `--` and the field's name.
        bare: Value if the option is given without one (in Python, as True); None: a value is required.
        variable: Environment variable whose value overrides the default.
    """

    help: str
    minimum: float | None = None
    maximum: float | None = None
    above: bool = False
    below: bool = False
    metavar: str | None = None
    flags: tuple[str, ...] = ()
    bare: str | None = None
    variable: str | None = None


class Declared(NamedTuple):
    """A field of an options dataclass with an `Option`."""

    name: str
    annotation: Any
    kinds: tuple[Any, ...]
    """Members of its type if that is a union, without None; else its type."""
    default: Any
    """`MISSING` if the option is required."""
    option: Option

    @property
    def flags(self) -> tuple[str, ...]:
        """Names on the command line."""
        return self.option.flags or ("--" + self.name.replace("_", "-"),)


@lru_cache
def declared(options: Any) -> tuple[Declared, ...]:
    """Return the options of a dataclass, required ones first."""
    hints = get_type_hints(options, include_extras=True)
    found = []
    for field in fields(options):
        hint = hints[field.name]
        extras = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
        for option in extras:
            if isinstance(option, Option):
                annotation = get_args(hint)[0]
                members = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
                kinds = tuple(kind for kind in members if kind is not NoneType)
                found.append(Declared(field.name, annotation, kinds, field.default, option))
    return tuple(sorted(found, key=lambda each: each.default is not MISSING))


class Options:
    """Base of options dataclasses.

    A value outside its limits is refused. Where text is expected, a path or a number is also allowed.
    """

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ConfigError: A value is not allowed; the option is named.
        """
        cls: Any = type(self)
        for each in declared(cls):
            value = getattr(self, each.name)
            if value is True and each.option.bare:
                object.__setattr__(self, each.name, each.option.bare)
            if each.kinds == (str,) and isinstance(value, Real | Path):
                object.__setattr__(self, each.name, str(value))
            if value is not None and (allowed := wanted(each, value)):
                shown = f"{value:,g}" if isinstance(value, Real) else repr(value)
                raise ConfigError(f"{each.flags[-1]} must be {allowed}, not {shown}")


def wanted(each: Declared, value: Any) -> str:
    """Return what the value of an option must be, in words; "" if this value is allowed."""
    if len(each.kinds) != 1:
        return ""
    (kind,) = each.kinds
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return "" if value in choices else f"{', '.join(choices[:-1])} or {choices[-1]}"
    if kind is bool:
        return "" if isinstance(value, bool) else "True or False"
    if kind not in (int, float):
        return ""
    number = Integral if kind is int else Real
    if isinstance(value, bool) or not isinstance(value, number):
        return "a whole number" if kind is int else "a number"
    return "" if math.isfinite(value) and _within(each, value) else limits(each.option)


def _within(each: Declared, value: Any) -> bool:
    low, high = each.option.minimum, each.option.maximum
    enough = low is None or (value > low if each.option.above else value >= low)
    return bool(enough and (high is None or (value < high if each.option.below else value <= high)))


def limits(option: Option) -> str:
    """Return the limits of a number in words."""
    low, high = option.minimum, option.maximum
    if low is not None and high is not None and not (option.above or option.below):
        return f"from {low:,g} to {high:,g}"
    words = [] if low is None else [f"{'above' if option.above else 'at least'} {low:,g}"]
    words += [] if high is None else [f"{'below' if option.below else 'at most'} {high:,g}"]
    return " and ".join(words) or "a finite number"


def default_out() -> str:
    """Return the output folder if none is named: SATPIPE_OUT, or `out` in the current folder."""
    return os.environ.get(OUT_VARIABLE) or OUT


class OfFolder(Protocol[P, Result]):
    """A function of an output folder, by default `default_out()`, and of options."""

    def __call__(self, out: str | Path | None = None, /, *args: P.args, **kwargs: P.kwargs) -> Result:
        """Call the function."""
        ...


def takes(options: Callable[P, Made]) -> Callable[[Callable[[str | Path, Made], R]], OfFolder[P, R]]:
    """Return a decorator: a function of an output folder and an options dataclass gets keyword arguments instead.

    The output folder is `default_out()` if it is not given.
    """

    def decorate(function: Callable[[str | Path, Made], R]) -> OfFolder[P, R]:
        @wraps(function)
        def with_keywords(out: str | Path | None = None, /, *args: P.args, **kwargs: P.kwargs) -> R:
            return function(default_out() if out is None else out, options(*args, **kwargs))

        return lists(options)(with_keywords)

    return decorate


def lists(options: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Return a decorator that adds the options of a dataclass to the signature and docstring of a function.

    An unknown or missing keyword argument raises TypeError.
    """
    known = {each.name: each for each in declared(options)}

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        name: str = function.__name__

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> R:
            for given in kwargs.keys() - known.keys():
                near = get_close_matches(given, known, n=1)
                meant = f"; did you mean '{near[0]}'?" if near else ""
                raise TypeError(f"{name}() has no option '{given}'{meant}")
            for each in known.values():
                value = os.environ.get(each.option.variable or "")
                if value:
                    kwargs.setdefault(each.name, value)
                if each.default is MISSING and each.name not in kwargs:
                    raise TypeError(f"{name}() needs the option '{each.name}'")
            return function(*args, **kwargs)

        signature = inspect.signature(function)
        first, *_ = signature.parameters.values()
        keywords = [
            inspect.Parameter(
                each.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if each.default is MISSING else each.default,
                annotation=each.annotation,
            )
            for each in known.values()
        ]
        lines = ["Keyword Args:", *(f"    {each.name}: {each.option.help}" for each in known.values()), "", "Returns:"]
        checked.__doc__ = (inspect.getdoc(function) or "").replace("Returns:", "\n".join(lines), 1)
        checked.__signature__ = signature.replace(parameters=[first, *keywords])  # type: ignore[attr-defined]
        return checked

    return decorate
