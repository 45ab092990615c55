"""The names of taggers other than SAT, those of other packages included; none is imported before it is used."""

from importlib.metadata import EntryPoint, entry_points

GROUP = "satpipe.taggers"
EXTERNAL_TAGGERS = {
    "ast": "satpipe.sat.taggers.ast:AST",
    "beats": "satpipe.sat.taggers.beats:BEATs",
    "efficientat": "satpipe.sat.taggers.efficientat:EfficientAT",
    "htsat": "satpipe.sat.taggers.htsat:HTSAT",
}


def external_taggers() -> dict[str, EntryPoint]:
    """Return all taggers other than SAT by name, registered ones included."""
    ours = {name: EntryPoint(name, target, GROUP) for name, target in EXTERNAL_TAGGERS.items()}
    return {entry.name: entry for entry in entry_points(group=GROUP)} | ours
