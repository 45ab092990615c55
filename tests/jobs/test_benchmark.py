"""`satpipe benchmark`, and what `satpipe.reports.readme` makes of its figures."""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from conftest import ROOT, Satpipe
from images import texts
from satpipe.jobs.benchmark import evaluate, grids, parts, reading, strong_set, taggers, train
from satpipe.jobs.benchmark import tag as benchmark_tag
from satpipe.jobs.benchmark.parts import chunk_flops
from satpipe.jobs.benchmark.reading import COMPRESSED, STEREO
from satpipe.jobs.commands.main import cli
from satpipe.jobs.evaluate import evaluate as evaluate_tables
from satpipe.jobs.ground_truth import read_strong
from satpipe.reports import readme, speed_picture
from satpipe.sat.model.config import get_config

HOURS = 0.05
FLAC = {f"gapless {precision}, {STEREO}" for precision in ("fp32", "bf16")}
LENGTHS: dict[str, Any] = {  # instead of minutes
    "ROUNDS": 1, "LOOP_S": 20, "SLOW_S": 60, "ALONE_S": 0.5, "FLAC_S": 60, "COMPRESSED_S": 6, "COMPARED_S": 20,
    "SIZES_S": {"SAT_S_2s": 10},
}  # fmt: skip
PARTS = {"BLOCK_S": 2, "COPIED_BYTES": 2**24, "WRITTEN_CHUNKS": 128, "MODEL_CHUNKS": 4}
RUNS = {f"{cut} {precision}" for cut in ("script", "gapless") for precision in ("fp32", "bf16")} | FLAC
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    """The figures of the README."""
    return readme.measured()


@pytest.fixture(scope="module")
def measured(ray_here: None) -> dict[str, Any]:
    """What is measured here and now, on little audio."""
    said: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for module, values in ((benchmark_tag, LENGTHS), (parts, PARTS | {"ROUNDS": 1}), (reading, {"ROUNDS": 1})):
            for name, value in values.items():
                patch.setattr(module, name, value)
        found = benchmark_tag.benchmark(ROOT / "examples" / "recordings", HOURS, said.append)
    assert "round 1 of 1: the plain loop, one chunk at a time, all CPUs" in said
    return found


def assert_sane(figures: dict[str, Any], larger: Collection[str] = benchmark_tag.SIZES_S) -> None:
    assert set(figures) - {"evaluation", "consistency", "stream", "soak", "peers", "device", "grids"} == {
        "date", "machine", "versions", "model", "hours", "loop_x_realtime", "ray_start_s", "first_run_s", "runs",
        "largest_score_difference", "year_bytes", "start_up", "parts", "reading", "models", "sizes", "auto", "rounds",
        "model_x_realtime",
    }  # fmt: skip
    assert set(figures["machine"]) == {"processor", "processors", "system"}
    assert {"satpipe", "torch", "ray", "python"} <= set(figures["versions"])
    assert figures["model"] == "SAT_T_2s"
    assert figures["loop_x_realtime"] > 1
    assert 0 < figures["ray_start_s"] < 120
    assert 0 < figures["first_run_s"] < 120
    assert 0 <= figures["largest_score_difference"] <= 1e-5
    assert 0 < figures["year_bytes"]["tags"] < figures["year_bytes"]["scores"] < 1e11
    assert set(figures["runs"]) == RUNS
    for name, run in figures["runs"].items():
        assert run["times_loop"] > 0.05, name  # more in fp32, see below
        assert 0.05 < run["share_of_model"] < 5, name
        assert set(run["worker_s"]) == {"read", "log_mel", "model", "write"}
        assert all(seconds > 0 for seconds in run["worker_s"].values()), name
        # The workers' time fits into the time that all of them had, and is not a small part of what one had.
        elapsed_s = run["duration_s"] / run["x_realtime"]
        total_s = sum(run["worker_s"].values())
        # The first is that of the last round, the other one the median over the rounds.
        assert 0.2 * elapsed_s < total_s < 1.25 * elapsed_s * figures["machine"]["processors"], name
    assert 0 < figures["start_up"]["help_s"] < figures["start_up"]["one_file_s"] < 120
    assert min(figures["runs"][f"{cut} fp32"]["times_loop"] for cut in ("script", "gapless")) > 0.5
    alone = figures["parts"]
    assert min(alone.values()) > 1
    # A part is no faster than a part of it; the machine may be busy with something else at times.
    assert alone["log-mel"] < 1.2 * alone["FFTs of log-mel"]
    assert STEREO in figures["reading"]
    for name, row in figures["reading"].items():
        assert row["share"] > 0.5, name
        assert min(row[part] for part in ("decode", "read")) > 1, name
    assert figures["auto"]["precision"] in ("fp32", "bf16")
    assert set(figures["auto"]["times_fp32"]) == set(figures["model_x_realtime"]) - {"fp32"} == {"bf16"}
    assert set(figures["models"]) == {f"{name} {way}" for name in ("SAT_T_2s", *larger) for way in ("fp32", "bf16")}
    for name, row in figures["models"].items():
        assert row["x_realtime"] > 1, name
        assert row["flops"] > 1e9, name
        assert 0.02 < row["x_realtime"] / row["bound_x_realtime"] < 2, name
    assert set(figures["sizes"]) == set(larger)
    for row in figures["sizes"].values():
        assert {"loop", "fp32"} <= set(row) <= {"loop", "fp32", "bf16"}  # without bf16 where that is far slower
        assert min(row.values()) > 0.1


@pytest.mark.slow
def test_the_command_measures_everything_the_readme_tells(measured: dict[str, Any], figures: dict[str, Any]) -> None:
    assert measured["hours"] == HOURS
    assert_sane(measured, LENGTHS["SIZES_S"])
    assert {"16 kHz mono WAV", STEREO, *COMPRESSED} <= set(measured["reading"])
    filled = readme.fill(README, figures | measured)
    assert f"{HOURS:g} h of 16 kHz WAV" in filled
    assert f"| plain loop: one chunk per call, all processors | {measured['loop_x_realtime']:,.0f} | 1.0 |  |" in filled


def test_the_figures_of_the_readme_are_such_figures(figures: dict[str, Any]) -> None:
    assert_sane(figures, larger=("SAT_S_2s", "SAT_B_2s"))
    assert figures["hours"] >= 1


def test_filling_twice_is_filling_once(figures: dict[str, Any]) -> None:
    other = {**figures, "loop_x_realtime": 1.0, "model": r"a\1 \g<name>"}
    filled = readme.fill(README, other)
    assert filled != README
    assert r"a\1 \g<name>" in filled
    assert readme.fill(filled, other) == filled
    assert readme.fill(filled, figures) == readme.fill(README, figures)


def test_filling_leaves_the_rest_of_the_text_alone(figures: dict[str, Any]) -> None:
    generated = re.compile(r"<!-- (\w+) -->.*?<!-- end of \1 -->", re.DOTALL)
    filled = readme.fill(README, {**figures, "loop_x_realtime": 1.0})
    assert generated.findall(README) == ["disk", "speed"]
    assert generated.split(filled) == generated.split(README)


@pytest.mark.parametrize("mark", ["<!-- speed -->", "<!-- end of speed -->", "<!-- disk -->"])
def test_a_text_without_a_place_for_the_figures_is_refused(figures: dict[str, Any], mark: str) -> None:
    name = mark.split()[-2]
    with pytest.raises(ValueError, match=f"README.md has no place for '{name}'"):
        readme.fill(README.replace(mark, ""), figures)


def test_every_figure_of_the_runs_is_told(figures: dict[str, Any]) -> None:
    for name, run in figures["runs"].items():
        ratio = "" if "FLAC" in name else f"{run['times_loop']:.1f}"
        length = f", {run['duration_s'] / 60:g} min" if run["duration_s"] < 3600 * figures["hours"] else ""
        row = f"| `satpipe tag`, {name}{length} | {run['x_realtime']:,.0f} | {ratio} | {run['share_of_model']:.0%} |"
        assert row in readme.speed(figures)


def test_the_picture_shows_each_speed_beside_its_limit(figures: dict[str, Any], tmp_path: Path) -> None:
    speed_picture.draw(figures, tmp_path)
    drawn = texts(tmp_path / "speed.svg")
    for value in (
        figures["loop_x_realtime"],
        *(figures["runs"][f"gapless {each}"]["x_realtime"] for each in ("fp32", "bf16")),
        *figures["model_x_realtime"].values(),
        *(row["read"] for row in figures["reading"].values() if "resample" in row),
    ):
        assert f"{value:,.0f}" in drawn
    assert (tmp_path / "speed.svg").read_bytes() == (ROOT / "reports" / "speed.svg").read_bytes()


def test_the_shares_of_the_stages_add_up(figures: dict[str, Any]) -> None:
    for line in readme.stages(figures).splitlines()[2:]:
        shares = [int(share) for share in re.findall(r"(\d+)%", line)]
        assert len(shares) == 4
        assert 98 <= sum(shares) <= 102


@pytest.mark.parametrize(
    ("name", "published_gflops"), [("SAT_T_2s", 0.5), ("SAT_S_2s", 2.1), ("SAT_B_2s", 8.2), ("SAT_T_1s", 0.3)]
)
def test_the_operations_counted_are_about_the_published_ones(name: str, published_gflops: float) -> None:
    assert chunk_flops(get_config(name)) / 1e9 == pytest.approx(published_gflops, rel=0.12)


def test_each_part_is_told_in_the_documentation(figures: dict[str, Any]) -> None:
    document = "reports/docs/explanation/speed.md"
    text = (ROOT / document).read_text()
    filled = readme.fill(text, figures, document)
    assert text == filled
    row = figures["models"]["SAT_T_2s bf16"]
    assert f"| SAT_T_2s bf16 | {row['x_realtime']:,.0f} | {row['flops'] / 1e9:,.0f} |" in filled
    assert f"| log-mel | {figures['parts']['log-mel']:,.0f} |" in filled
    stereo = figures["reading"][STEREO]
    cells = " | ".join(f"{stereo[part]:,.0f}" for part in ("decode", "resample", "read"))
    assert f"| {STEREO} | {cells} | {stereo['share']:.0%} |" in filled


@pytest.mark.slow
def test_what_evaluating_takes_is_measured_beside_sed_eval(figures: dict[str, Any]) -> None:
    ours = evaluate.benchmark(lambda line: None, strong_set.make(60, 490), one_in=20)
    assert ours.keys() == figures["evaluation"].keys()
    assert ours["sed_eval_s"] > 0
    assert ours["figures"]["elapsed_s"] > 0
    assert 1e8 < ours["with_intervals"]["peak_bytes"] < 4e9
    text = readme.evaluation(figures | {"evaluation": ours})
    assert "(60 clips, 490 events, 416 classes, exact PSDS)" in text


def test_a_folder_without_recordings_is_one_clear_line(satpipe_here: Satpipe, tmp_path: Path) -> None:
    done = satpipe_here("benchmark", "tag", tmp_path, "-o", tmp_path / "figures.json")
    assert (done.returncode, done.stderr.count("ConfigError: no recordings in")) == (1, 1)


def test_a_folder_that_is_not_there_is_one_clear_line(satpipe_here: Satpipe, tmp_path: Path) -> None:
    done = satpipe_here("benchmark", tmp_path / "nowhere", "-o", tmp_path / "figures.json")
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert not (tmp_path / "figures.json").exists()


def test_without_the_name_of_a_benchmark_it_is_that_of_tag() -> None:
    named, short, group = (CliRunner().invoke(cli, ["benchmark", *given]) for given in (["tag", "x"], ["x"], ["-h"]))
    assert named.output == short.output
    assert "Usage: satpipe benchmark tag" in short.output.replace("cli", "satpipe")
    assert {*re.findall(r"^  ([a-z]+) ", group.output.partition("Commands:")[2], re.MULTILINE)} == {
        "bundled", "consistency", "evaluate", "export", "grids", "soak", "stream", "tag", "taggers", "train"
    }  # fmt: skip
    assert "..." not in group.output.partition("Commands:")[2]


@pytest.mark.slow
def test_the_steps_of_training_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(train, "ROUNDS", 1)
    monkeypatch.setattr(train, "BATCH", 2)
    monkeypatch.setattr(train, "_peak_bytes", lambda: 5)
    done = CliRunner().invoke(cli, ["benchmark", "train", "-o", str(tmp_path / "train.json")], standalone_mode=False)
    assert done.exception is None, done.exception
    figures = json.loads((tmp_path / "train.json").read_text())
    assert figures["samples_per_cpu_s"].keys() == {"mae", "full", "sat", "plain loop"}
    assert min(figures["samples_per_cpu_s"].values()) > 0
    assert figures["peak_bytes"] == 5


@pytest.mark.slow
def test_long_sounds_are_compared_with_and_without_memory(satpipe_here: Satpipe, tmp_path: Path) -> None:
    birds = ROOT / "examples" / "recordings" / "birds_48k_stereo.opus"
    given = ("--labels", "Bird", "--minutes", 0.5, "--work", tmp_path / "work", "-o", tmp_path / "figures")
    done = satpipe_here("benchmark", "consistency", birds, *given)
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "figures" / "consistency.json").read_text())
    assert [regime["memory"] for regime in figures["regimes"]] == ["on", "off"]
    assert {row["recording"] for row in figures["figures"]} == {"birds.wav"}
    assert {row["duration_s"] for row in figures["figures"]} == {30.0}
    assert "| birds.wav |" in done.stdout
    assert (tmp_path / "figures" / "consistency.svg").exists()


@pytest.mark.slow
def test_grids_are_compared_at_thresholds_chosen_on_other_scenes(
    satpipe_here: Satpipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grids, "LENGTH_S", 8.0)
    out, work = tmp_path / "grids.json", tmp_path / "work"
    sounds = ROOT / "examples" / "sounds.csv"
    done = satpipe_here("benchmark", "grids", sounds, "-o", out, "--scenes", 2, "--work", work)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    assert (work / "seed1" / "strong.tsv").read_text() != (work / "seed2" / "strong.tsv").read_text()
    rows = {(row["model"], row["grids"], row["combine"]): row for row in figures["rows"]}
    assert [key[1:] for key in rows if "2 s" in key[0]] == [
        (1, "geometric"), *((number, way) for number in (2, 4, 12) for way in ("geometric", "sharp"))
    ]  # fmt: skip
    assert {key[1] for key in rows if "1 s" in key[0]} == {1, 2, 6}
    coarse, fine = rows["SAT-T, 2 s", 1, "geometric"], rows["SAT-T, 2 s", 12, "geometric"]
    assert (coarse["hop_s"], fine["hop_s"]) == (1.92, 0.16)
    assert fine["ceilings"]["onset_f1"] > 0.99 > coarse["ceilings"]["onset_f1"]
    assert 4 < coarse["x_realtime"] / fine["x_realtime"] < 20
    for row in rows.values():
        assert all(0 <= value <= 1 for value in row["figures"].values())
        assert row["thresholds"].keys() == row["ceilings"].keys() == row["figures"].keys() - {"psds1", "psds2"}
    table = readme.grids({"grids": figures})
    assert table.count("| SAT-T, 2 s |") == 7
    assert f"{100 * fine['figures']['segment_f1_1']:.1f}" in table

    # The scores are those of `satpipe tag`: so are figures that need no threshold.
    truth, tables = work / "seed2" / "strong.tsv", tmp_path / "out"
    assert satpipe_here("tag", work / "seed2" / "audio", "-o", tables, "--grids", 4).returncode == 0
    (tmp_path / "classes.txt").write_text("\n".join(sorted({label.mid for label in read_strong(truth).labels})))
    result = evaluate_tables(
        tables, strong=truth, classes=str(tmp_path / "classes.txt"), psds_thresholds="50", bootstrap=0
    )
    found = {figure["name"]: figure["value"] for figure in result["figures"] if figure["average"] == "macro"}
    measured = rows["SAT-T, 2 s", 4, "geometric"]["figures"]
    assert measured["psds1"] == pytest.approx(found["psds1"], abs=1e-3)
    assert measured["psds2"] == pytest.approx(found["psds2"], abs=1e-3)


def test_a_corpus_without_a_part_is_one_clear_line(satpipe_here: Satpipe, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    done = satpipe_here("benchmark", "taggers", tmp_path, "--teacher", "none.pt", "-o", tmp_path / "taggers.json")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert f"must contain audio/ and manifest.tsv; {tmp_path}/manifest.tsv not found" in done.stderr
    (tmp_path / "manifest.tsv").write_text("path\thint\tsplit\na.flac\tpad\tvalidation\n")
    done = satpipe_here(
        "benchmark", "taggers", tmp_path, "--teacher", "none.pt", "--work", tmp_path / "work", "-o", tmp_path / "x.json"
    )
    assert "no validation clip of" in done.stderr


@pytest.mark.parametrize(
    ("hint", "name"),
    [("dog bark 2", "Bark"), ("dog", "Dog"), ("dog and cat", None), ("pad", None), ("church-bell 3", "Church bell")],
)
def test_a_hint_names_the_most_specific_class_or_none(hint: str, name: str | None) -> None:
    label = taggers.named_class(hint)
    assert (label and label.name) == name
