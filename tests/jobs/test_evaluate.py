"""`satpipe evaluate` from files to figures: equal to sed_eval, psds-eval and scikit-learn on the same files."""

import json
import re
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import exact_sets
import numpy as np
import outputs
import pandas as pd
import pyarrow as pa
import pytest
import soundfile
from conftest import ROOT, Satpipe
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import PSDSEval
from satpipe.jobs.benchmark import strong_set
from satpipe.jobs.evaluate import EvaluateOptions, EvaluationResult, evaluate, paired, read, read_samples, write
from satpipe.jobs.evaluate.detection import on_grid
from satpipe.jobs.metrics import counts
from satpipe.jobs.metrics.intersection import count_intersections
from satpipe.jobs.metrics.median import median_filtered
from satpipe.jobs.metrics.sed import load_sed_eval
from satpipe.jobs.metrics.sound_events import Events, detect
from satpipe.reports import evaluation, paper
from satpipe.sat.errors import ConfigError, OutputError, TruthError
from satpipe.sat.labels import ancestors, find, strong_labels, weak_labels
from scipy.stats import norm
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score, roc_auc_score

QUICK = EvaluateOptions(bootstrap=0)
Lists = dict[str, list[dict[str, Any]]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables and strong labels of 60 clips, by rule; the weak labels that follow from them."""
    folder = tmp_path_factory.mktemp("made")
    small = strong_set.make(60, 490, seed=3)
    small.write_output(folder / "out")
    small.write_truth(folder / "strong.tsv")
    truth = pd.read_csv(folder / "strong.tsv", sep="\t")
    with (folder / "weak.csv").open("w") as file:
        file.write("# Segments csv\n# num_ytids=60\n# YTID, start_seconds, end_seconds, positive_labels\n")
        for segment, rows in truth.groupby("segment_id"):
            start_s = int(str(segment)[12:]) / 1000
            mids = sorted({mid for mid in rows.label if find(mid).index is not None})
            file.write(f'{str(segment)[:11]}, {start_s:.3f}, {start_s + 10:.3f}, "{",".join(mids)}"\n')
    return folder


@pytest.fixture(scope="module")
def result(made: Path) -> EvaluationResult:
    return evaluate(made / "out", weak=made / "weak.csv", strong=made / "strong.tsv", threshold="0.3", bootstrap=20)


def value(result: EvaluationResult, name: str, average: str = "micro") -> float:
    (found,) = [each for each in result["figures"] if (each["name"], each["average"]) == (name, average)]
    return float("nan") if found["value"] is None else float(found["value"])


# The other way: plain loops over the files, and the libraries' own evaluation


def frame(out: Path) -> pd.DataFrame:
    scores = pd.read_parquet(out / "scores")
    scores["recording"] = scores["recording"].astype(str)
    return scores.sort_values(["recording", "chunk"])


def true_lists(path: Path, mids: set[str], add: Callable[[str], list[str]] = lambda mid: []) -> Lists:
    lists: Lists = defaultdict(list)
    for row in pd.read_csv(path, sep="\t").itertuples():
        for mid in dict.fromkeys([row.label, *add(row.label)]):
            if mid in mids:
                event = {"event_label": mid, "onset": row.start_time_seconds, "offset": row.end_time_seconds}
                lists[f"{row.segment_id}.wav"].append(event)
    return lists


def found_lists(out: Path, labels: list[Any], threshold: float | dict[str, float]) -> Lists:
    lists: Lists = defaultdict(list)
    for name, rows in frame(out).groupby("recording"):
        scores = np.stack(rows.scores).astype(np.float64)
        for label in labels:
            if label.index is None:
                continue
            least = threshold if isinstance(threshold, float) else threshold[label.mid]
            event: dict[str, Any] | None = None
            for active, start_s, end_s in zip(scores[:, label.index] >= least, rows.start_s, rows.end_s, strict=True):
                if active and event:
                    event["offset"] = end_s
                elif active:
                    event = {"event_label": label.mid, "onset": start_s, "offset": end_s}
                    lists[str(name)].append(event)
                else:
                    event = None
    return lists


def by_sed_eval(metrics: Any, truth: Lists, found: Lists) -> dict[str, Any]:
    for name in sorted(truth):
        metrics.evaluate(reference_event_list=truth[name], estimated_event_list=found.get(name, []))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        results: dict[str, Any] = metrics.results()
    return results


def assert_equal_to_sed_eval(result: EvaluationResult, kind: str, results: dict[str, Any], suffix: str = "") -> None:
    overall, mean = results["overall"], results["class_wise_average"]
    error = f"{'' if kind == 'segment' else kind + '_'}error_rate{suffix}"
    expected = {
        (f"{kind}_f1{suffix}", "micro"): overall["f_measure"]["f_measure"],
        (f"{kind}_precision{suffix}", "micro"): overall["f_measure"]["precision"],
        (f"{kind}_recall{suffix}", "micro"): overall["f_measure"]["recall"],
        (f"{kind}_f1{suffix}", "macro"): mean["f_measure"]["f_measure"],
        (error, "micro"): overall["error_rate"]["error_rate"],
        (error, "macro"): mean["error_rate"]["error_rate"],
    }
    if mean["error_rate"]["error_rate"] > 1e9:  # sed_eval divides by 2.2e-16
        assert np.isnan(value(result, error, "macro"))
        assert not [each for each in result["figures"] if each["value"] is None and each["low"] is not None]
        del expected[error, "macro"]
    for (name, average), figure in expected.items():
        assert value(result, name, average) == pytest.approx(figure, rel=1e-9, abs=1e-9, nan_ok=True), (name, average)
    by_zero = [
        np.nan_to_num(each["f_measure"]["f_measure"])
        for each in results["class_wise"].values()
        if each["count"]["Nref"] > 0
    ]
    assert value(result, f"{kind}_f1{suffix}", "macro_zero") == pytest.approx(np.mean(by_zero), abs=1e-9)


METRICS: dict[str, Callable[[list[str]], Any]] = {
    "segment": lambda mids: load_sed_eval().sound_event.SegmentBasedMetrics(mids, time_resolution=1.92),
    "onset": lambda mids: load_sed_eval().sound_event.EventBasedMetrics(mids, t_collar=0.2, evaluate_offset=False),
    "event": lambda mids: load_sed_eval().sound_event.EventBasedMetrics(mids, t_collar=0.2),
}


SHARED = list(strong_labels("shared"))
MIDS = [label.mid for label in SHARED]


@pytest.fixture(scope="module")
def lists(made: Path) -> tuple[Lists, Lists]:
    """The labelled events, and those detected at 0.3, of the 381 classes."""
    return true_lists(made / "strong.tsv", set(MIDS)), found_lists(made / "out", SHARED, 0.3)


@pytest.mark.parametrize("kind", METRICS)
def test_figures_are_those_of_sed_eval_on_the_same_files(
    result: EvaluationResult, lists: tuple[Lists, Lists], kind: str
) -> None:
    assert_equal_to_sed_eval(result, kind, by_sed_eval(METRICS[kind](MIDS), *lists))
    assert 0.1 < value(result, "segment_f1") < 0.9
    assert 0 < value(result, "event_f1") < value(result, "onset_f1") < value(result, "segment_f1")


def test_a_class_file_and_other_segments_and_collars(made: Path, tmp_path: Path) -> None:
    mids = [label.mid for label in strong_labels("shared")][::3]
    (tmp_path / "classes.txt").write_text("\n".join(mids) + "\n")
    options = EvaluateOptions(
        strong=made / "strong.tsv", classes=str(tmp_path / "classes.txt"), threshold="0.2", segment_s=0.5, collar_s=0.5,
        offset_fraction=0.1, bootstrap=0, psds_thresholds="0",
    )  # fmt: skip
    result = evaluate(made / "out", **vars(options))
    truth = true_lists(made / "strong.tsv", set(mids))
    truth |= {
        name: [] for name in true_lists(made / "strong.tsv", {x.mid for x in strong_labels()}).keys() - truth.keys()
    }
    found = found_lists(made / "out", [find(mid) for mid in mids], 0.2)
    sound_event = load_sed_eval().sound_event
    metrics = {
        "segment": sound_event.SegmentBasedMetrics(mids, time_resolution=0.5),
        "onset": sound_event.EventBasedMetrics(mids, t_collar=0.5, evaluate_offset=False),
        "event": sound_event.EventBasedMetrics(mids, t_collar=0.5, percentage_of_length=0.1),
    }
    for kind, each in metrics.items():
        assert_equal_to_sed_eval(result, kind, by_sed_eval(each, truth, found))
    assert {figure["segment_s"] for figure in result["figures"] if figure["name"] == "segment_f1"} == {0.5}


def test_a_folder_of_label_files_gives_the_same_figures(made: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(made / "strong.tsv", sep="\t")
    for number, (segment, rows) in enumerate(truth.groupby("segment_id")):
        columns = ["start_time_seconds", "end_time_seconds", "label"]
        if number % 2:
            rows[columns].to_csv(tmp_path / f"{segment}.txt", sep="\t", header=False, index=False)  # Audacity's
        else:
            table = rows[columns].set_axis(["Begin Time (s)", "End Time (s)", "Annotation"], axis=1)
            table.to_csv(tmp_path / f"{segment}.Table.1.selections.txt", sep="\t", index=False)  # Raven's
    both = [
        evaluate(made / "out", strong=path, threshold="0.3", bootstrap=0, psds_thresholds="0")
        for path in (made / "strong.tsv", tmp_path)
    ]
    one, other = ({(f["name"], f["average"]): f["value"] for f in result["figures"]} for result in both)
    assert one == pytest.approx(other)


def test_ground_truth_expanded_to_parent_classes(
    made: Path, result: EvaluationResult, lists: tuple[Lists, Lists]
) -> None:
    truth = true_lists(made / "strong.tsv", set(MIDS), lambda mid: [label.mid for label in ancestors(mid)])
    results = by_sed_eval(METRICS["segment"](MIDS), truth, lists[1])  # segments do not mind events that overlap
    assert_equal_to_sed_eval(result, "segment", results, "_closed")
    assert value(result, "segment_recall_closed") < value(result, "segment_recall")


@pytest.mark.slow
def test_psds_is_that_of_psds_eval_on_the_same_files(made: Path, tmp_path: Path) -> None:
    shared = {label.mid for label in strong_labels("shared")}
    listed = pd.read_csv(made / "strong.tsv", sep="\t").label
    scored = set(listed[listed.isin(shared)].value_counts().index[:12])  # psds-eval takes minutes for all of them
    (tmp_path / "classes.txt").write_text("\n".join(scored) + "\n")
    options = EvaluateOptions(
        strong=made / "strong.tsv", classes=str(tmp_path / "classes.txt"), psds_thresholds="4", bootstrap=0
    )
    result = evaluate(made / "out", **vars(options))
    columns = ["filename", "onset", "offset", "event_label"]

    def table(lists: Lists) -> pd.DataFrame:
        rows = [(name, e["onset"], e["offset"], e["event_label"]) for name, events in lists.items() for e in events]
        return pd.DataFrame(rows, columns=columns)

    truth = true_lists(made / "strong.tsv", scored)
    for events in truth.values():  # psds-eval refuses events of a class that overlap
        merged: list[dict[str, Any]] = []
        for event in sorted(events, key=lambda e: (e["event_label"], e["onset"])):
            last = merged[-1] if merged else None
            if last and last["event_label"] == event["event_label"] and event["onset"] < last["offset"]:
                last["offset"] = max(last["offset"], event["offset"])
            else:
                merged.append(dict(event))
        events[:] = merged
    recordings = pd.read_parquet(made / "out" / "recordings")
    metadata = recordings.rename(columns={"recording": "filename", "duration_s": "duration"})[["filename", "duration"]]
    present = sorted({event["event_label"] for events in truth.values() for event in events})
    for name, dtc, gtc, cttc, how in (
        ("psds1", 0.7, 0.7, 0.3, {"alpha_ct": 0, "alpha_st": 1}),
        ("psds1_no_variance", 0.7, 0.7, 0.3, {"alpha_ct": 0, "alpha_st": 0}),
        ("psds2", 0.1, 0.1, 0.3, {"alpha_ct": 0.5, "alpha_st": 1}),
    ):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scorer = PSDSEval(dtc, gtc, cttc, ground_truth=table(truth), metadata=metadata, class_names=present)
            for threshold in (np.arange(4) + 0.5) / 4:
                found = found_lists(made / "out", [find(mid) for mid in present], float(threshold))
                scorer.add_operating_point(table(found))
            expected = scorer.psds(max_efpr=100, **how).value
        assert value(result, name, "macro") == pytest.approx(expected, abs=1e-9)
        assert expected > 0 or name == "psds1"


def test_for_psds_events_that_touch_stay_two_and_those_that_overlap_become_one(made: Path, tmp_path: Path) -> None:
    first = pd.read_csv(made / "strong.tsv", sep="\t").segment_id[0]
    (tmp_path / "t.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        + "".join(f"{first}\t{times}\t/m/09x0r\n" for times in ("0\t1", "1\t2", "4\t6", "5\t7", "5\t6"))
    )
    result = evaluate(made / "out", strong=tmp_path / "t.tsv", bootstrap=0, psds_thresholds="2")
    assert "2 labelled events overlap another of their class: merged for PSDS" in result["notes"]
    assert any("PSDS of a single class is the area under its curve" in note for note in result["notes"])
    assert result["truth"]["strong"]["events"] == 5


def test_weak_figures_are_those_of_scikit_learn_on_the_same_files(made: Path, result: EvaluationResult) -> None:
    scores = frame(made / "out")
    whole = scores[np.isclose(scores.end_s - scores.start_s, 1.92)]
    means = {name: np.stack(rows.scores).astype(np.float64).mean(0) for name, rows in whole.groupby("recording")}
    truth = true_lists(made / "strong.tsv", {label.mid for label in weak_labels()})
    names = sorted(means)
    positive = np.zeros((len(names), 527), bool)
    for row, name in enumerate(names):
        for event in truth[name]:
            positive[row, find(event["event_label"]).index] = True
    table = np.stack([means[name] for name in names])
    present = np.flatnonzero(positive.any(0))
    precision = [average_precision_score(positive[:, k], table[:, k]) for k in present]
    assert value(result, "mAP", "macro") == pytest.approx(np.mean(precision), abs=1e-9)
    auc = [roc_auc_score(positive[:, k], table[:, k]) for k in present]
    assert value(result, "auc", "macro") == pytest.approx(np.mean(auc), abs=1e-9)
    rows = {row["mid"]: row for row in result["classes"]}
    for k, each in zip(present, precision, strict=True):
        row = rows[weak_labels()[k].mid]
        assert (row["average_precision"], row["clips"]) == (pytest.approx(each), positive[:, k].sum())
    figure = next(each for each in result["figures"] if each["name"] == "mAP")
    assert (figure["classes_averaged"], figure["clips_found"]) == (len(present), 60)


def test_every_figure_says_what_it_takes_to_be_compared(result: EvaluationResult) -> None:
    for figure in result["figures"]:
        assert figure["value"] is None or np.isfinite(figure["value"])
        assert {
            "truth",
            "class_set",
            "classes",
            "classes_averaged",
            "nan_rule",
            "clips_found",
            "clips_listed",
        } <= figure.keys()
        assert {"arch", "sha256", "cut", "memory", "delay_s", "satpipe"} <= figure.keys()
        if figure["name"].startswith(("segment_f1", "segment_precision", "segment_recall")):
            assert (figure["segment_s"], figure["threshold"], figure["threshold_source"]) == (1.92, 0.3, "fixed")
        if figure["name"].startswith(("onset", "event")):
            assert figure["collar_s"] == 0.2
    assert value(result, "segment_f1") < value(result, "segment_f1_ceiling") == 1  # segments are chunks
    assert 0 < value(result, "event_f1_ceiling") < value(result, "onset_f1_ceiling") < 0.5
    with_interval = [each for each in result["figures"] if each["low"] is not None]
    assert {each["name"] for each in with_interval} >= {"mAP", "segment_f1", "onset_f1", "error_rate", "psds2"}
    assert all(each["low"] <= each["high"] for each in with_interval)


def test_fewer_clips_than_listed_are_counted_and_said(made: Path, tmp_path: Path) -> None:
    truth = pd.read_csv(made / "strong.tsv", sep="\t")
    listed = sorted(truth.segment_id.unique())
    absent = [f"missing{number:04}_30000" for number in range(7)]
    rows = pd.DataFrame({"segment_id": absent, "start_time_seconds": 1.0, "end_time_seconds": 2.0, "label": "/m/09x0r"})
    kept = truth[truth.segment_id.isin(listed[:50])]
    pd.concat([kept, rows]).to_csv(tmp_path / "truth.tsv", sep="\t", index=False)
    result = evaluate(made / "out", strong=tmp_path / "truth.tsv", bootstrap=0, psds_thresholds="0")
    strong = result["truth"]["strong"]
    assert (strong["listed"], strong["found"], strong["not_found"]) == (57, 50, 7)
    unlisted, others = result["notes"]
    assert unlisted == "not in the strong labels and not evaluated: 10 recordings"
    assert "labelled events are not in the class set 381, of 16 classes: Shower (4)" in others
    assert "50 of 57 clips found (not found: missing0000_30000" in "\n".join(evaluation.result_text(result))
    assert {figure["clips_found"] for figure in result["figures"]} == {50}


@pytest.mark.slow
def test_thresholds_of_classes_from_a_file_and_tuned_on_other_clips(made: Path, tmp_path: Path) -> None:
    labels, rng = SHARED[::4], np.random.default_rng(0)  # sed_eval takes long for all of them
    chosen = {label.mid: float(rng.choice([0.1, 0.25, 0.6])) for label in labels}
    pd.DataFrame(chosen.items(), columns=["mid", "threshold"]).to_csv(tmp_path / "thresholds.csv", index=False)
    options = EvaluateOptions(
        strong=made / "strong.tsv", classes=str(tmp_path / "thresholds.csv"), bootstrap=0, psds_thresholds="0"
    )
    by_file = EvaluateOptions(**{**vars(options), "threshold": str(tmp_path / "thresholds.csv")})
    names = sorted(true_lists(made / "strong.tsv", {label.mid for label in strong_labels()}))
    listed = true_lists(made / "strong.tsv", set(chosen))

    def results(names: list[str], threshold: float | dict[str, float]) -> dict[str, Any]:
        truth = {name: listed[name] for name in names}
        return by_sed_eval(METRICS["segment"](list(chosen)), truth, found_lists(made / "out", labels, threshold))

    assert_equal_to_sed_eval(evaluate(made / "out", **vars(by_file)), "segment", results(names, chosen))

    (tmp_path / "tune.txt").write_text("\n".join(name.removesuffix(".wav") for name in names[:30]) + "\n")
    tuned = evaluate(made / "out", **{**vars(options), "tune": str(tmp_path / "tune.txt")})
    used = {row["mid"]: row["threshold"] for row in tuned["classes"]}
    assert_equal_to_sed_eval(tuned, "segment", results(names[30:], used))
    assert {figure["clips_found"] for figure in tuned["figures"]} == {30}
    best: dict[str, float] = {}
    for threshold in (np.arange(1, 20) / 20).tolist():
        for mid, each in results(names[:30], threshold)["class_wise"].items():
            best[mid] = max(best.get(mid, 0.0), np.nan_to_num(each["f_measure"]["f_measure"]))
    for mid, each in results(names[:30], used)["class_wise"].items():
        assert np.nan_to_num(each["f_measure"]["f_measure"]) >= best[mid] - 1e-9  # of a finer grid
    write(tuned, tmp_path / "tuned")
    again = evaluate(
        made / "out", **{**vars(options), "threshold": str(tmp_path / "tuned" / "thresholds.json")}
    )  # on all clips
    assert {row["mid"]: row["threshold"] for row in again["classes"]} == used


def test_segments_rank_as_in_scikit_learn_and_are_calibrated(made: Path, result: EvaluationResult) -> None:
    scores = frame(made / "out")
    truth = true_lists(made / "strong.tsv", set(MIDS))
    columns = [label.index for label in SHARED]
    table = np.stack(scores.scores)[:, columns].astype(np.float64)
    positive = np.zeros(table.shape, bool)
    for row, (name, start_s) in enumerate(zip(scores.recording, scores.start_s, strict=True)):
        for event in truth[name]:
            if event["onset"] < start_s + 1.92 and event["offset"] > start_s:
                positive[row, MIDS.index(event["event_label"])] = True
    present = np.flatnonzero(positive.any(0))
    precision = [average_precision_score(positive[:, k], table[:, k]) for k in present]
    assert value(result, "segment_mAP", "macro") == pytest.approx(np.mean(precision), abs=1e-9)
    auc = np.mean([roc_auc_score(positive[:, k], table[:, k]) for k in present])
    assert value(result, "segment_auc", "macro") == pytest.approx(auc, abs=1e-9)
    assert value(result, "segment_d_prime", "macro") == pytest.approx(2**0.5 * norm.ppf(auc), abs=1e-9)

    def error(positive: Any, score: Any) -> float:
        share, mean = calibration_curve(positive, score, n_bins=15)
        place = np.searchsorted(np.linspace(0, 1, 16)[1:-1], score)
        number = np.bincount(place, minlength=15)
        return float(np.sum(number[number > 0] * np.abs(share - mean)) / len(score))

    assert value(result, "calibration_error") == pytest.approx(error(positive.ravel(), table.ravel()), abs=1e-9)
    by_class = [error(positive[:, k], table[:, k]) for k in present]
    assert value(result, "calibration_error", "macro") == pytest.approx(np.mean(by_class), abs=1e-9)
    rows = {row["mid"]: row for row in result["classes"]}
    assert rows[MIDS[present[0]]]["segment_average_precision"] == pytest.approx(precision[0])


@pytest.mark.slow
def test_sed_eval_and_psds_eval_compute_the_same_on_a_sample(made: Path, lists: tuple[Lists, Lists]) -> None:
    options = EvaluateOptions(
        strong=made / "strong.tsv", threshold="0.3", bootstrap=0, psds_thresholds="0", cross_check=True
    )
    result = evaluate(made / "out", **vars(options))
    check = result["cross_check"]
    assert (check["clips"], check["of_clips"]) == (50, 60)
    assert {row["by"] for row in check["figures"]} == {"sed_eval", "psds-eval"}
    assert {row["name"] for row in check["figures"]} >= {"segment_f1", "onset_f1", "event_f1", "psds1", "psds2"}
    assert check["largest"] < 1e-9
    assert sum(row["theirs"] > 0 for row in check["figures"]) > 15
    assert "18 figures of 50 of 60 clips by sed_eval" in "\n".join(evaluation.result_text(result))


@pytest.mark.parametrize("name", exact_sets.sets())
def test_intersection_f1_is_that_of_sed_scores_eval(name: str) -> None:
    of = exact_sets.sets()[name]
    sizes = [len(each) for each in of.scores]
    clip = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    borders = [of.ends_s(k) for k in range(len(sizes))]
    start_s, end_s = (np.concatenate([each[part] for each in borders]) for part in (np.s_[:-1], np.s_[1:]))
    found = detect(clip, start_s, end_s, np.concatenate(of.scores), exact_sets.THRESHOLD)
    rows = [(k, label, *times) for k, events in enumerate(of.truth) for *times, label in events]
    counted = count_intersections(
        Events.of(*zip(*rows, strict=True)), found, durations_s=np.array([each[-1] for each in borders]),
        classes=of.classes, dtc=0.5, gtc=0.5,
    )  # fmt: skip
    f1 = counts.class_rates(counts.totals(counted)).zero_f1[0]
    expected = json.loads(exact_sets.RESULTS.read_text())[name]["intersection_f1"]
    assert np.mean(f1) == pytest.approx(expected, abs=1e-9)


def test_the_difference_of_two_results_is_paired(satpipe_here: Satpipe, made: Path, tmp_path: Path) -> None:
    for name, median_filter in (("one", 1), ("same", 1)):
        result = evaluate(
            made / "out", strong=made / "strong.tsv", median_filter=median_filter, bootstrap=40, psds_thresholds="0"
        )
        write(result, tmp_path / name)
    worse = read(tmp_path / "one")
    samples = read_samples(tmp_path / "one")
    values = [[value - 0.1 for value in row["values"]] for row in samples.to_pylist()]
    lower = samples.set_column(2, "values", pa.array(values, samples.schema.field("values").type))
    found = paired(worse, worse, (samples, lower))
    assert found["segment_f1", "micro"].p == pytest.approx(2 / 41)
    assert found["segment_f1", "micro"].high == pytest.approx(-0.1)
    other_seed = {**worse, "options": {**worse["options"], "seed": 1}}
    assert paired(worse, other_seed, (samples, lower)) == {}  # type: ignore[arg-type]
    done = satpipe_here("evaluate", "--compare", tmp_path / "one", tmp_path / "same")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("segment-F1, 1.92 s  ") and "micro" in line]
    assert line.split()[-4:] == ["0.0", "[0.0,", "0.0]", "1.000"]


def test_options_that_contradict_each_other(made: Path) -> None:
    for options, says in (
        ({"tune": "all", "threshold": "0.5"}, "leave out --threshold"),
        ({"tune": "all", "tune_filters": "1,2"}, "must be odd numbers of chunks such as 1,3,5, not 1,2"),
        ({"tune_filters": "3"}, "--tune-filters is for --tune"),
        ({"collar_s": 0.0}, "--collar-s must be above 0"),
        ({"offset_fraction": 2.0}, "--offset-fraction must be from 0 to 1"),
        ({"psds_thresholds": "many"}, "--psds-thresholds must be exact or a whole number, not many"),
        *(({name: float("nan")}, f"--{name.replace('_', '-')} must be")
          for name in ("collar_s", "offset_fraction", "segment_s", "level", "min_s", "dtc", "gtc")),
        ({"segment_s": float("inf")}, "--segment-s must be"),
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=says):
            EvaluateOptions(**options)  # type: ignore[arg-type]


def test_recordings_of_a_folder_are_drawn_together(made: Path, tmp_path: Path) -> None:
    names = sorted(pd.read_parquet(made / "out" / "recordings").recording.astype(str))
    groups = pd.DataFrame({"recording": names, "group": ["all"] * 59 + ["rest"]})
    groups.to_csv(tmp_path / "groups.csv", index=False)
    options: dict[str, Any] = {"strong": made / "strong.tsv", "bootstrap": 20, "psds_thresholds": "0"}
    one = evaluate(made / "out", **options, bootstrap_by="folder")  # all are in one
    (figure,) = [each for each in one["figures"] if (each["name"], each["average"]) == ("segment_f1", "micro")]
    assert figure["low"] == figure["value"] == figure["high"]
    assert figure["groups"] == 1
    two = evaluate(made / "out", **options, bootstrap_by=str(tmp_path / "groups.csv"))
    assert {each["groups"] for each in two["figures"]} == {2}
    groups[1:].to_csv(tmp_path / "groups.csv", index=False)
    with pytest.raises(TruthError, match="has no group of 1 recording: "):
        evaluate(made / "out", **options, bootstrap_by=str(tmp_path / "groups.csv"))


def test_the_papers_figures_stand_beside_figures_that_mean_the_same(result: EvaluationResult, made: Path) -> None:
    assert "28.9" in "\n".join(evaluation.result_text(result))
    options = EvaluateOptions(strong=made / "strong.tsv", bootstrap=0, psds_thresholds="0", segment_s=1.0)
    other = evaluate(made / "out", **vars(options))
    text = "\n".join(evaluation.result_text(other))
    assert ("28.9" in text, "8.6" in text) == (False, True)
    assert "segment-F1: ours with other classes, segments or collars" in "\n".join(
        evaluation.paper_table_text([other], 3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["event-f1", "intersection-f1"])
def test_tuning_with_filters_finds_the_best_of_the_grid(made: Path, tmp_path: Path, measure: str) -> None:
    labels = SHARED[::25]
    (tmp_path / "classes.txt").write_text("\n".join(label.mid for label in labels) + "\n")
    options: dict[str, Any] = {
        "strong": made / "strong.tsv", "classes": str(tmp_path / "classes.txt"), "bootstrap": 0, "psds_thresholds": "0",
    }  # fmt: skip
    name = measure.replace("-", "_")
    tuned = evaluate(made / "out", **options, tune="all", tune_for=measure, tune_filters="1,3")
    best = {row["mid"]: row[name] or 0 for row in tuned["classes"] if row["events"]}
    for threshold in (0.05, 0.3, 0.5, 0.8):
        for length in (1, 3):
            fixed = evaluate(made / "out", **options, threshold=str(threshold), median_filter=length)
            assert all(best[row["mid"]] >= (row[name] or 0) - 1e-9 for row in fixed["classes"] if row["events"])
    assert sum(best.values()) > 0
    write(tuned, tmp_path / "tuned")
    again = evaluate(made / "out", **options, threshold=str(tmp_path / "tuned" / "thresholds.json"))
    assert value(again, name, "macro_zero") == value(tuned, name, "macro_zero")


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.sampled_from([1, 3, 5]), st.integers(0, 999))
def test_the_median_filter_stays_within_clips(sizes: list[int], chunks: int, seed: int) -> None:
    scores = np.random.default_rng(seed).random((sum(sizes), 3)).astype(np.float16)
    clip = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    filtered = median_filtered(clip, scores, chunks)
    for number in range(len(sizes)):
        padded = np.pad(scores[clip == number], ((chunks // 2, chunks // 2), (0, 0)), mode="edge")
        expected = [np.median(padded[i : i + chunks], axis=0) for i in range(sizes[number])]
        np.testing.assert_array_equal(filtered[clip == number], expected)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 500)), min_size=1, max_size=6), st.floats(20, 25))
def test_the_grid_holds_each_true_event_in_as_few_chunks_as_can_be(times: list[tuple[int, int]], end_s: float) -> None:
    onset_s = np.array([start / 100 for start, _ in times])
    offset_s = np.minimum(onset_s + [length / 100 for _, length in times], end_s)
    events = Events.of(np.zeros(len(times)), np.arange(len(times)), onset_s, offset_s)
    gridded = on_grid(events, 30_720, np.array([end_s]))
    assert (gridded.onset_s <= onset_s).all()
    assert (gridded.offset_s >= offset_s).all()
    assert (onset_s - gridded.onset_s < 1.92).all()
    assert (gridded.offset_s - offset_s < 1.92 + 1e-9).all()
    assert (
        (gridded.offset_s == end_s) | (np.abs(gridded.offset_s / 1.92 - np.rint(gridded.offset_s / 1.92)) < 1e-9)
    ).all()


def test_events_shorter_than_the_minimum_do_not_count(made: Path, lists: tuple[Lists, Lists]) -> None:
    options = EvaluateOptions(strong=made / "strong.tsv", threshold="0.3", min_s=3, bootstrap=0, psds_thresholds="0")
    result = evaluate(made / "out", **vars(options))
    truth, found = lists
    found = {
        name: [event for event in events if event["offset"] - event["onset"] >= 3] for name, events in found.items()
    }
    assert_equal_to_sed_eval(result, "onset", by_sed_eval(METRICS["onset"](MIDS), truth, found))


# Results


@pytest.mark.slow
def test_comparable_results_are_compared_and_others_are_refused_with_the_reason(
    satpipe_here: Satpipe, made: Path, tmp_path: Path
) -> None:
    chosen = {
        "same": QUICK,
        "other threshold": EvaluateOptions(bootstrap=0, threshold="0.4"),
        "other segment": EvaluateOptions(bootstrap=0, segment_s=1.0),
        "other classes": EvaluateOptions(bootstrap=0, classes="407"),
    }
    for name, options in chosen.items():
        options = EvaluateOptions(**{**vars(options), "strong": made / "strong.tsv", "psds_thresholds": "0"})
        write(evaluate(made / "out", **vars(options)), tmp_path / name)
    shorter = tmp_path / "shorter.tsv"
    shorter.write_text("\n".join((made / "strong.tsv").read_text().splitlines()[:200]) + "\n")
    options = EvaluateOptions(strong=shorter, psds_thresholds="0", bootstrap=0)
    write(evaluate(made / "out", **vars(options)), tmp_path / "other truth")
    write(evaluate(made / "out", weak=made / "weak.csv", bootstrap=0), tmp_path / "weak")

    done = satpipe_here("evaluate", "--compare", tmp_path / "same", tmp_path / "same" / "evaluate.json")
    assert done.returncode == 0, done.stderr
    assert "segment-F1, 1.92 s" in done.stdout
    for other, reason in {
        "other threshold": r"threshold of segment_f1 and \d+ more: 0.5 and 0.4",
        "other segment": r"segment_s of segment_f1 and \d+ more: 1.92 and 1.0",
        "other classes": r"class_set of segment_mAP and \d+ more: 381 and 407",
        "other truth": "different strong labels",
        "weak": "no figure in common",
    }.items():
        done = satpipe_here("evaluate", "--compare", tmp_path / "same", tmp_path / other)
        assert done.returncode == 1
        assert re.search(reason, done.stderr)
    done = satpipe_here("evaluate", "--compare", tmp_path / "same", made)
    assert (done.returncode, "evaluate.json cannot be read" in done.stderr) == (1, True)


def test_results_of_rows_of_other_lengths_are_compared_without_the_figures_of_rows(
    satpipe_here: Satpipe, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text("recording,onset,offset,label\na.wav,0,3.84,Dog\n")
    for grids, samples in ((1, outputs.CHUNK_SAMPLES), (2, outputs.CHUNK_SAMPLES // 2)):
        run = {**outputs.RUN, "model": {"chunk_samples": samples}}
        outputs.write_output(tmp_path / f"out{grids}", {"a.wav": outputs.scores_of(8, Dog=[0.9, 0.9])}, run=run)
        result = evaluate(tmp_path / f"out{grids}", strong=tmp_path / "t.csv", bootstrap=0, segment_s=1.0)
        write(result, tmp_path / str(grids))
    done = satpipe_here("evaluate", "--compare", tmp_path / "1", tmp_path / "2")
    assert done.returncode == 0, done.stderr
    figures, left_out = done.stdout.split("left out, as the rows are 1.92 s and 0.96 s long: ")
    assert "segment-F1, 1 s" in figures
    assert "mAP (segments)" not in figures
    assert left_out.startswith("mAP (segments), AUC (segments), d' (segments), ")


def test_the_papers_figures_are_those_of_one_grid(result: EvaluationResult) -> None:
    finer: EvaluationResult = {**result, "model": {**result["model"], "grids": 4, "combine": "geometric"}}
    assert "8.6" in "\n".join(evaluation.result_text(result))
    assert "8.6" not in "\n".join(evaluation.result_text(finer))
    ours = evaluation.paper_table([result], 3).rows
    assert evaluation.paper_table([result, finer], 3).rows[: len(ours)] == ours
    assert evaluation.paper_table([result, finer], 3).rows[-1][1] == "SAT_T_2s, memory on, 4 grids"


def test_the_papers_tables_have_their_figures_and_ours(result: EvaluationResult) -> None:
    text = "\n".join(evaluation.paper_table_text([result], 3))
    (row,) = [line.split() for line in text.splitlines() if "SAT-T" in line and line.startswith("2 s")]
    assert row[4] == "28.9"
    assert float(row[5]) == pytest.approx(100 * value(result, "segment_f1"), abs=0.05)
    text = "\n".join(evaluation.paper_table_text([result], 2))
    (row,) = [line.split() for line in text.splitlines() if "SAT-T" in line and line.startswith("2 s")]
    assert row[-2] == "43.3"
    assert float(row[-1]) == pytest.approx(100 * value(result, "mAP", "macro"), abs=0.05)
    alone = {**result, "model": {**result["model"], "memory": "off"}}
    assert "SAT_T_2s, memory off" in "\n".join(evaluation.paper_table_text([result, alone], 2))
    one_second = paper.row(3, "SAT_B_1s", 1.0, True)
    assert one_second is not None
    assert (one_second.segment_f1_percent, one_second.onset_f1_percent) == (22.3, 8.3)


# From recordings to figures


@pytest.mark.slow
def test_scenes_are_made_tagged_and_evaluated(satpipe: Satpipe, satpipe_here: Satpipe, tmp_path: Path) -> None:
    sounds, rng = tmp_path / "sounds", np.random.default_rng(0)
    for name, seed in (("Music", 0), ("Speech", 1)):
        (sounds / name).mkdir(parents=True)
        source = {"Music": "music_44k_stereo.ogg", "Speech": "speech_16k_mono.WAV"}[name]
        recording = next((ROOT / "examples" / "recordings").rglob(source), None)
        samples = soundfile.read(recording)[0] if recording else rng.standard_normal(48_000)
        soundfile.write(sounds / name / f"{seed}.wav", np.atleast_2d(samples.T)[0][:64_000], 16_000)
    done = satpipe_here("synth", "-o", tmp_path / "scenes", "--foreground", sounds, "--scenes", 4, "--length-s", 20)
    assert done.returncode == 0, done.stderr
    for out, options in (("out", ()), ("alone", ("--memory", "off"))):
        done = satpipe_here("tag", tmp_path / "scenes" / "audio", "-o", tmp_path / out, *options)
        assert done.returncode == 0, done.stderr
    truth = ("--strong", tmp_path / "scenes" / "strong.tsv", "--weak", tmp_path / "scenes" / "weak.csv")
    outs = (tmp_path / "out", tmp_path / "alone")
    done = satpipe("evaluate", *outs, *truth, "-o", tmp_path / "results", "--table2", "--table3", "--threshold", "0.3")
    assert done.returncode == 0, done.stderr
    assert "4 of 4 clips found" in done.stdout
    assert "SAT_T_2s, memory off" in done.stdout
    on, off = (read(tmp_path / "results" / name) for name in ("out", "alone"))
    assert (on["model"]["memory"], off["model"]["memory"]) == ("on", "off")
    assert value(on, "segment_f1") > 0.2
    events = pd.read_csv(tmp_path / "scenes" / "strong.tsv", sep="\t")
    assert on["truth"]["strong"]["events"] == len(events)
    classes = pd.read_csv(tmp_path / "results" / "out" / "classes.csv").set_index("label")
    assert classes.loc["Speech", "events"] == (events.event_label == "/m/09x0r").sum()
    assert classes.loc["Speech", "segment_f1"] > 0.3


# Bad input


def rewritten(made: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    out = folder / "changed"
    shutil.copytree(made / "out", out)
    run = json.loads((out / "run.json").read_text())
    change(run)
    (out / "run.json").write_text(json.dumps(run))
    return out


def test_bad_input_is_one_clear_message(satpipe_here: Satpipe, made: Path, tmp_path: Path) -> None:
    header = "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
    first = pd.read_csv(made / "strong.tsv", sep="\t").segment_id[0]
    truths = {
        "letters.tsv": (f"{first}\t1\ttwo\t/m/09x0r\n", "line 2"),
        "backwards.tsv": (f"{first}\t1\t2\t/m/09x0r\n{first}\t3\t2\t/m/09x0r\n", "line 3"),
        "unknown.tsv": (f"{first}\t1\t2\t/m/nonsense\n", "line 2"),
        "elsewhere.tsv": ("abcdefghijk_30000\t1\t2\t/m/09x0r\n", "of the 1 clip of "),
    }
    out = made / "out"
    cases: list[tuple[tuple[object, ...], int, str]] = [
        (("evaluate", out), 1, "is one of the 20,371 clips in eval_segments.csv.gz. AudioSet's clips are named by"),
        (("evaluate", tmp_path, "--strong", made / "strong.tsv"), 1, "no run.json"),
        (("evaluate", out, "--strong", tmp_path / "none.tsv"), 1, "none.tsv cannot be read"),
        (("evaluate", out, "--strong", made / "strong.tsv", "--classes", "380"), 1, "'380' is neither a class set"),
        (("evaluate", out, "--strong", made / "strong.tsv", "--threshold", "1.5"), 1, "a number from 0 to 1"),
        (("evaluate", out, "--strong", made / "strong.tsv", "--median-filter", "4"), 1, "an odd number"),
        (
            ("evaluate", out, out, "--strong", made / "strong.tsv", "-o", tmp_path / "c"),
            1,
            "two of the folders are called out",
        ),
    ]
    for name, (rows, text) in truths.items():
        (tmp_path / name).write_text(header + rows)
        cases.append((("evaluate", out, "--strong", tmp_path / name), 1, text))
    for arguments, code, text in cases:
        done = satpipe_here(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert text in done.stderr, (arguments, done.stderr)


def test_tables_that_cannot_be_scored_are_refused_with_what_to_do(made: Path, tmp_path: Path) -> None:
    options = EvaluateOptions(strong=made / "strong.tsv", bootstrap=0)
    with pytest.raises(OutputError, match="--scores"):
        evaluate(rewritten(made, tmp_path / "a", lambda run: run["identity"].update(scores=False)), **vars(options))

    def swap(run: dict[str, Any]) -> None:
        run["labels"][3], run["labels"][4] = run["labels"][4], run["labels"][3]

    with pytest.raises(OutputError, match="index 3"):
        evaluate(rewritten(made, tmp_path / "b", swap), **vars(options))
    broken = rewritten(made, tmp_path / "c", lambda run: None)
    path = next((broken / "scores").glob("*.parquet"))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OutputError, match=path.name):
        evaluate(broken, **vars(options))


def test_a_list_to_tune_on_that_leaves_nothing_is_refused(made: Path, tmp_path: Path) -> None:
    names = sorted(set(pd.read_csv(made / "strong.tsv", sep="\t").segment_id))
    for text, words in (("\n".join(names), "lists all"), ("nowhere\n", "lists none")):
        (tmp_path / "tune.txt").write_text(text)
        with pytest.raises(TruthError, match=words):
            evaluate(made / "out", strong=made / "strong.tsv", tune=tmp_path / "tune.txt", bootstrap=0)


def test_true_events_beyond_the_end_of_a_recording_are_cut_and_counted(made: Path, tmp_path: Path) -> None:
    first = pd.read_csv(made / "strong.tsv", sep="\t").segment_id[0]
    (tmp_path / "t.tsv").write_text(
        "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
        f"{first}\t1\t2\t/m/09x0r\n{first}\t9\t14\t/m/09x0r\n{first}\t20\t21\t/m/09x0r\n"
    )
    result = evaluate(made / "out", strong=tmp_path / "t.tsv", bootstrap=0, psds_thresholds="3")
    (note,) = [note for note in result["notes"] if "shortened" in note]
    assert "1 labelled events end after their recording" in note
    assert "1 start after its end" in note
    assert result["truth"]["strong"]["events"] == 2
