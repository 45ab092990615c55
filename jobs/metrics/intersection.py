"""Intersection-based counts: detected events are correct by how much they overlap, not by their onsets.

A detected event is correct if enough of it lies within reference events of its class (DTC); a reference event is
detected if correct ones cover enough of it (GTC). Source: Bilen et al., "A framework for the robust evaluation of sound
event detection", ICASSP 2020; sed_scores_eval and psds-eval compute the same F1.
"""

import numpy as np
from satpipe.jobs.metrics.arrays import Floats
from satpipe.jobs.metrics.counts import Counts
from satpipe.jobs.metrics.psds import DECIMALS
from satpipe.jobs.metrics.psds_counts import Criteria, Detections, Reference, compare
from satpipe.jobs.metrics.sound_events import Events


def count_intersections(
    reference: Events, detected: Events, *, durations_s: Floats, classes: int, dtc: float, gtc: float
) -> Counts:
    """Count events by their overlap; true positives and false negatives are reference events.

    Args:
        reference: Reference events; those of one class that overlap are merged.
        detected: Detected events; those of one class do not overlap.
        durations_s: Of each clip, [clips].
        classes: Number of classes.
        dtc: Minimum part of a detected event within reference events of its class.
        gtc: Minimum part of a reference event that correct ones cover.

    Raises:
        ConfigError: Detected events of one class overlap, or an event ends before it starts.
    """
    true = Reference(reference.merged(touching=False), durations_s, classes, every_class=True)
    changes = compare(true, Detections.of([detected]), Criteria(dtc, gtc, None, DECIMALS))
    tables = [table.tocoo() for table in (true.events_of_class, changes.tp, changes.fp)]
    cells = [table.coords[1].astype(np.int64) * classes + table.coords[0] for table in tables]
    every = np.unique(np.concatenate(cells))
    among, tp, fp = (
        np.bincount(np.searchsorted(every, cell), table.data, len(every)).astype(np.int64)
        for cell, table in zip(cells, tables, strict=True)
    )
    clip, label = np.divmod(every, max(classes, 1))
    zeros = np.zeros(len(durations_s), np.int64)
    return Counts(
        classes=classes,
        clip=clip.astype(np.int32),
        label=label.astype(np.int32),
        tp=tp,
        fp=fp,
        fn=among - tp,
        substitutions=zeros,
        deletions=np.bincount(clip, among - tp, len(zeros)).astype(np.int64),
        insertions=np.bincount(clip, fp, len(zeros)).astype(np.int64),
        reference=np.bincount(clip, among, len(zeros)).astype(np.int64),
    )
