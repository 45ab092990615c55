"""`satpipe reproduce`: what it makes again and what it does not, its plan, and published checkpoints."""

import csv
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from audio import noise, write
from conftest import ROOT
from forked import Forked
from helpers import model_by_rule
from noted_steps import Noted, chain, killed_after
from satpipe.jobs.options.reproduce import ReproduceOptions
from satpipe.jobs.reproduce.job import Reproduction, declare
from satpipe.jobs.reproduce.steps import Cluster, run
from satpipe.reports.reproduction import rows
from satpipe.sat.errors import ConfigError, OutputError, TrainingError
from satpipe.sat.model.config import get_config
from satpipe.sat.weights import hub
from satpipe.sat.weights.published import to_published
from without_ray import satpipe

RECIPES = ROOT / "examples" / "audioset" / "recipes"


@pytest.mark.slow
def test_killed_after_any_step_the_next_start_repeats_none(tmp_path: Path) -> None:
    log, out, printed = tmp_path / "log", tmp_path / "out", tmp_path / "printed"
    names = [step.name for step in chain(log)]
    assert len(names) == 8
    for made in range(1, len(names) + 1):
        process = Forked(printed, killed_after, log, out, ": done")
        assert process.ends() == -signal.SIGKILL, process.printed()
        assert len(log.read_text().splitlines()) == made
    said: list[str] = []
    run(chain(log), out, Cluster(), said.append)
    assert said == [f"{name}: done before" for name in names]
    assert sorted(log.read_text().splitlines()) == sorted(names)


def test_a_step_that_was_killed_on_its_way_runs_again(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    process = Forked(tmp_path / "printed", killed_after, log, out, "full: made")
    assert process.ends() == -signal.SIGKILL, process.printed()
    said: list[str] = []
    run(chain(log), out, Cluster(), said.append)
    assert f"full: continues in {next(out.glob('full-??????????'))}" in said
    assert log.read_text().splitlines().count("full") == 2
    assert log.read_text().splitlines().count("mae") == 1


def test_trainings_run_at_the_same_time_and_an_error_starts_no_further_one(tmp_path: Path) -> None:
    log, out, barrier = tmp_path / "log", tmp_path / "out", threading.Barrier(2)
    good = Noted("good", {}, log, long=True, together=barrier)
    bad = Noted("bad", {}, log, long=True, together=barrier, fails=True)
    later = Noted("later", {}, log, long=True)
    with pytest.raises(TrainingError, match="the loss became nan"):
        run([good, bad, later], out, Cluster(at_once=2), lambda line: None)
    assert good.done(out)
    assert not bad.done(out)
    assert not later.done(out)
    with pytest.raises(OutputError, match="another run is using"):
        run([Noted("outer", {}, log, together=_Inner(out, log))], out, Cluster(), lambda line: None)  # type: ignore[arg-type]


class _Inner:
    """Starts another run in the same folder."""

    def __init__(self, out: Path, log: Path) -> None:
        self._out, self._log = out, log

    def wait(self, _: float) -> None:
        run([Noted("inner", {}, self._log)], self._out, Cluster(), lambda line: None)


def declared(audioset: Path, **given: Any) -> Reproduction:
    return declare(rows([2]), ReproduceOptions(audioset=audioset, **given))


def folders(reproduction: Reproduction) -> dict[str, str]:
    return {step.name: step.folder(Path()).name for step in reproduction.steps}


def test_a_changed_recipe_makes_anew_what_depends_on_it_and_nothing_else(tmp_path: Path) -> None:
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    for path in RECIPES.iterdir():
        (recipes / path.name).write_text(path.read_text())
    given = {"sizes": "tiny", "recipes": recipes}
    before = folders(declared(tmp_path, **given))
    assert {"set_eval", "mae_tiny", "full_tiny", "labels_4s", "labels_2s", "sat_tiny_2s", "weak_SAT_T_2s"} < set(before)

    def change(name: str, line: str) -> set[str]:
        with (recipes / name).open("a") as file:
            file.write(line)
        after = folders(declared(tmp_path, **given))
        changed = {step for step in after if after[step] != before[step]}
        before.update(after)
        return changed

    assert change("sat_tiny_1s.yaml", "seed: 7\n") == {"sat_tiny_1s", "tag_SAT_T_1s", "weak_SAT_T_1s"}
    assert change("full_tiny.yaml", "workers: 2\n") == set()  # the batch is the whole one
    labelled = change("full_tiny.yaml", "seed: 7\n")
    assert {"full_tiny", "labels_4s", "sat_tiny_2s", "weak_SAT_T_2s", "tag_audiotransformer_tiny_1s"} < labelled
    assert not {"mae_tiny", "set_eval"} & labelled
    (tmp_path / "eval_segments.csv").write_text("one, 0, 10, /m/09x0r\n")  # the validation set of all
    assert change("sat_tiny_2s.yaml", "") == set(before) - {"set_unbalanced_train_segments"}


def test_the_plan_states_hours_disk_and_what_is_missing(tmp_path: Path) -> None:
    options = ("--audioset", tmp_path, "-o", tmp_path / "out", "--gpus", 8)
    done = satpipe("reproduce", "table1", "table2", "table3", *options, "--plan")
    assert done.returncode == 0, done.stderr
    lines = {line.split("  ")[0]: line.split() for line in done.stdout.splitlines()}
    assert lines["mae_base"][1:3] == ["76,189,840", "samples"]  # 40 epochs of the paper's clips
    hours = {name: float(line[3]) for name, line in lines.items() if name.startswith(("mae", "full", "sat"))}
    assert len(hours) == 3 + 3 + 6
    assert hours["full_tiny"] < hours["full_small"] < hours["full_base"]
    total = float(lines["all that is left"][-2])
    assert total > sum(hours.values())
    wall = float(done.stdout.partition("About ")[2].split()[0])
    assert max(hours.values()) < wall < total / 2
    assert "on 8 x H100" in done.stdout
    assert f"missing: {tmp_path / 'train'}, the audio of the training clips" in done.stdout
    one = satpipe("reproduce", "table1", *options[:-2], "--gpus", 1, "--gpu", "a100", "--plan").stdout
    assert float(one.partition("About ")[2].split()[0]) > wall
    assert not (tmp_path / "out").exists()
    refused = satpipe("reproduce", "table1", *options)
    assert refused.returncode == 1
    assert refused.stderr.startswith("ConfigError: AudioSet is not complete:\n")


@pytest.mark.slow
def test_published_checkpoints_are_evaluated_without_training(tmp_path: Path) -> None:
    weights, audioset, out = tmp_path / "weights", tmp_path / "audioset", tmp_path / "out"
    weights.mkdir()
    (audioset / "eval").mkdir(parents=True)
    config = get_config("SAT_T_2s")
    state = to_published(model_by_rule(config).state_dict(), config)
    torch.save({"model": state}, weights / hub.PUBLISHED[config.name].file)
    lines = []
    for number, mid in enumerate(("/m/09x0r", "/m/0jbk", "/m/09x0r")):
        write(audioset / "eval" / f"Yclip_{number:06}.wav", noise(3 * 16_000, seed=number))
        lines.append(f'clip_{number:06}, 0.000, 10.000, "{mid}"\n')
    (audioset / "eval_segments.csv").write_text(
        "# YTID, start_seconds, end_seconds, positive_labels\n" + "".join(lines)
    )
    arguments = ("reproduce", "table2", "--audioset", audioset, "--from-checkpoints", weights, "-o", out)
    done = satpipe(*arguments)
    assert done.returncode == 0, done.stderr
    with (out / "table2.csv").open() as file:
        table = {(row["delay"], row["model"]): (row["mAP"], row["mAP, ours"]) for row in csv.DictReader(file)}
    published, ours = table.pop(("2 s", "SAT-T"))
    assert published == "43.3"
    assert 0 < float(ours) <= 100
    assert all(cell == f"{figure} †" for figure, cell in table.values())
    assert (out / "table2.md").read_text().startswith("**Table 2 of Dinkel et al.")
    again = satpipe(*arguments)
    assert again.stderr.splitlines() == ["tag_SAT_T_2s: done before", "weak_SAT_T_2s: done before"]
    none = satpipe(*arguments[:-3], tmp_path / "audioset", "-o", out)
    assert none.returncode == 1
    assert "has none of the published checkpoints of this table: SAT_B_stream1s_mAP_41_37.pt, " in none.stderr


def test_what_cannot_work_is_named_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="--sizes must be of tiny, small, base, not 'huge'"):
        declared(tmp_path, sizes="tiny,huge")
    with pytest.raises(ConfigError, match="--sizes must name at least one"):
        declared(tmp_path, sizes=",")
    with pytest.raises(ConfigError, match="--delays must be of 2, 1, not '10'"):
        declared(tmp_path, delays="10")
    both, one = (set(folders(declared(tmp_path, delays=delays))) for delays in ("1,2", "2"))
    assert one < both
    assert {"labels_2s", "sat_tiny_1s", "weak_audiotransformer_tiny_1s"} < both - one
    for name in ("train", "eval"):
        (tmp_path / name).mkdir()
    (tmp_path / "unbalanced_train_segments.csv").write_text("one, 0, 10, /m/09x0r\n")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ConfigError, match="adam8bit needs bitsandbytes; install the extra train"):
        declared(tmp_path, out=tmp_path / "out").run(lambda line: None)
    (tmp_path / "sat_tiny_2s.yaml").write_text("arch: SAT_T_2s\n")
    with pytest.raises(ConfigError, match="sat_tiny_2s.yaml: keys missing: epochs, lr"):
        declared(tmp_path, recipes=tmp_path)
