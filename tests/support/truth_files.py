"""Files of ground truth, and the rows read from them."""

from pathlib import Path

from satpipe.jobs.ground_truth import StrongLabels

SEGMENTS = """\
# Segments csv created Sun Mar  5 10:54:25 2017
# num_ytids=20371, num_segs=20371, num_unique_labels=527, num_positive_labels=51804
# YTID, start_seconds, end_seconds, positive_labels
--4gqARaEJE, 0.000, 10.000, "/m/068hy,/m/07q6cd_,/m/0bt9lr,/m/0jbk"
--BfvyPmVMo, 20.000, 30.000, "/m/03l9g"
--i-y1v8Hy8, 0.000, 9.000, "/m/04rlf,/m/09x0r,/t/dd00004,/t/dd00005"
_0BIyqJj9ZU, 30.000, 40.000, "/m/07rgt08,/m/07sq110,/t/dd00001"
Arg6lz6Wryw, 417.300, 427.300, ""
"""
Row = tuple[str, str, float, float]


def write(folder: Path, content: str | bytes, name: str = "truth.csv") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows(truth: StrongLabels) -> list[Row]:
    """Strong labels: clip, name of the class, onset and offset."""
    events = truth.events
    return [
        (truth.clips[clip], truth.labels[label].name, onset, offset)
        for clip, label, onset, offset in zip(
            events.clip, events.label, events.onset_s.tolist(), events.offset_s.tolist(), strict=True
        )
    ]
