"""The data of `satpipe report`, an overview of an output folder.

Scores are read once, part by part, and only the data that the page shows are kept: memory use does not grow with the
number of recordings.

A class or group is found in a chunk if its score reaches a threshold. Chunks are counted at several thresholds, so that
the page can offer a choice. A moment is a chunk that scores highest among itself and the three chunks before and after
it. The most certain moments have the highest scores. Others have scores near each threshold that the page offers, above
or below it: the page shows those nearest to the chosen one as the most doubtful.
"""

from satpipe.jobs.options.results import ReportOptions
from satpipe.jobs.report_data.collection import collect
from satpipe.jobs.report_data.contents import Detail, LabelTotal, Problem, ReportData
from satpipe.jobs.report_data.moments import CERTAIN, NEAR, Excerpt, Moment

__all__ = [
    "CERTAIN", "NEAR", "Detail", "Excerpt", "LabelTotal", "Moment", "Problem", "ReportData", "ReportOptions",
    "collect",
]  # fmt: skip
