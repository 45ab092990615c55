"""`satpipe report-consistency`: figures against plain loops, the picture, and errors."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import Satpipe
from images import pixels, texts, width_and_height_in
from outputs import CHUNK_SAMPLES, IDENTITY, RUN, Scores, scores_of, write_output
from satpipe.jobs.consistency import Consistency, consistency
from satpipe.reports import consistency_pictures as pages
from satpipe.reports.pictures import DOTS_PER_INCH
from satpipe.sat.errors import ConfigError, LabelError, OutputError
from satpipe.sat.labels import choose, separated, weak_labels

LABELS = ("Bird", "Hubbub, speech noise, speech babble")
ODD = "a_$b$ <&> 鳥.wav"


def made_by(**identity: Any) -> dict[str, Any]:
    """Content of `run.json` for other weights or options."""
    return RUN | {"identity": IDENTITY | identity, "model": {"chunk_samples": CHUNK_SAMPLES}}


def by_rule(chunks: int, seed: int) -> Scores:
    rng = np.random.default_rng(seed)
    return scores_of(chunks, **{label: rng.choice([0.1, 0.3, 0.5, 0.9], chunks).tolist() for label in LABELS})


@pytest.fixture(scope="module")
def outs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two recordings with memory and without."""
    folder = tmp_path_factory.mktemp("outs")
    batch = {"b.wav": by_rule(5, 0), ODD: by_rule(20, 1), "empty.wav": scores_of(0)}
    write_output(folder / "on", batch)
    write_output(folder / "off", dict(reversed(batch.items())), run=made_by(memory="off"))
    return [folder / name for name in ("on", "off")]


def plainly(out: Path, recording: str | None, label: str, threshold: float) -> dict[str, float]:
    """The figures by loops over the table of scores."""
    scores = pd.read_parquet(out / "scores").sort_values(["recording", "chunk"])
    place = next(known.index for known in weak_labels() if known.name == label)
    values, longest_s = [], 0.0
    for name, rows in scores.groupby(scores.recording.astype(str)):
        if recording not in (None, name):
            continue
        gap_s = 0.0
        for score, start_s, end_s in zip(rows.scores, rows.start_s, rows.end_s, strict=True):
            values.append(float(score[place]))
            gap_s = gap_s + end_s - start_s if values[-1] < threshold else 0.0
            longest_s = max(longest_s, gap_s)
    mean = sum(values) / len(values)
    spread = sum((value - mean) ** 2 for value in values) / len(values)
    share = sum(value >= threshold for value in values) / len(values)
    return {
        "chunks": len(values), "mean": mean, "std": spread**0.5, "share_above": share, "longest_gap_s": longest_s,
    }  # fmt: skip


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.95])
def test_figures_are_those_of_plain_loops(outs: list[Path], threshold: float) -> None:
    found = consistency(outs, choose(LABELS), threshold)
    assert found.recordings == (ODD, "b.wav")
    assert len(found.figures) == 2 * 3 * 2
    places = {regime.name: Path(regime.out) for regime in found.regimes}
    for figure in found.figures:
        expected = plainly(places[figure.regime], figure.recording, figure.label, threshold)
        assert {name: getattr(figure, name) for name in expected} == pytest.approx(expected, abs=1e-9), figure
    assert sum(figure.duration_s for figure in found.figures if figure.recording is None) == pytest.approx(
        4 * 24 * 1.92
    )


def test_what_is_never_and_what_is_always_found(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav": scores_of(4, Bird=[0.5] * 4, Dog=[0.25] * 4)})
    always, never = consistency([tmp_path / "out"], choose(["Bird", "Dog"])).figures
    assert (always.share_above, always.longest_gap_s, always.mean, always.std) == (1, 0, 0.5, 0)
    assert (never.share_above, never.longest_gap_s) == (0, pytest.approx(3.5 * 1.92))


def test_regimes_are_called_by_what_made_them(outs: list[Path], tmp_path: Path) -> None:
    names = [regime.name for regime in consistency(outs, choose("Bird")).regimes]
    assert names == ["SAT_T_2s, 2 s, memory", "SAT_T_2s, 2 s, no memory"]
    batch = {"b.wav": by_rule(5, 0), ODD: by_rule(20, 1)}
    write_output(tmp_path / "again" / "on", batch)
    write_output(tmp_path / "better", batch, run=made_by(model_sha256="def", memory="off"))
    names = [regime.name for regime in consistency([outs[0], tmp_path / "better"], choose("Bird")).regimes]
    assert names == ["SAT_T_2s, 2 s, memory (on)", "SAT_T_2s, 2 s, no memory (better)"]
    both = [outs[0], tmp_path / "again" / "on"]
    assert [regime.name for regime in consistency(both, choose("Bird")).regimes] == [
        f"SAT_T_2s, 2 s, memory ({out})" for out in both
    ]


def test_delays_that_differ_are_compared_in_seconds(tmp_path: Path) -> None:
    write_output(tmp_path / "short", {"a.wav": scores_of(5, Bird=[0.9, 0.1, 0.1, 0.9, 0.9])})
    full = made_by(arch="audiotransformer_tiny", delay_s=5.76, memory="off")
    full["model"] = {"chunk_samples": 3 * CHUNK_SAMPLES}
    write_output(tmp_path / "long", {"a.wav": scores_of(2, Bird=[0.9, 0.1])}, run=full)
    found = consistency([tmp_path / "short", tmp_path / "long"], choose("Bird"))
    assert [regime.name for regime in found.regimes] == ["SAT_T_2s, 2 s, memory", "audiotransformer_tiny, 5.76 s"]
    assert [figure.chunks for figure in found.figures] == [5, 2]
    assert [figure.longest_gap_s for figure in found.figures] == pytest.approx([2 * 1.92, 0.5 * 5.76])
    assert pages.picture(found, tmp_path) == ""


# The command and the picture


@pytest.fixture(scope="module")
def reported(satpipe: Satpipe, outs: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A report with a picture, and its lines."""
    folder = tmp_path_factory.mktemp("report")
    labels = ("--labels", f"Bird,{LABELS[1]}", "--labels", "dog")
    done = satpipe("report-consistency", *labels, *outs, "-o", folder, "--threshold", 0.3)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_the_command_writes_and_prints_the_same_figures(reported: tuple[Path, str], outs: list[Path]) -> None:
    folder, printed = reported
    card = json.loads((folder / "consistency.json").read_text())
    assert card["threshold"] == 0.3
    assert [regime["memory"] for regime in card["regimes"]] == ["on", "off"]
    with (folder / "consistency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["label"] for row in rows[::6]] == [*LABELS, "Dog"]
    lines = [line for line in printed.splitlines() if line.startswith("| ")][1:]
    assert len(lines) == len(rows) == len(card["figures"]) == 18
    for line, row, figure in zip(lines, rows, card["figures"], strict=True):
        cells = [cell.strip().replace("\\", "") for cell in line.strip("|").split("|")]
        assert cells[:3] == [figure["label"], figure["recording"] or "all", figure["regime"]]
        assert [float(cells[3]), float(row["mean"])] == pytest.approx([figure["mean"]] * 2, abs=6e-4)
        assert cells[5] == f"{figure['share_above']:.1%}"
        assert float(row["longest_gap_s"]) == figure["longest_gap_s"] == pytest.approx(float(cells[6]), abs=0.06)


@pytest.mark.slow
def test_the_picture_has_a_panel_for_each_recording_and_label(reported: tuple[Path, str]) -> None:
    folder, _ = reported
    written = texts(folder / "consistency.svg")
    assert f"Bird in {ODD}" in written
    assert "Hubbub in b.wav" in written  # the first part of a long name
    assert {"SAT_T_2s, 2 s, memory", "SAT_T_2s, 2 s, no memory", "threshold 0.3", "seconds"} <= set(written)
    height, width, _ = pixels(folder / "consistency.png").shape
    assert [width, height] == pytest.approx(width_and_height_in(folder / "consistency.svg") * DOTS_PER_INCH, abs=1)


@pytest.mark.slow
def test_the_same_comparison_gives_the_same_files(reported: tuple[Path, str], outs: list[Path], tmp_path: Path) -> None:
    found = consistency(outs, choose(separated([f"Bird,{LABELS[1]}", "dog"])), 0.3)
    pages.picture(found, tmp_path / "again")
    for name in ("consistency.svg", "consistency.png"):
        assert (tmp_path / "again" / name).read_bytes() == (reported[0] / name).read_bytes()


def line_of(found: Consistency, folder: Path) -> tuple[str, list[str]]:
    note = pages.picture(found, folder)
    return note, texts(folder / "consistency.svg")


@pytest.mark.slow
def test_long_recordings_and_many_panels_are_drawn_in_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_output(tmp_path / "long", {"a.wav": by_rule(2500, 0)})
    note, written = line_of(consistency([tmp_path / "long"], choose("Bird")), tmp_path)
    assert (note, "minutes (means of 3 chunks)" in written) == ("", True)
    write_output(tmp_path / "many", {f"{n:02}.wav": by_rule(2, n) for n in range(20)})
    found = consistency([tmp_path / "many"], choose(LABELS))
    monkeypatch.setattr(pages, "MAX_PANELS", 4)
    note, written = line_of(found, tmp_path)
    assert note == "consistency shows 4 of 40 pairs of recording and class; the tables contain all"
    assert sum(text.startswith("Bird in") for text in written) == 2
    assert len(pages.table(found.figures, 0.5).rows) == 42


# Errors


def test_folders_of_other_recordings_are_refused(outs: list[Path], tmp_path: Path) -> None:
    write_output(tmp_path / "other", {"b.wav": by_rule(5, 0), "c.wav": by_rule(3, 0)})
    with pytest.raises(OutputError, match=rf"{outs[0]} has scores of a_.*\.wav, {tmp_path}/other does not"):
        consistency([outs[0], tmp_path / "other"], choose("Bird"))
    write_output(tmp_path / "more", {name: by_rule(2, 0) for name in (ODD, "b.wav", *"cdefghi")})
    with pytest.raises(OutputError, match="more has scores of c, d, e, f, g and 2 more, .*on does not"):
        consistency([outs[0], tmp_path / "more"], choose("Bird"))
    write_output(tmp_path / "longer", {"b.wav": by_rule(6, 0), ODD: by_rule(20, 1)})
    with pytest.raises(OutputError, match=r"b\.wav lasts 8\.6 s in .*on, 10\.6 s in .*longer"):
        consistency([outs[0], tmp_path / "longer"], choose("Bird"))
    with pytest.raises(ConfigError, match="given twice"):
        consistency([outs[0], outs[0]], choose("Bird"))
    write_output(tmp_path / "nothing", {"b.wav": scores_of(0)})
    with pytest.raises(OutputError, match="no recording with scores"):
        consistency([tmp_path / "nothing"], choose("Bird"))


def test_a_folder_that_is_not_finished_is_said_to_be(satpipe_here: Satpipe, tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav": by_rule(3, 0)}, run={k: v for k, v in RUN.items() if k != "finished"})
    done = satpipe_here("report-consistency", "--labels", "Bird", tmp_path / "out")
    assert (done.returncode, "not finished" in done.stdout) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--labels", "Brid"), 1, "did you mean 'Bird'"),
        (("--labels", "Bird,Hubub"), 1, "label 'Hubub' not found; did you mean 'Hubbub"),
        (("--labels", "Bird", "--threshold", "0"), 2, "threshold"),
        (("--labels", ","), 1, "one or more labels"),
    ],
)
def test_bad_input_is_one_clear_message(
    satpipe_here: Satpipe, outs: list[Path], arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = satpipe_here("report-consistency", *arguments, outs[0])
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr


@pytest.mark.parametrize(
    ("given", "labels"),
    [
        (["Bird"], ("Bird",)),
        (["Bird,Rain", "Dog"], ("Bird", "Rain", "Dog")),
        ([f"{LABELS[1]},Bird,Gunshot, gunfire"], (LABELS[1], "Bird", "Gunshot, gunfire")),
        (["under:animal, /m/09x0r,72"], ("under:animal", "/m/09x0r", "72")),
        (["Gunshot, gunfyre"], ("Gunshot", "gunfyre")),
        ([" , "], ()),
    ],
)
def test_labels_between_commas(given: list[str], labels: tuple[str, ...]) -> None:
    assert separated(given) == labels


def test_a_label_without_output_is_named() -> None:
    with pytest.raises(LabelError, match="no output"):
        choose(separated(["Human sounds"]))
