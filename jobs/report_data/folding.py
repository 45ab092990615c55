"""Classes that are one sound, such as Rain and Raindrop, are shown as one group."""

from collections.abc import Collection, Sequence

from satpipe.pipeline.tables.targets import Target, all_classes
from satpipe.sat.groups import PREFIX, Group, shipped


def with_groups(targets: Sequence[Target]) -> tuple[Target, ...]:
    """Return what to count: what is chosen, and after all classes also the groups into which they can be folded."""
    if tuple(targets) != all_classes():
        return tuple(targets)
    return (*targets, *(Target(group.mid, group.name, group.columns) for group in _small_groups()))


def fold(targets: Sequence[Target], found: Collection[int]) -> dict[int, int]:
    """Return the group of each class that is folded into one, as positions in `targets`.

    Args:
        targets: From `with_groups`.
        found: Positions of the targets that occur. A group needs two classes that occur.
    """
    folded: dict[int, int] = {}
    for place in sorted(groups_of(targets), key=lambda place: len(targets[place].columns)):
        classes = [column for column in targets[place].columns if column in found and column not in folded]
        if len(classes) > 1:
            folded.update(dict.fromkeys(classes, place))
    return folded


def groups_of(targets: Sequence[Target]) -> list[int]:
    """Return the positions of the groups that `fold` may use: those after all classes."""
    later = range(len(all_classes()), len(targets))
    return [place for place in later if targets[place].mid.startswith(PREFIX)]


def _small_groups() -> list[Group]:
    """Return the groups that contain no other group, as animals contain birds."""
    groups = list(shipped().values())
    sets = [set(group.columns) for group in groups]
    return [group for group, ours in zip(groups, sets, strict=True) if not any(other < ours for other in sets)]
