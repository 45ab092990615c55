"""The data of `satpipe report`, an overview of an output folder.

Scores are read once, part by part, and only the data that the page shows are kept: memory use does not grow with the
number of recordings.

A label is found in a chunk if its score reaches a threshold. Chunks are counted at several thresholds, so that the
page can offer a choice. A moment of a label is the chunk with the highest score in a run of chunks whose scores reach
0.6 of the threshold, as in `satpipe.jobs.events`. The most certain moments have the highest scores. The most doubtful
moments have the scores nearest to the threshold, above or below it: a slightly different threshold would add or remove
an event.
"""

from satpipe.jobs.options.results import ReportOptions
from satpipe.jobs.report_data.collection import collect
from satpipe.jobs.report_data.contents import Detail, LabelTotal, Problem, ReportData
from satpipe.jobs.report_data.moments import CERTAIN, DOUBTFUL, Excerpt, Moment

__all__ = [
    "CERTAIN", "DOUBTFUL", "Detail", "Excerpt", "LabelTotal", "Moment", "Problem", "ReportData", "ReportOptions",
    "collect",
]  # fmt: skip
