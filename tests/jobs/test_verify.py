"""`satpipe verify`: precision and thresholds from answers, compared with a truth that the test knows."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
import satpipe
from click.testing import CliRunner, Result
from satpipe.jobs.clips.draw import draw
from satpipe.jobs.commands.main import cli
from satpipe.jobs.ground_truth.sheet import sheet_text
from satpipe.jobs.verify.precision import estimate, wilson
from satpipe.jobs.verify.threshold import threshold_for
from satpipe.sat.errors import LabelError, TruthError

BIRD, DOG = "/m/015p6", "/m/0bt9lr"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, arguments)], standalone_mode=False)


def events(number: int, seed: int, slope: float = 8.0, middle: float = 0.5) -> tuple[pd.DataFrame, npt.NDArray[Any]]:
    """Events with scores, most of them low, and whether they are right, which high ones are more often."""
    random = np.random.default_rng(seed)
    score = 0.2 + 0.8 * random.beta(1, 2, number)
    right = random.random(number) < 1 / (1 + np.exp(-slope * (score - middle)))
    start_s = np.arange(float(number))
    found = {"recording": "a", "start_s": start_s, "end_s": start_s + 1, "label": "Bird", "mid": BIRD, "score": score}
    return pd.DataFrame(found), right


def judged(drawn: pd.DataFrame, right: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
    """Answers, strata, weights and scores of the clips that were drawn."""
    answers = right[drawn["start_s"].to_numpy().astype(int)]
    stratum, weight = drawn["stratum"].astype(int).to_numpy(), 1 / drawn["probability"].to_numpy()
    return answers, stratum, weight, drawn["score"].to_numpy()


@pytest.mark.parametrize(("number", "clips", "middle"), [(2000, 50, 0.3), (500, 20, 0.5), (80, 40, 0.1)])
def test_the_estimate_is_right_on_average_and_its_interval_as_often_as_it_says(
    number: int, clips: int, middle: float
) -> None:
    estimates, errors, covered = [], [], []
    for seed in range(100):
        found, right = events(number, seed, middle=middle)
        answers, stratum, weight, _ = judged(draw(found, clips, "stratified", seed), right)
        got = estimate(answers, stratum, weight, 0.9)
        estimates.append(got.precision)
        errors.append(got.precision - right.mean())
        covered.append(got.low <= right.mean() <= got.high)
        assert got.events == pytest.approx(number)
    assert abs(np.mean(errors)) < 3.5 * np.std(errors) / np.sqrt(len(errors))
    assert 0.82 <= np.mean(covered) <= 0.985  # of 100; 90 % have a standard deviation of 3 %


def test_the_plain_mean_of_such_a_sample_would_be_wrong() -> None:
    errors = []
    for seed in range(20):
        found, right = events(2000, seed)
        answers, *_ = judged(draw(found, 50, "stratified", seed), right)
        errors.append(answers.mean() - right.mean())
    assert np.mean(errors) > 0.1


def test_the_interval_is_that_of_wilson_for_one_stratum_and_a_point_if_all_was_judged() -> None:
    answers = np.arange(20) < 14
    got = estimate(answers, np.zeros(20, int), np.full(20, 1e9), 0.95)
    assert (got.low, got.high) == pytest.approx(wilson(0.7, 20, 0.95))
    assert wilson(0.7, 20, 0.95) == pytest.approx((0.4810, 0.8545), abs=1e-4)  # (p + z²/2n ± ...) / (1 + z²/n) by hand
    assert wilson(0.0, 10, 0.95) == pytest.approx((0, 0.2775), abs=1e-4)
    got = estimate(answers, np.zeros(20, int), np.ones(20), 0.95)
    assert (got.low, got.precision, got.high) == (0.7, 0.7, 0.7)
    all_right = estimate(np.ones(20, bool), np.arange(20) % 4, np.full(20, 50.0), 0.95)
    assert all_right.high == 1
    assert 0.75 < all_right.low < 0.95


def test_a_threshold_reaches_the_precision_in_the_truth() -> None:
    reached, found_any = [], 0
    for seed in range(25):
        found, right = events(1000, seed, slope=12)
        answers, stratum, weight, score = judged(draw(found, 100, "stratified", seed), right)
        chosen = threshold_for(score, answers, stratum, weight, 0.9, 0.95)
        if chosen:
            found_any += 1
            reached.append(right[found["score"] >= chosen[0]].mean())
            assert chosen[1].precision >= 0.9
    assert found_any >= 23
    assert np.mean(reached) == pytest.approx(0.9, abs=0.03)
    hopeless = np.zeros(100, bool)
    assert threshold_for(score, hopeless, stratum, weight, 0.9, 0.95) is None


def sheet(path: Path, rows: list[tuple[Any, ...]]) -> Path:
    """Write rows of label, mid, score, answer, stratum and probability."""
    made = [
        [f"audio/{n}.wav", "a.wav", float(n), n + 1.0, None, label, mid, score, answer, stratum, probability, "abc"]
        for n, (label, mid, score, answer, stratum, probability) in enumerate(rows)
    ]
    path.write_text(sheet_text(made), encoding="utf-8", newline="")
    return path


def test_each_answer_counts_for_the_events_it_stands_for_and_unsure_ones_are_stated(tmp_path: Path) -> None:
    bird = [("Bird", BIRD, 0.9, "yes", "2", 0.5)] * 10 + [("Bird", BIRD, 0.3, answer, "1", 0.02) for answer in
            ("yes", "no", "no", "no", "unsure", "unsure", "", "", "", "")]  # fmt: skip
    dog = [("Dog", DOG, 0.8, "yes", "top", None), ("Dog", DOG, 0.7, "no", "top", None)]
    path = sheet(tmp_path / "sheet.csv", bird + dog)
    found = satpipe.verify(path).set_index("label")
    assert found.loc["Bird", ["yes", "no", "unsure", "unanswered", "sample"]].tolist() == [11, 3, 2, 4, "stratified"]
    assert found.loc["Bird", "precision"] == pytest.approx((20 + 500 * 1 / 4) / 520)  # 20 and 500 events
    assert found.loc["Bird", "threshold"] == 0.9
    assert found.loc["Bird", "threshold_precision"] == 1
    assert found.loc["Dog", ["sample", "precision"]].tolist() == ["top", 0.5]
    assert np.isnan(found.loc["Dog", "threshold"])
    done = run("verify", path, "-o", tmp_path / "thresholds.json")
    assert done.exception is None, done.output
    assert re.search(r"\| Bird \| 11 \| 3 \| 2 \| 520 \| 0.28 \| 0.\d\d to 0.\d\d \| 0.9 \| 1.00 \|", done.output)
    for note in (
        "Dog: only the highest scores were judged",
        "Bird: clips answered unsure do not count",
        "Bird: no answer yet for 4 clips",
    ):
        assert f"note: {note}" in done.output
    content = json.loads((tmp_path / "thresholds.json").read_text())
    assert content["thresholds"] == {BIRD: 0.9}
    assert content["model_sha256"] == "abc"
    assert (content["source"]["how"], content["source"]["precision"]) == ("verified", 0.9)


def test_a_stratum_without_answers_is_left_out_and_said(tmp_path: Path) -> None:
    rows = [("Bird", BIRD, 0.9, "yes", "2", 0.5)] * 10 + [("Bird", BIRD, 0.3, "", "1", 0.1)] * 10
    found = satpipe.verify(sheet(tmp_path / "sheet.csv", rows))
    assert found["covered"][0] == pytest.approx(20 / 120)
    assert found["events"][0] == pytest.approx(20)
    done = run("verify", tmp_path / "sheet.csv")
    assert "Bird: some ranges of scores have no answers; the figures do not cover them" in done.output


def test_thresholds_of_groups_name_their_classes(tmp_path: Path) -> None:
    rows = [("birds", "group/birds", 0.9, "yes", "1", 0.5)] * 12 + [("mine", "group/mine", 0.9, "yes", "1", 0.5)] * 12
    path = sheet(tmp_path / "sheet.csv", rows)
    done = run("verify", path, "-o", tmp_path / "t.json")
    assert isinstance(done.exception, LabelError)
    (tmp_path / "groups.csv").write_text("group,label\nmine,Bird\nmine,Dog\n")
    done = run("verify", path, "-o", tmp_path / "t.json", "--groups", tmp_path / "groups.csv")
    groups = json.loads((tmp_path / "t.json").read_text())["groups"]
    assert set(groups["mine"]["classes"]) == {BIRD, DOG}
    assert BIRD in groups["birds"]["classes"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("Bird", BIRD, 0.9, "", "1", 0.5)], "has no answers yet: write yes, no or unsure in the column correct"),
        ([("Bird", BIRD, 0.9, "yes", "top", None)], "gives no threshold for a precision of 0.9"),
    ],
)
def test_what_a_sheet_cannot_say_is_an_error(tmp_path: Path, rows: list[tuple[Any, ...]], message: str) -> None:
    done = run("verify", sheet(tmp_path / "sheet.csv", rows), "-o", tmp_path / "t.json")
    assert isinstance(done.exception, TruthError)
    assert message in str(done.exception)
    assert not (tmp_path / "t.json").exists()
