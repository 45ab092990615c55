"""What the bundled model was trained on, what it is measured by, and that its card says what was measured."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from satpipe.jobs.benchmark.everyday import categories, category_of, everyday
from satpipe.jobs.train.extra_audio import TABLE, clip_path, cut, rows_of
from satpipe.reports.model_card import CARD, FIGURES, fill, main
from satpipe.sat.model.config import CLASSES


def test_the_card_says_what_was_measured() -> None:
    card = CARD.read_text()
    assert fill(card, json.loads(FIGURES.read_text())) == card


def test_the_table_of_other_figures_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    figures = json.loads(FIGURES.read_text())
    figures["models"]["other"] = {"pieces": figures["models"]["bundled"]["pieces"]}
    (tmp_path / "figures.json").write_text(json.dumps(figures))
    monkeypatch.setattr("sys.argv", ["model_card", str(tmp_path / "figures.json")])
    main()
    printed = capsys.readouterr().out
    assert " | other | teacher |" in printed
    value = f"{figures['models']['bundled']['pieces']['top_1']:.3f}"
    row = next(line for line in printed.splitlines() if line.startswith("| same top class"))
    assert row.endswith(f" | {value} | 1.000 |")
    assert all(line.endswith(" |  | 1.000 |") for line in printed.splitlines() if "long recordings" in line)


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("Animal/Dog1.wav", "dog"),
        ("sounds/BabyCry.mp3", "baby"),
        ("share_sounds_church_bell_00000.opus", "bell"),
        ("dogs/catalogue.wav", None),  # the last part alone, and whole words
        ("dog_and_cat.wav", None),
    ],
)
def test_a_category_is_told_by_whole_words_of_the_file_name(name: str, category: str | None) -> None:
    kinds = categories()
    number = category_of(name, kinds)
    assert (None if number is None else kinds[number].name) == category


def test_categories_share_no_word_and_no_class() -> None:
    kinds = categories()
    for part in ("words", "classes"):
        all_of_them = [item for kind in kinds for item in getattr(kind, part)]
        assert len(all_of_them) == len(set(all_of_them)), part


def test_everyday_counts_clips_and_categories() -> None:
    kinds = {kind.name: kind for kind in categories()}
    scores = np.zeros((5, CLASSES), np.float32)
    for row, name in enumerate(["dog", "dog", "rain", "cat", "dog"]):
        scores[row, kinds[name].classes[-1]] = 0.4
    found = everyday(["dog1.wav", "dog2.wav", "dog3.wav", "cat.wav", "untold.wav"], scores)
    assert (found.clips, found.categories) == (4, 2)
    assert found.right == pytest.approx(3 / 4)
    assert found.mean_right == pytest.approx((2 / 3 + 1) / 2)


def test_no_package_is_both_trained_on_and_judged_by_and_no_two_clips_share_a_file() -> None:
    rows = rows_of(TABLE)
    splits = {split: {row["package"] for row in rows if row["split"] == split} for split in ("train", "held-out")}
    assert all(splits.values())
    assert not splits["train"] & splits["held-out"]
    assert len({clip_path(row) for row in rows}) == len(rows)
    assert all(row["licence"] and row["version"] for row in rows)
    assert 0 < max(float(row["duration_s"]) for row in rows) <= 10


def test_clips_are_cut_as_the_table_says(tmp_path: Path) -> None:
    sound = np.linspace(-0.5, 0.5, 32_000, dtype=np.float32)
    (tmp_path / "usr").mkdir()
    soundfile.write(tmp_path / "usr" / "ramp.wav", sound, 16_000, subtype="FLOAT")
    row = {"package": "some-data", "version": "1", "licence": "MIT", "split": "train", "duration_s": "0.5"}
    here = row | {"file": "usr/ramp.wav", "start_s": "1.25"}
    gone = row | {"file": "usr/gone.wav", "start_s": "0"}
    problems = list(cut([here, gone], tmp_path, tmp_path / "audio"))
    assert len(problems) == 1
    assert "usr/gone.wav" in problems[0]
    samples, rate_hz = soundfile.read(tmp_path / "audio" / clip_path(here), dtype="float32")
    assert rate_hz == 16_000
    np.testing.assert_allclose(samples, sound[20_000:28_000], atol=1e-4)
