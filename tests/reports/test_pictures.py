"""`satpipe report-evaluation`: curves against scikit-learn and psds-eval, branches, pictures, tables."""

import csv
import json
import re
import shutil
import warnings
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from conftest import Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from images import pixels, texts, width_and_height_in
from oracles import PSDSEval
from outputs import CHUNK_S, scores_of, write_output
from satpipe.jobs.benchmark import strong_set
from satpipe.jobs.evaluate import EvaluateOptions, evaluate, read, read_curves, write
from satpipe.jobs.evaluate.curves import FINENESS, MAX_POINTS, thinned
from satpipe.reports import evaluation_pictures
from satpipe.reports.class_bars import MAX_BARS
from satpipe.reports.pictures import DOTS_PER_INCH
from satpipe.reports.tables import Table, html_page, latex_input, markdown_text
from satpipe.sat.errors import LabelError
from satpipe.sat.labels import find, strong_labels, weak_labels
from sklearn.metrics import average_precision_score, precision_recall_curve

Points = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and labels of 50 clips, by rule, and their evaluation result."""
    folder = tmp_path_factory.mktemp("made")
    small = strong_set.make(50, 400, seed=5)
    small.write_output(folder / "out")
    small.write_truth(folder / "strong.tsv")
    truth = pd.read_csv(folder / "strong.tsv", sep="\t")
    truth = truth[truth.label.map(lambda mid: find(mid).index is not None)]
    truth.assign(filename=truth.segment_id + ".wav")[["filename", "label"]].drop_duplicates().to_csv(
        folder / "weak.csv", index=False
    )
    options = EvaluateOptions(
        weak=folder / "weak.csv", strong=folder / "strong.tsv", threshold="0.3", bootstrap=20, psds_thresholds=10
    )
    write(evaluate(folder / "out", **vars(options)), folder / "result")
    return folder


@pytest.fixture(scope="module")
def curves(made: Path) -> pd.DataFrame:
    return pd.read_parquet(made / "result" / "curves.parquet")


def line(curves: pd.DataFrame, name: str, mid: str | None = None) -> Points:
    chosen = curves[(curves.curve == name) & (curves.mid.isna() if mid is None else curves.mid == mid)]
    return chosen[["x", "y"]].to_numpy()


def area(points: Points) -> float:
    return float(np.trapezoid(points[:, 1], points[:, 0]))


def distances(points: Points, to: Points) -> Points:
    """Distance of each point from a line [n, 2]."""
    start, along = to[:-1], np.diff(to, axis=0)
    square = np.maximum((along**2).sum(axis=1), 1e-300)
    nearest = []
    for point in points:
        part = np.clip(((point - start) * along).sum(axis=1) / square, 0, 1)
        nearest.append(np.linalg.norm(point - start - part[:, None] * along, axis=1).min())
    return np.array(nearest)


# Curves


def clip_scores(made: Path) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Ground truth and mean scores of clips from the files, [n, 527] each."""
    scores = pd.read_parquet(made / "out" / "scores")
    whole = scores[np.isclose(scores.end_s - scores.start_s, CHUNK_S)]
    means = {
        str(name): np.stack(rows.scores).astype(np.float64).mean(0)
        for name, rows in whole.groupby("recording", observed=True)
    }
    names = sorted(means)
    truth = np.zeros((len(names), 527), bool)
    for row in pd.read_csv(made / "weak.csv").itertuples():
        truth[names.index(str(row.filename)), find(str(row.label)).index] = True
    return truth, np.stack([means[name] for name in names])


def test_precision_over_recall_of_clips_is_scikit_learns(made: Path, curves: pd.DataFrame) -> None:
    truth, scores = clip_scores(made)
    present = np.flatnonzero(truth.any(axis=0))
    assert set(curves[curves.curve == "precision_recall_clips"].mid.dropna()) == {weak_labels()[k].mid for k in present}
    for k in present:
        points = line(curves, "precision_recall_clips", weak_labels()[k].mid)
        assert area(points) == pytest.approx(average_precision_score(truth[:, k], scores[:, k]), abs=1e-9)
    points = line(curves, "precision_recall_clips")
    assert area(points) == pytest.approx(average_precision_score(truth.ravel(), scores.ravel()), abs=FINENESS)
    assert len(points) <= MAX_POINTS
    precision, recall, _ = precision_recall_curve(truth.ravel(), scores.ravel())
    theirs = np.stack([recall, precision], axis=1)[:-1]  # the last one is (0, 1) by convention
    assert distances(theirs[:: len(theirs) // 500], points).max() < 2 * FINENESS


def test_precision_over_recall_of_chunks_is_scikit_learns(made: Path, curves: pd.DataFrame) -> None:
    scores = pd.read_parquet(made / "out" / "scores")
    scores["recording"] = scores.recording.astype(str)
    scores = scores.sort_values(["recording", "chunk"]).reset_index(drop=True)
    labels = strong_labels("shared")
    truth = np.zeros((len(scores), len(labels)), bool)
    places = {label.mid: place for place, label in enumerate(labels)}
    for event in pd.read_csv(made / "strong.tsv", sep="\t").itertuples():
        if event.label in places:
            here = (scores.recording == f"{event.segment_id}.wav") & (scores.start_s < event.end_time_seconds)
            truth[here & (scores.end_s > event.start_time_seconds), places[str(event.label)]] = True
    values = np.stack(scores.scores)[:, [label.index for label in labels]].astype(np.float64)
    for k in np.flatnonzero(truth.any(axis=0)):
        points = line(curves, "precision_recall_chunks", labels[k].mid)
        assert area(points) == pytest.approx(average_precision_score(truth[:, k], values[:, k]), abs=1e-9)
    points = line(curves, "precision_recall_chunks")
    assert area(points) == pytest.approx(average_precision_score(truth.ravel(), values.ravel()), abs=FINENESS)
    figures = {(f["name"], f["average"]): f["value"] for f in read(made / "result")["figures"]}
    at_threshold = np.array([[figures[f"segment_{each}", "micro"] for each in ("recall", "precision")]])
    assert distances(at_threshold, points)[0] < FINENESS  # segments are chunks


def found_rows(out: Path, mids: list[str], threshold: float) -> pd.DataFrame:
    """Runs of chunks that reach a threshold, as psds-eval wants them."""
    scores = pd.read_parquet(out / "scores", columns=["recording", "chunk", "start_s", "end_s", "scores"])
    rows: list[list[Any]] = []
    for mid in mids:
        place = find(mid).index
        last = ("", -2)
        for name, chunk, start_s, end_s, values in scores.itertuples(index=False):
            if values[place] >= threshold:
                if (name, chunk - 1) == last:
                    rows[-1][2] = end_s
                else:
                    rows.append([name, start_s, end_s, mid])
                last = (name, chunk)
    return pd.DataFrame(rows, columns=["filename", "onset", "offset", "event_label"])


def test_psd_roc_is_psds_evals(made: Path, tmp_path: Path) -> None:
    small = strong_set.make(50, 400, seed=5)
    replace(small, truth=small.truth.merged(touching=False)).write_truth(tmp_path / "strong.tsv")
    truth = pd.read_csv(tmp_path / "strong.tsv", sep="\t")
    truth = truth.set_axis(["filename", "onset", "offset", "event_label"], axis=1)
    shared = {label.mid for label in strong_labels("shared")}
    mids = list(truth.event_label[truth.event_label.isin(shared)].value_counts().index[:6])
    truth = truth[truth.event_label.isin(mids)].assign(filename=truth.filename + ".wav")
    (tmp_path / "classes.txt").write_text("\n".join(mids))
    options = EvaluateOptions(
        strong=tmp_path / "strong.tsv", classes=str(tmp_path / "classes.txt"), psds_thresholds=5, bootstrap=0
    )
    write(evaluate(made / "out", **vars(options)), tmp_path / "result")
    curves = pd.read_parquet(tmp_path / "result" / "curves.parquet")
    lengths = pd.read_parquet(made / "out" / "recordings")[["recording", "duration_s"]]
    lengths = lengths.set_axis(["filename", "duration"], axis=1)
    found = [found_rows(made / "out", mids, threshold) for threshold in (np.arange(5) + 0.5) / 5]
    highest = {}
    for name, ratio, alpha_ct, alpha_st in (
        ("psds1", 0.7, 0, 1),
        ("psds2", 0.1, 0.5, 1),
        ("psds1_no_variance", 0.7, 0, 0),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            oracle = PSDSEval(ratio, ratio, 0.3, ground_truth=truth, metadata=lengths, class_names=mids)
            for rows in found:
                oracle.add_operating_point(rows)
            theirs = oracle.psds(alpha_ct, alpha_st, max_efpr=100).plt
        ours = line(curves, name)
        assert (ours[0, 0], ours[-1, 0]) == (0, 100)
        steps = np.unique(np.clip(np.append(theirs.xp, 100), 0, 100))
        between = (steps[1:] + steps[:-1]) / 2
        expected = theirs.yp[np.searchsorted(theirs.xp, between, "right") - 1]
        assert np.interp(between, *ours.T) == pytest.approx(expected, abs=1e-9), name
        highest[name] = expected.max()
    assert min(highest["psds2"], highest["psds1_no_variance"]) > 0.03


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6000), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.001, 1.0]))
def test_thinned_lines_keep_their_ends_and_have_few_points(number: int, seed: int, noise: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.cumsum(rng.random(number))
    points = np.stack([x, np.sqrt(x) + noise * rng.random(number)], axis=1)
    few = thinned(points)
    assert len(few) <= MAX_POINTS
    assert (few[0] == points[0]).all()
    assert (few[-1] == points[-1]).all()
    assert (np.diff(few[:, 0]) > 0).all()
    if noise < 1:  # what a pen can follow
        size = np.ptp(points, axis=0)
        assert distances(points[::7] / size, few / size).max() < 2 * FINENESS


# Branches of the ontology

STRONG_HEADER = "filename\tonset\toffset\tevent_label\n"


def test_branches_are_counted_on_chunks_of_a_single_one(tmp_path: Path) -> None:
    """Five chunks: bird; bird and dog; bird and speech; chirp, which Source-ambiguous sounds has as well; nothing."""
    write_output(
        tmp_path / "out",
        {"a.wav": scores_of(6, Bird=[0.9, 0, 0.9, 0, 0.9], Dog=[0.9, 0, 0, 0, 0], Engine=[0, 0.9, 0, 0, 0.9])},
    )
    events = [(0, 3, "Bird"), (1, 2, "Dog"), (2, 3, "Speech"), (3, 4, "Chirp, tweet")]
    rows = [f"a.wav\t{start * CHUNK_S + 0.1}\t{end * CHUNK_S - 0.1}\t{name}\n" for start, end, name in events]
    (tmp_path / "strong.tsv").write_text(STRONG_HEADER + "".join(rows))
    options = EvaluateOptions(strong=tmp_path / "strong.tsv", classes="527", bootstrap=0, psds_thresholds=0)
    branches = evaluate(tmp_path / "out", **vars(options))["branches"]
    assert (branches["chunks"], branches["left_out"], branches["threshold"]) == (4, 1, 0.5)
    (row,) = branches["rows"]
    found = {name: share for name, share in row["found"].items() if share}
    assert (row["branch"], row["chunks"], row["nothing"]) == ("Animal", 3, pytest.approx(1 / 3))
    assert found == {"Animal": pytest.approx(1 / 3), "Sounds of things": pytest.approx(1 / 3)}


def test_a_class_that_is_not_evaluated_still_decides_on_the_branch(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav": scores_of(2, Bird=[0.9, 0.9])})
    events = f"a.wav\t0\t3.6\tBird\na.wav\t{CHUNK_S}\t3\tEngine\n"
    (tmp_path / "strong.tsv").write_text(STRONG_HEADER + events)
    (tmp_path / "classes.txt").write_text("Bird\nDog\n")
    options = EvaluateOptions(
        strong=tmp_path / "strong.tsv", classes=str(tmp_path / "classes.txt"), bootstrap=0, psds_thresholds=0
    )
    branches = evaluate(tmp_path / "out", **vars(options))["branches"]
    assert (branches["chunks"], branches["left_out"]) == (2, 1)
    assert branches["rows"] == [
        {"mid": "/m/0jbk", "branch": "Animal", "chunks": 1, "nothing": 0.0, "found": {"Animal": 1.0}}
    ]


# Pictures


@pytest.fixture(scope="module")
def drawn(satpipe: Satpipe, made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    done = satpipe("report-evaluation", made / "result", "-o", folder)
    assert done.returncode == 0, done.stderr
    names = {"classes_average_precision", "classes_segment_f1", "classes_onset_f1", "precision_recall_clips"}
    names |= {"precision_recall_chunks", "psd_roc", "reliability", "ceilings", "branches"}
    assert {path.stem for path in folder.glob("*.png")} == names
    assert all(name in done.stdout for name in names)
    return folder


@pytest.mark.slow
def test_each_picture_is_drawn_and_says_what_it_shows(drawn: Path, made: Path) -> None:
    result = read(made / "result")
    for path in sorted(drawn.glob("*.png")):
        height, width, _ = pixels(path).shape
        expected = width_and_height_in(path.with_suffix(".svg")) * DOTS_PER_INCH
        assert [width, height] == pytest.approx(expected, abs=1)
    classes = {row["label"]: row for row in result["classes"] if row.get("clips")}
    every = texts(drawn / "classes_average_precision_all.svg")
    for name, row in classes.items():
        assert any(text.startswith(name.split(",")[0]) and f"({row['clips']})" in text for text in every), name
        assert f"{row['average_precision']:.2f}" in every
    best = texts(drawn / "classes_average_precision.svg")
    assert {"Average precision, best 20", "Average precision, worst 20"} <= set(best)
    assert "never found" in texts(drawn / "classes_segment_f1.svg")
    figures = {(f["name"], f["average"]): f["value"] for f in result["figures"]}
    assert f"all together (micro): {figures['mAP', 'micro']:.2f}" in texts(drawn / "precision_recall_clips.svg")
    roc = texts(drawn / "psd_roc.svg")
    assert f"mean over classes: {figures['psds1_no_variance', 'macro']:.3f}" in roc
    assert f"mean less standard deviation: {figures['psds2', 'macro']:.3f}" in roc
    written = texts(drawn / "branches.svg")
    for row in result["branches"]["rows"]:
        assert any(f"({row['chunks']:,})" in text for text in written)
        assert f"{row['nothing']:.2f}" in written
    assert "Chunks of 1.92 s" in texts(drawn / "ceilings.svg")


def test_intervals_of_classes_are_in_the_table(made: Path) -> None:
    classes = pd.read_csv(made / "result" / "classes.csv")
    assert len(pd.read_csv(made / "result" / "classes.csv")) == 527
    for name in ("average_precision", "segment_f1", "onset_f1", "event_f1"):
        known = classes[classes[f"{name}_low"].notna()]
        assert len(known) > 50
        assert (known[f"{name}_low"] <= known[f"{name}_high"]).all()
        assert known[f"{name}_low"].min() >= 0
        assert known[f"{name}_high"].max() <= 1
    common = classes[classes.clips > 10]
    assert (common.average_precision_high - common.average_precision_low > 0.001).any()
    assert (classes.segment_f1_ceiling.dropna() == 1).all()


@pytest.mark.slow
def test_chosen_classes_and_a_result_without_strong_labels(made: Path, drawn: Path, tmp_path: Path) -> None:
    write(evaluate(made / "out", weak=made / "weak.csv", bootstrap=0), tmp_path / "result")
    result, curves = read(tmp_path / "result"), read_curves(tmp_path / "result")
    rarest = min((row for row in result["classes"] if row["clips"]), key=lambda row: row["clips"])
    known = [row for row in result["classes"] if row["clips"] and row is not rarest]
    result |= {"classes": [rarest, *known[: 2 * MAX_BARS]]}  # enough for all kinds of pictures
    names = evaluation_pictures.pictures(result, curves, tmp_path / "one", [find(rarest["mid"]).index or 0])
    assert "psd_roc" not in names
    legend = [text for text in texts(tmp_path / "one" / "precision_recall_clips.svg") if ": " in text]
    assert len(legend) == 2
    assert legend[1].endswith(f": {rarest['average_precision']:.2f}")
    assert "bootstrap" not in " ".join(texts(tmp_path / "one" / "classes_average_precision.svg"))
    again = evaluation_pictures.pictures(result, curves, tmp_path / "two", [find(rarest["mid"]).index or 0])
    assert names == again
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_single_class_that_is_never_found(tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"a.wav": scores_of(3)})
    (tmp_path / "strong.tsv").write_text(STRONG_HEADER + "a.wav\t0\t1\tBird\n")
    options = EvaluateOptions(strong=tmp_path / "strong.tsv", classes="527", bootstrap=5, psds_thresholds=3)
    write(evaluate(tmp_path / "out", **vars(options)), tmp_path / "result")
    result = read(tmp_path / "result")
    names = evaluation_pictures.pictures(result, read_curves(tmp_path / "result"), tmp_path / "drawn")
    assert {path.stem for path in (tmp_path / "drawn").iterdir()} == set(names)
    assert {"Bird (1)", "never found"} <= set(texts(tmp_path / "drawn" / "classes_segment_f1.svg"))


def test_what_cannot_be_drawn_is_one_clear_message(satpipe_here: Satpipe, made: Path, tmp_path: Path) -> None:
    old = shutil.copytree(made / "result", tmp_path / "old")
    (old / "curves.parquet").unlink()
    broken = shutil.copytree(made / "result", tmp_path / "broken")
    (broken / "curves.parquet").write_bytes(b"PAR1 nothing")
    for arguments, code, message in (
        ((made / "result", "-o", tmp_path / "o", "--labels", "Brid"), 1, "did you mean 'Bird'"),
        ((old, "-o", tmp_path / "o"), 1, "curves.parquet is missing"),
        ((broken, "-o", tmp_path / "o"), 1, "broken/curves.parquet"),
        ((made, "-o", tmp_path / "o"), 1, "evaluate.json cannot be read"),
        ((made / "result",), 2, "'-o' / '--out'"),
    ):
        done = satpipe_here("report-evaluation", *arguments)
        assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    result, curves = read(made / "result"), read_curves(made / "result")
    absent = next(n for n, label in enumerate(weak_labels()) if not _in_truth(result, label.mid))
    with pytest.raises(LabelError, match="not in the ground truth"):
        evaluation_pictures.pictures(result, curves, tmp_path / "o", [absent])
    present = [n for n, label in enumerate(weak_labels()) if _in_truth(result, label.mid)]
    with pytest.raises(LabelError, match="at most 6 classes, not 7"):
        evaluation_pictures.pictures(result, curves, tmp_path / "o", present[:7])


def _in_truth(result: dict[str, Any], mid: str) -> bool:
    return any(row["mid"] == mid and (row.get("clips") or row.get("events")) for row in result["classes"])


# Tables


class Cells(HTMLParser):
    """Collects rows of cells, and checks that each opened element is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


@pytest.mark.slow
def test_the_papers_tables_in_four_formats(drawn: Path, made: Path) -> None:
    figures = {(f["name"], f["average"]): f["value"] for f in read(made / "result")["figures"]}
    parser = Cells()
    parser.feed((drawn / "tables.html").read_text())
    assert parser.open == []
    markdown = [
        [cell.strip() for cell in text.strip("|").split("|")]
        for text in (drawn / "tables.md").read_text().splitlines()
        if text.startswith("| ")
    ]
    latex = (drawn / "tables.tex").read_text()
    rows = [re.sub(r" ?\\\\$", "", text).split(" & ") for text in latex.splitlines() if " & " in text]
    rows = [[cell.strip().replace("\\#", "#") for cell in row] for row in rows]
    assert parser.rows == markdown == rows
    of_csv = [row for number in (2, 3) for row in csv.reader((drawn / f"table{number}.csv").read_text().splitlines())]
    assert of_csv == rows
    assert len(rows) == 19 + 17  # of Tables 2 and 3, with their heads
    (sat_t,) = [row for row in rows if row[:3] == ["2 s", "SAT-T", "yes"] and len(row) == 8]
    assert sat_t[-2:] == ["43.3", f"{100 * figures['mAP', 'macro']:.1f}"]
    assert_balanced(latex)


def assert_balanced(latex: str) -> None:
    plain = re.sub(r"\\[{}\\]", "", latex)
    assert plain.count("{") == plain.count("}")
    opened, closed = (Counter(re.findall(rf"\\{word}{{(\w+)}}", latex)) for word in ("begin", "end"))
    assert opened == closed
    assert opened


def test_special_characters_are_escaped() -> None:
    cells = ("a_b", "50% & <b>", r"\x|y", "#1 {$}~^")
    table = Table("T_1 <i>", ("_h_", "2", "3", "4"), (cells,), note="*n*\nx")
    latex = latex_input([table])
    assert_balanced(latex)
    escaped = r"a\_b & 50\% \& \textless{}b\textgreater{} & \textbackslash{}x|y & \#1 \{\$\}"
    assert escaped + r"\textasciitilde{}\textasciicircum{} \\" in latex
    parser = Cells()
    parser.feed(html_page("a & b", [table]))
    assert parser.rows == [["_h_", "2", "3", "4"], list(cells)]
    markdown = markdown_text([table])
    assert r"| a_b | 50% & \<b> | \\x\|y | #1 {$}~^ |" in markdown
    assert r"| \_h\_ | 2 | 3 | 4 |" in markdown
    assert r"\*n\* x" in markdown
    assert r"**T_1 \<i>**" in markdown


@pytest.mark.slow
def test_several_results_share_the_tables(satpipe_here: Satpipe, made: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("Bird\nSpeech\nMusic\n")
    options = EvaluateOptions(
        strong=made / "strong.tsv", classes=str(tmp_path / "classes.txt"), threshold="0.3", bootstrap=0,
        psds_thresholds=0,
    )  # fmt: skip
    result = evaluate(made / "out", **vars(options))
    for name, delay_s in (("one", 2.0), ("ten", 10.0)):
        write(result | {"model": result["model"] | {"delay_s": delay_s}, "out": name}, tmp_path / name)
    done = satpipe_here("report-evaluation", tmp_path / "one", tmp_path / "ten", "-o", tmp_path / "o")
    assert done.returncode == 0, done.stderr
    names = {"one", "ten", "tables.md", "tables.html", "tables.tex", "table3.csv"}
    assert {path.name for path in (tmp_path / "o").iterdir()} == names
    assert "Ours: one, ten." in (tmp_path / "o" / "tables.md").read_text()
    assert not (tmp_path / "o" / "one" / "psd_roc.png").exists()
    assert json.loads((tmp_path / "one" / "evaluate.json").read_text())["branches"]["rows"]
