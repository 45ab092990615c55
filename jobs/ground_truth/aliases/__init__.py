"""Aliases: the label set of another data set in terms of AudioSet's classes.

Each target is a label of that set, with the AudioSet classes that it stands for; its score is their maximum. A target
without a class of the model is never detected.

Sources of the label sets: DESED (Turpault et al., DCASE 2019), ESC-50 (Piczak, ACM Multimedia 2015), URBAN-SED (Salamon
et al., WASPAA 2017), FSD50K (Fonseca et al., IEEE/ACM TASLP 2022), whose labels are AudioSet's names with underscores,
and "and" for commas. Where a label is wider than any class, the choice of classes is satpipe's.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from satpipe.jobs.ground_truth.dialects import read_table
from satpipe.jobs.ground_truth.text_file import cell_at, plain
from satpipe.pipeline.storage import locate
from satpipe.pipeline.tables.targets import Target
from satpipe.sat.errors import ConfigError, LabelError, TruthError
from satpipe.sat.labels import Label, find

SHIPPED = ("desed", "esc50", "fsd50k", "urban-sed")
_CLASS = ("mid", "class", "classes", "audioset")


@dataclass(frozen=True, eq=False)
class Aliases:
    """Labels of another set, called targets, and the AudioSet classes that they stand for."""

    name: str
    members: dict[Label, tuple[Label, ...]]
    """Of each target, whose mid is `NAME/LABEL`: the classes, none if AudioSet has no such class."""
    own: tuple[Target, ...] = ()
    """Own classes, one for each target, which are not made of AudioSet's classes."""

    @cached_property
    def _known(self) -> dict[str, Label]:
        named = {plain(target.name): target for target in self.members}
        return named | {target.mid.casefold(): target for target in self.members}

    def get(self, text: str) -> Label | None:
        """Return the target with this label; case, underscores and spaces do not matter."""
        return self._known.get(plain(text)) or self._known.get(text.casefold())


def read_aliases(name: str | Path) -> Aliases:
    """Read aliases.

    Args:
        name: One of `SHIPPED`; or a table with the columns label and class, a mid or name of AudioSet, with a row for
            each class of a label. A row without a class states that AudioSet has none.

    Raises:
        ConfigError: Neither aliases nor a file has this name.
        TruthError: The table cannot be read, has invalid lines or lists nothing.
        LabelError: The table lists a class that AudioSet does not have.
    """
    shipped = str(name) in SHIPPED
    path = Path(__file__).parent / f"{name}.csv" if shipped else locate(name)
    if not path.is_file():
        raise ConfigError(f"'{name}' is neither a set of aliases ({', '.join(SHIPPED)}) nor a file")
    table = read_table(path)
    label, of = table.column(["label"]), table.column(_CLASS)
    if label is None or of is None:
        raise TruthError(f"{path} must have a header with the columns label, and mid or class")
    targets: dict[str, Label] = {}
    members: dict[Label, list[Label]] = {}
    for number, cells in table.body():
        with table.line(number):
            text = cell_at(cells, label)
            if not text:
                raise TruthError("the label is missing")
            target = targets.setdefault(plain(text), Label(f"{path.stem}/{text}", text, None))
            classes = members.setdefault(target, [])
            if cell_at(cells, of):
                found = find(cell_at(cells, of))
                table.once((target, found), f"{found.name!r} of {text!r}")
                classes.append(found)
    table.check()
    if not targets:
        raise TruthError(f"{path} lists no label")
    return Aliases(path.stem, {target: tuple(classes) for target, classes in members.items()})


def unknown_label(text: str, aliases: Aliases) -> LabelError:
    """Return the error for a label that is neither a target nor a class."""
    from difflib import get_close_matches

    names = [target.name for target in aliases.members]
    near = get_close_matches(text, names, n=2, cutoff=0.6)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return LabelError(
        f"label {text!r} is neither one of the {len(names)} labels of {aliases.name} nor AudioSet's{hint}"
    )
