"""The Python blocks of the texts: what each one must do."""

import re
from collections.abc import Callable
from typing import Any

import pandas as pd
import torch
from text_commands import CLIPS, EVALUATE, JOIN, TAG, TAG_LIKE

BlockCheck = Callable[[dict[str, Any], str, str], None]
"""Takes the names that a block defined, what it printed, and the block."""


def check_answers(names: dict[str, Any], printed: str, block: str) -> None:
    assert set(names["sheet"]["correct"]) <= {"yes", "no"}


def check_hours(names: dict[str, Any], printed: str, block: str) -> None:
    assert names["hours"].label.unique().tolist() == ["birds"]
    assert names["hours"].recorded_s.gt(0).all()


def check_clips_of_examples(names: dict[str, Any], printed: str, block: str) -> None:
    assert set(pd.read_csv("clips_of_examples/sheet.csv")["label"]) == {"Bird", "Speech"}


def check_reading(names: dict[str, Any], printed: str, block: str) -> None:
    columns = re.search(r"# (.*)", block)
    assert columns
    assert list(names["tags"].columns) == columns[1].split(", ")
    assert len(names["birds"])
    assert "birds_48k_stereo.opus" in printed
    assert re.search(r"^ok +0\.0\d+$", printed, re.MULTILINE)


def check_frames(names: dict[str, Any], printed: str, block: str) -> None:
    assert "birds_48k_stereo.opus" in set(names["birds"].recording)
    assert set(names["scores"].recording) == {"birds_48k_stereo.opus", "night/thunder_48k_mono.opus"}
    assert len(names.get("loud", "in the guide only"))


def check_evaluation(names: dict[str, Any], printed: str, block: str) -> None:
    assert "'onset_f1': " in printed


def check_search(names: dict[str, Any], printed: str, block: str) -> None:
    assert names["hits"].score.is_monotonic_decreasing
    assert printed.endswith("(6, 192)\n")


def check_streaming(names: dict[str, Any], printed: str, block: str) -> None:
    assert names["scores"].shape == (1, 527)
    assert names["rest"].shape == (1, 527)


def check_files(names: dict[str, Any], printed: str, block: str) -> None:
    assert "file_s" in printed


def check_figures(names: dict[str, Any], printed: str, block: str) -> None:
    assert {"mAP", "segment_f1"} <= set(names["figures"].name)
    assert "classes_averaged" in printed


def check_batch(names: dict[str, Any], printed: str, block: str) -> None:
    names["tagger"].push("a stream", torch.zeros(40_000))
    assert [scored.stream for scored in names["tagger"].step()] == ["a stream"]


PYTHON: dict[str, tuple[BlockCheck, tuple[str, ...]]] = {
    'tags = pd.read_parquet("out/tags")  #': (check_reading, ("make tag",)),
    "satpipe.tag(": (check_frames, ("make tag",)),
    "scenes/strong.tsv": (check_answers, (CLIPS,)),
    "satpipe.clips(": (check_clips_of_examples, ("make tag",)),
    "satpipe.search(": (check_search, (TAG_LIKE,)),
    "satpipe.activity(": (check_hours, (TAG,)),
    "satpipe.evaluate(": (check_evaluation, (TAG,)),
    "satpipe.StreamingTagger(": (check_streaming, ()),
    "in_files(": (check_files, (JOIN,)),
    "evaluate.json": (check_figures, (EVALUATE,)),
    "BatchTagger(": (check_batch, ()),
}
"""The check of each Python block and the commands that must run before it, by a text that the block contains."""
