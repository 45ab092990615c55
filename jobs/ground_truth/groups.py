"""Groups of classes as the classes of ground truth."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from satpipe.jobs.ground_truth.aliases import Aliases
from satpipe.jobs.ground_truth.strong_labels import StrongLabels
from satpipe.jobs.ground_truth.weak_labels import WeakLabels
from satpipe.jobs.metrics.arrays import Ints, repeats
from satpipe.jobs.metrics.sound_events import Events
from satpipe.pipeline.tables.targets import Target
from satpipe.sat.labels import Label, ancestors, weak_labels

NAME = "groups"


def as_aliases(groups: Sequence[Target]) -> Aliases:
    """Return groups as aliases, so that labels can name them, too."""
    members = {
        Label(group.mid, group.label, None): tuple(weak_labels()[column] for column in group.columns)
        for group in groups
    }
    return Aliases(NAME, members)


def of_own_classes(own: Sequence[Target]) -> Aliases:
    """Return the labels of own classes as aliases of nothing but themselves."""
    names = ", ".join(dict.fromkeys(target.own for target in own))
    return Aliases(names, {Label(target.mid, target.label, None): () for target in own}, tuple(own))


def strong_in_groups(labels: StrongLabels, groups: Aliases) -> StrongLabels:
    """Return strong labels in which an event of a class is one of each group that has the class.

    Events of a group that overlap or touch are merged. Where someone judged that a class does not occur, its group may
    still occur with another class: for the group, only what was judged of itself counts, and what has an event.
    Classes in no group stay.
    """
    known, row, label = _mapped(labels.events.label, labels.labels, groups)
    events = replace(labels.events.take(row), label=label).merged()
    judged = labels.judged
    if judged is not None:
        itself = [k for k, each in enumerate(labels.labels) if each in known]
        ours = judged.take(np.isin(judged.label, itself))
        place = np.array([known.index(each) if each in known else -1 for each in labels.labels], np.int32)
        columns = zip(vars(replace(ours, label=place[ours.label])).values(), vars(events).values(), strict=True)
        judged = Events(*map(np.concatenate, columns)).merged()
    return replace(labels, labels=known, events=events, duplicates=0, judged=judged)


def weak_in_groups(labels: WeakLabels, groups: Aliases) -> WeakLabels:
    """Return weak labels in which a clip with a class also has each group that has the class, instead of the class."""
    known, row, label = _mapped(labels.label, labels.labels, groups)
    pairs = np.unique(np.stack([labels.clip[row], label], axis=1), axis=0)
    return replace(labels, labels=known, clip=pairs[:, 0], label=pairs[:, 1])


def _mapped(
    label: Ints, labels: Sequence[Label], groups: Aliases
) -> tuple[tuple[Label, ...], npt.NDArray[np.int64], Ints]:
    """Return groups and the classes in none, the rows with one of them, and its position for each of these rows."""
    found = [tuple(_groups_of(each, groups)) or (each,) for each in labels]
    known = tuple(dict.fromkeys((*groups.members, *(each for several in found for each in several))))
    at = {each: place for place, each in enumerate(known)}
    count = np.array([len(each) for each in found], np.int64)
    flat = np.array([at[each] for several in found for each in several], np.int32)
    row, nth = repeats(count[label])
    return known, row, flat[(np.cumsum(count) - count)[label[row]] + nth]


def _groups_of(label: Label, groups: Aliases) -> list[Label]:
    """Return the groups of a class; one without an output is in those of the classes above it in the ontology."""
    if label in groups.members:
        return [label]
    family = {label} if label.index is not None else {label, *ancestors(label.mid)}
    return [group for group, members in groups.members.items() if family & set(members)]
