"""Ground truth: labels read in common formats and matched with recordings.

Weak labels state that a class occurs in a clip, strong labels also give its onset and offset. Classes are joined by
mid, or by name where a file has no mids; a clip is matched with a recording by its name, see `match`.

Formats: AudioSet's segment lists (Gemmeke et al., ICASSP 2017) and strong labels (Hershey et al., ICASSP 2021), tables
with a header as in DCASE and sed_eval, or as Parquet, Raven's selection tables, Audacity's label files, lists
without a header, JAMS, TextGrid, verification sheets; `read_strong` describes them. Text files are UTF-8; lines that
start with # are comments; the decimal separator is a point, or a comma where cells are not separated by commas.
"""

from satpipe.jobs.ground_truth.aliases import Aliases, read_aliases
from satpipe.jobs.ground_truth.class_sets import ClassSet, class_set, expanded, positives, select
from satpipe.jobs.ground_truth.groups import as_aliases, of_own_classes, strong_in_groups, weak_in_groups
from satpipe.jobs.ground_truth.matching import Match, match, read_list, read_mapping
from satpipe.jobs.ground_truth.strong_labels import StrongLabels, clipped, read_strong
from satpipe.jobs.ground_truth.thresholds import Thresholds, read_thresholds
from satpipe.jobs.ground_truth.weak_labels import WeakLabels, read_weak

__all__ = [
    "Aliases", "ClassSet", "Match", "StrongLabels", "Thresholds", "WeakLabels", "as_aliases", "class_set", "clipped",
    "expanded", "match", "of_own_classes", "positives", "read_aliases", "read_list", "read_mapping", "read_strong",
    "read_thresholds", "read_weak", "select", "strong_in_groups", "weak_in_groups",
]  # fmt: skip
