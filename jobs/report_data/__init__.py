"""What an output folder holds, at a glance: what `satpipe report` makes a page of.

Scores are read once, piece by piece, and only what the page shows is kept: memory does not grow with the recordings.

A label is found in a chunk if its score reaches a threshold. Counts are made at several of them, for a page that lets
one be chosen. A moment of a label is the chunk with the highest score of a run of chunks whose scores reach 0.6 of the
threshold, as in
`satpipe.jobs.events`. The most certain moments have the highest scores. The most doubtful ones have those
nearest to the threshold, above or below: a slightly other threshold, and there would be one event more, or less.
"""

from satpipe.jobs.report_data.collection import collect
from satpipe.jobs.report_data.contents import Detail, LabelTotal, Moment, Problem, ReportData
from satpipe.jobs.report_data.excerpts import Excerpt
from satpipe.jobs.report_data.moments import CERTAIN, DOUBTFUL
from satpipe.jobs.report_data.options import ReportOptions

__all__ = [
    "CERTAIN", "DOUBTFUL", "Detail", "Excerpt", "LabelTotal", "Moment", "Problem", "ReportData", "ReportOptions",
    "collect",
]  # fmt: skip
