"""True labels: read in the formats people keep them in, and joined to recordings.

Weak labels say that a class occurs in a clip, strong labels from when to when. Classes are joined by mid, or by a name
where a file has no mids; a clip is joined to a recording by its name, see `match`.

Formats: AudioSet's segment lists (Gemmeke et al., ICASSP 2017) and strong labels (Hershey et al., ICASSP 2021), tables
with a header as in DCASE and sed_eval, Raven's selection tables, Audacity's label files, `onset, offset, label`.
Files are UTF-8; lines that start with # are comments; decimals take a point.
"""

from satpipe.jobs.ground_truth.class_sets import class_set, closed, positives, read_thresholds, select, threshold_table
from satpipe.jobs.ground_truth.matching import Match, match, read_list, read_mapping
from satpipe.jobs.ground_truth.strong_labels import ClippedLabels, StrongLabels, read_strong, within
from satpipe.jobs.ground_truth.vocabulary import Unknown
from satpipe.jobs.ground_truth.weak_labels import WeakLabels, read_weak

__all__ = [
    "ClippedLabels",
    "Match",
    "StrongLabels",
    "Unknown",
    "WeakLabels",
    "class_set",
    "closed",
    "match",
    "positives",
    "read_list",
    "read_mapping",
    "read_strong",
    "read_thresholds",
    "read_weak",
    "select",
    "threshold_table",
    "within",
]
