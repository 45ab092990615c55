"""`satpipe compare`: what another model changes, in time, whatever the lengths of rows."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Satpipe
from outputs import CHUNK_S, RUN, Scores, scores_of, set_clock, write_output
from satpipe.jobs.compare import Comparison, compare
from satpipe.jobs.options.results import CompareOptions
from satpipe.pipeline.tables import open_folder
from satpipe.pipeline.tables.schemas import CHANGES
from satpipe.sat.errors import ConfigError, OutputError

HALF = CHUNK_S / 2
FIRST = {
    "a.wav": scores_of(4, Bird=[0.9, 0.8, 0.1, 0.1], Dog=[0.6]),
    "b.wav": scores_of(2, Bird=[0.2, 0.7]),
}
RUN_1S = {**RUN, "identity": {**RUN["identity"], "arch": "SAT_T_1s", "model_sha256": "def"}}


@pytest.fixture
def first(tmp_path: Path) -> Path:
    write_output(tmp_path / "first", FIRST)
    return tmp_path / "first"


def second(tmp_path: Path, batch: dict[str, Scores], **given: Any) -> Path:
    write_output(tmp_path / "second", batch, **given)
    return tmp_path / "second"


def of(found: Comparison, label: str) -> dict[str, Any]:
    [row] = [row for row in found.table.to_pylist() if row["label"] == label]
    return dict(row)


def test_times_found_by_both_and_by_one_only_add_up(first: Path, tmp_path: Path) -> None:
    other = second(tmp_path, {"a.wav": scores_of(4, Bird=[0.1, 0.6, 0.6, 0.1]), "b.wav": scores_of(2, Bird=[0.2, 0.4])})
    found = compare(first, other, CompareOptions())
    assert (found.compared, found.complete) == (2, True)
    assert found.compared_s == pytest.approx(5 * CHUNK_S)  # the last chunk of each is half full
    bird = of(found, "Bird")
    assert [bird[name] for name in ("first_rows", "second_rows")] == [3, 2]
    assert [bird[name] for name in ("both_s", "first_only_s", "second_only_s")] == pytest.approx(
        [CHUNK_S, CHUNK_S + HALF, CHUNK_S]
    )
    means = [(0.9 + 0.8 + 0.1 + 0.1 / 2 + 0.2 + 0.7 / 2) / 5, (0.1 + 0.6 + 0.6 + 0.1 / 2 + 0.2 + 0.4 / 2) / 5]
    assert [bird[name] for name in ("first_mean", "second_mean")] == pytest.approx(means, abs=1e-3)
    assert bird["mean_difference"] == pytest.approx(means[1] - means[0], abs=1e-3)
    assert found.table["label"].to_pylist()[:2] == ["Bird", "Dog"]  # most changed first
    assert found.table.schema.equals(CHANGES)
    assert len(found.table) == 527


def test_rows_of_other_lengths_are_compared_by_time(first: Path, tmp_path: Path) -> None:
    birds = [0.9, 0.1, 0.1, 0.1, 0.1, 0.6, 0.1]
    batch = {"a.wav": scores_of(7, Bird=birds), "b.wav": scores_of(3, Bird=[0.1, 0.9, 0.9])}
    other = second(tmp_path, batch, run=RUN_1S, filled=1.0)
    found = compare(first, other, CompareOptions())
    assert found.complete
    assert found.compared_s == pytest.approx(5 * CHUNK_S)
    bird = of(found, "Bird")
    assert [bird[name] for name in ("first_rows", "second_rows")] == [3, 4]
    assert [bird[name] for name in ("both_s", "first_only_s", "second_only_s")] == pytest.approx(
        [2 * HALF, 3 * HALF, 2 * HALF]
    )
    back = of(compare(other, first, CompareOptions()), "Bird")
    assert [back[name] for name in ("both_s", "first_only_s", "second_only_s")] == pytest.approx(
        [2 * HALF, 2 * HALF, 3 * HALF]
    )


@pytest.mark.parametrize("block", [1, 3])
def test_figures_do_not_depend_on_the_blocks_that_are_read(
    first: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    rng = np.random.default_rng(0)
    random = {name: rng.random((chunks, 527), np.float32) for name, chunks in (("a.wav", 7), ("b.wav", 3))}
    other = second(tmp_path, random, run=RUN_1S, filled=1.0)
    for pair in ((first, other), (other, first)):
        whole = compare(*pair, CompareOptions(labels="Bird"))
        with monkeypatch.context() as patch:
            patch.setattr(open_folder, "BLOCK_CHUNKS", block)
            cut = compare(*pair, CompareOptions(labels="Bird"))
        pd.testing.assert_frame_equal(cut.table.to_pandas(), whole.table.to_pandas())
        assert cut.compared_s == pytest.approx(whole.compared_s)


def test_each_folder_has_its_threshold(first: Path, tmp_path: Path) -> None:
    other = second(tmp_path, {"a.wav": scores_of(4, Bird=[0.3, 0.3]), "b.wav": scores_of(2, Bird=[0.1, 0.3])})
    bird = of(compare(first, other, CompareOptions(labels="Bird", second_threshold=0.25)), "Bird")
    assert (bird["both_s"], bird["first_only_s"]) == (pytest.approx(2 * CHUNK_S + HALF), 0)
    assert (bird["first_threshold"], bird["second_threshold"]) == (0.5, 0.25)


def test_recordings_that_one_lacks_are_named_and_the_exit_code_says_so(
    first: Path, tmp_path: Path, satpipe_here: Satpipe
) -> None:
    other = second(
        tmp_path,
        {"a.wav": scores_of(4, Bird=[0.9]), "b.wav": scores_of(3), "c.wav": scores_of(2), "d.wav": scores_of(0)},
    )
    done = satpipe_here("compare", first, other, "--group", "birds", "-o", tmp_path / "changes.csv")
    assert done.returncode == 3, done.stderr
    assert done.stdout.splitlines()[:5] == [
        f"tagged in {other}, not in {first}: 1, such as c.wav",
        "not compared, since their lengths differ: 1, such as b.wav",
        "compared: 1 recording, 6.72 s; s found in",
        "      both  first only  second only",
        "      1.92        1.92         0.00  birds",
    ]
    table = pd.read_csv(tmp_path / "changes.csv")
    assert table.mid.tolist() == ["group/birds"]
    assert table.first_only_s.tolist() == pytest.approx([CHUNK_S])


def test_a_stretch_of_time_is_compared(first: Path, tmp_path: Path) -> None:
    other = second(tmp_path, {"a.wav": scores_of(4, Bird=[0.9] * 4), "b.wav": scores_of(2)})
    start = datetime(2025, 5, 1, 3, tzinfo=UTC)
    for out in (first, other):
        set_clock(out, {"a.wav": (start, None), "b.wav": (start.replace(month=6), None)})
    found = compare(first, other, CompareOptions(labels="Bird", since="2025-05-01T03:00:02", until="2025-05-02"))
    assert found.compared == 1
    assert found.compared_s == pytest.approx(2.5 * CHUNK_S)
    assert of(found, "Bird")["second_only_s"] == pytest.approx(1.5 * CHUNK_S)


def test_folders_that_cannot_be_compared_are_refused(first: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="given twice"):
        compare(first, first, CompareOptions())
    with pytest.raises(OutputError, match="no tagged recording of the same name and length in common"):
        compare(first, second(tmp_path, {"c.wav": scores_of(2)}), CompareOptions())
