"""Figures against weak labels equal scikit-learn's; bootstrap replicates equal scikit-learn's on repeated clips."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from satpipe.jobs.metrics import ranking
from satpipe.jobs.metrics.bootstrap import interval, resample
from satpipe.jobs.metrics.ranking import RankingMetrics, clip_scores, ranking_metrics, resampled_metrics
from scipy.stats import norm
from sklearn.metrics import average_precision_score, label_ranking_average_precision_score, roc_auc_score

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
TOLERANCE = 1e-9

shapes = st.tuples(st.integers(1, 30), st.integers(1, 6))
few_examples = settings(max_examples=50, deadline=None)


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Bools]:
    """Scores and truth: many ties, few or none; classes from without a positive to without a negative."""
    shape = draw(shapes)
    tied = st.integers(0, 5).map(lambda step: step / 5)
    scores = draw(hnp.arrays(np.float64, shape, elements=tied | st.floats(0, 1), fill=st.nothing()))
    likely = draw(hnp.arrays(np.float64, shape[1], elements=st.sampled_from([0, 0.05, 0.5, 0.95, 1])))
    return scores, np.random.default_rng(draw(st.integers(0, 1000))).random(shape) < likely


def by_scikit_learn(scores: Array, truth: Bools) -> dict[str, Array]:
    def each_class(figure: Callable[[Bools, Array], float], defined: Bools) -> Array:
        return np.array([figure(truth[:, k], scores[:, k]) if defined[k] else np.nan for k in range(truth.shape[1])])

    some = truth.any(axis=0)
    lwlrap = np.nan
    if truth.any():
        # One class that no clip has more: a single column would not be a multi-label problem to scikit-learn.
        more_truth, more_scores = (np.pad(each, ((0, 0), (0, 1)), constant_values=-1) for each in (truth, scores))
        more_truth[:, -1] = False
        lwlrap = label_ranking_average_precision_score(more_truth, more_scores, sample_weight=truth.sum(axis=1))
    return {
        "positives": truth.sum(axis=0),
        "average_precision": each_class(average_precision_score, some),
        "auc": each_class(roc_auc_score, some & ~truth.all(axis=0)),
        "micro_average_precision": average_precision_score(truth.ravel(), scores.ravel()) if truth.any() else np.nan,
        "lwlrap": lwlrap,
    }


def row_of(figures: RankingMetrics, row: int) -> RankingMetrics:
    return RankingMetrics(*(value[row] for value in vars(figures).values()))


def assert_equal(figures: RankingMetrics, expected: dict[str, Array]) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(getattr(figures, name), value, rtol=0, atol=TOLERANCE, err_msg=name)


@few_examples
@given(case=cases())
def test_figures_equal_scikit_learn(case: tuple[Array, Bools]) -> None:
    expected = by_scikit_learn(*case)
    assert_equal(ranking_metrics(*case), expected)
    replicates = resampled_metrics(*case, np.ones((1, len(case[0])), np.int32))
    assert_equal(replicates, {name: np.asarray(value)[None] for name, value in expected.items()})


@pytest.mark.slow
@few_examples
@given(case=cases(), seed=st.integers(0, 1000))
def test_a_replicate_equals_scikit_learn_on_repeated_clips(case: tuple[Array, Bools], seed: int) -> None:
    weights = np.random.default_rng(seed).integers(0, 4, (2, len(case[0])))
    assume(weights.any(axis=1).all())
    figures = resampled_metrics(*case, weights)
    assert_equal(row_of(figures, 0), by_scikit_learn(*(np.repeat(each, weights[0], axis=0) for each in case)))
    assert_equal(row_of(figures, 1), by_scikit_learn(*(np.repeat(each, weights[1], axis=0) for each in case)))


@few_examples
@given(case=cases())
def test_means_are_scikit_learns_over_the_defined_classes(case: tuple[Array, Bools]) -> None:
    scores, truth = case
    figures = ranking_metrics(scores, truth)
    some = truth.any(axis=0)
    both = some & ~truth.all(axis=0)
    assert (figures.classes, figures.auc_classes) == (some.sum(), both.sum())
    macro = weighted = mean_auc = np.nan
    if some.any():
        macro = average_precision_score(truth[:, some], scores[:, some])
        weighted = average_precision_score(truth[:, some], scores[:, some], average="weighted")
    if both.any():
        mean_auc = roc_auc_score(truth[:, both], scores[:, both])
    assert figures.mean_average_precision == pytest.approx(macro, abs=TOLERANCE, nan_ok=True)
    assert figures.weighted_average_precision == pytest.approx(weighted, abs=TOLERANCE, nan_ok=True)
    assert figures.mean_auc == pytest.approx(mean_auc, abs=TOLERANCE, nan_ok=True)
    assert figures.d_prime == pytest.approx(np.sqrt(2) * norm.ppf(figures.mean_auc), abs=TOLERANCE, nan_ok=True)
    np.testing.assert_allclose(figures.class_d_prime, np.sqrt(2) * norm.ppf(figures.auc), atol=TOLERANCE)


def test_many_replicates_of_a_large_case_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((400, 12)) < np.geomspace(0.005, 0.5, 12)
    scores = (rng.random(truth.shape) + truth).astype(np.float16)
    weights = resample(400, 30, seed=1)
    whole = resampled_metrics(scores, truth, weights)
    monkeypatch.setattr(ranking, "BLOCK_CELLS", 300)
    assert_equal(resampled_metrics(scores, truth, weights), vars(whole))
    for row in (0, 29):
        data = np.repeat(scores, weights[row], axis=0), np.repeat(truth, weights[row], axis=0)
        expected = by_scikit_learn(data[0].astype(np.float64), data[1])
        assert_equal(row_of(whole, row), expected)


def test_a_single_positive() -> None:
    scores = np.array([[0.9], [0.8], [0.7], [0.1]])
    figures = ranking_metrics(scores, np.array([[False], [False], [True], [False]]))
    assert figures.average_precision == pytest.approx([1 / 3])
    assert figures.auc == pytest.approx([1 / 3])


def test_ties_are_one_threshold() -> None:
    figures = ranking_metrics(np.full((4, 1), 0.5), np.array([[True], [False], [False], [False]]))
    assert figures.average_precision == pytest.approx([0.25])
    assert figures.auc == pytest.approx([0.5])
    assert figures.d_prime == pytest.approx(0)


def test_undefined_figures_are_nan_and_in_no_mean() -> None:
    truth = np.array([[True, False, True], [True, False, False]])
    figures = ranking_metrics(np.array([[0.5, 0.5, 0.9], [0.4, 0.1, 0.2]]), truth)
    np.testing.assert_equal(figures.average_precision, [1, np.nan, 1])
    np.testing.assert_equal(figures.auc, [np.nan, np.nan, 1])
    np.testing.assert_equal(figures.class_d_prime, [np.nan, np.nan, np.inf])
    assert (figures.mean_average_precision, figures.classes) == (1, 2)
    assert (figures.mean_auc, figures.auc_classes) == (1, 1)


@pytest.mark.parametrize("shape", [(3, 2), (0, 2), (3, 0)])
def test_nothing_is_true(shape: tuple[int, int]) -> None:
    figures = ranking_metrics(np.zeros(shape), np.zeros(shape, bool))
    assert (figures.classes, figures.auc_classes) == (0, 0)
    for name in ("mean_average_precision", "weighted_average_precision", "mean_auc", "d_prime", "lwlrap"):
        assert np.isnan(getattr(figures, name)), name
    assert np.isnan(figures.micro_average_precision)


def test_lwlrap_leaves_out_clips_without_a_label() -> None:
    scores = np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1]])
    truth = np.array([[False, True, True], [False, False, False]])
    assert ranking_metrics(scores, truth).lwlrap == pytest.approx((1 / 2 + 2 / 3) / 2)


@pytest.mark.parametrize(
    ("scores", "truth", "weights", "reason"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1), bool), np.ones((1, 3), int), "shapes"),
        (np.zeros((3, 2)), np.zeros((3, 2), bool), np.ones((1, 2), int), "shapes"),
        (np.zeros((3, 2)), np.zeros((3, 2), int), np.ones((1, 3), int), "boolean"),
        (np.zeros((3, 2)), np.zeros((3, 2), bool), np.ones((1, 3)), "integers"),
        (np.full((3, 2), np.nan), np.zeros((3, 2), bool), np.ones((1, 3), int), "finite"),
    ],
)
def test_wrong_input_is_refused(scores: Array, truth: Bools, weights: Array, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        resampled_metrics(scores, truth, weights.astype(weights.dtype))


CHUNK_S = 30_720 / 16_000


@few_examples
@given(
    lengths=st.lists(st.integers(1, 200_000), max_size=12),
    block=st.sampled_from([1, 40, 1 << 22]),
    seed=st.integers(0, 1000),
)
def test_a_clip_is_the_mean_of_its_whole_chunks(lengths: list[int], block: int, seed: int) -> None:
    counts = [-(-length // 30_720) for length in lengths]
    clip = np.repeat(np.arange(len(lengths)), counts)
    index = np.concatenate([np.arange(count) for count in counts] or [np.zeros(0)])
    start_s = index * 30_720 / 16_000
    end_s = np.minimum((index + 1) * 30_720 / 16_000, np.repeat(lengths, counts) / 16_000)
    scores = np.random.default_rng(seed).random((len(clip), 3)).astype(np.float16)
    expected = np.empty((len(lengths), 3))
    for i, length in enumerate(lengths):
        chunks = scores[clip == i].astype(np.float64)
        expected[i] = (chunks[: length // 30_720] if length >= 30_720 else chunks).mean(axis=0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK_CELLS", block)
        np.testing.assert_array_equal(clip_scores(clip, start_s, end_s, scores, CHUNK_S), expected)


def test_a_chunk_far_into_a_recording_is_whole_in_spite_of_rounding() -> None:
    index = np.arange(45_000, 45_010)
    start_s, end_s = index * CHUNK_S, (index + 1) * CHUNK_S
    end_s[-1] -= 1 / 16_000  # one sample short
    scores = np.arange(10, dtype=np.float16)[:, None]
    assert clip_scores(np.zeros(10, np.int32), start_s, end_s, scores, CHUNK_S) == pytest.approx(np.array([[4]]))


def test_clips_keep_the_order_in_which_they_come() -> None:
    times = np.array([0, 2, 0.0]), np.array([2, 4, 2.0])
    scores = np.array([[1], [3], [5]], np.float16)
    assert clip_scores(np.array([7, 7, 2]), *times, scores, 2).tolist() == [[2], [5]]
    with pytest.raises(ValueError, match="not adjacent"):
        clip_scores(np.array([7, 2, 7]), *times, scores, 2)


def test_replicates_draw_as_many_as_there_are() -> None:
    weights = resample(50, 20, seed=3)
    assert weights.shape == (20, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert len(np.unique(weights, axis=0)) == 20


def test_the_same_seed_gives_the_same_replicates() -> None:
    np.testing.assert_array_equal(resample(50, 20, seed=3), resample(50, 20, seed=3))
    np.testing.assert_array_equal(resample(50, 20, seed=3)[:5], resample(50, 5, seed=3))
    assert (resample(50, 20, seed=3) != resample(50, 20, seed=4)).any()
    assert resample(0, 20, seed=3).shape == (20, 0)


def test_how_often_an_item_is_drawn_is_multinomial() -> None:
    weights = resample(40, 5000, seed=0)
    assert weights.mean(axis=0) == pytest.approx(np.ones(40), abs=0.1)
    assert weights.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    pairs = np.cov(weights.T)
    assert pairs[~np.eye(40, dtype=bool)].mean() == pytest.approx(-1 / 40, rel=0.1)


def test_the_interval_of_a_mean_holds_it_about_as_often_as_it_says() -> None:
    samples = np.random.default_rng(0).normal(size=(100, 4000))
    means = resample(100, 1000, seed=0) @ samples / 100
    held = np.zeros(2)
    for sample, values in zip(samples.T, means.T, strict=True):
        for i, estimate in enumerate((None, float(sample.mean()))):
            low, high = interval(values, 0.9, estimate)
            held[i] += low <= 0 <= high
    assert (abs(held / 4000 - 0.9) < 0.02).all(), held / 4000


def test_replicates_spread_like_the_figure_itself() -> None:
    sample = np.random.default_rng(0).normal(size=100)
    means = resample(100, 2000, seed=0) @ sample / 100
    assert means.std() == pytest.approx(sample.std() / 10, rel=0.05)


def test_average_precision_of_rare_classes_needs_the_interval_with_an_estimate() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((2000, 400)) < 0.005
    scores = rng.normal(size=truth.shape) + 2 * truth
    estimate = float(ranking_metrics(scores, truth).mean_average_precision)
    values = resampled_metrics(scores, truth, resample(2000, 40, seed=0)).mean_average_precision
    many = rng.random((200_000, 1)) < 0.005
    limit = float(ranking_metrics(rng.normal(size=many.shape) + 2 * many, many).mean_average_precision)
    percentile, basic = interval(values), interval(values, estimate=estimate)
    assert limit < estimate < percentile[0]
    assert basic[1] < estimate


def test_limits_are_the_values_next_outside_of_the_percentiles() -> None:
    values = np.random.default_rng(0).permutation(np.arange(1, 201)).astype(float)
    assert interval(values) == (5, 196)
    assert interval(np.append(values, [np.nan, np.nan])) == (5, 196)
    assert interval(values, estimate=100.0) == (4, 195)
    assert interval(np.array([np.inf, np.inf, 1, 2, 3]), 0.5) == (2, np.inf)
    np.testing.assert_equal(interval(np.full(3, np.nan)), (np.nan, np.nan))
    with pytest.raises(ValueError, match="level"):
        interval(values, 95)


def test_a_group_is_drawn_whole() -> None:
    group = np.array([5, 9, 5, 2, 2, 2])
    weights = resample(6, 40, seed=0, group=group)
    for number in (2, 5, 9):
        assert (np.ptp(weights[:, group == number], axis=1) == 0).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()
    np.testing.assert_array_equal(resample(6, 40, seed=0, group=np.arange(6)), resample(6, 40, seed=0))
    with pytest.raises(ValueError, match="group"):
        resample(5, 40, seed=0, group=group)
