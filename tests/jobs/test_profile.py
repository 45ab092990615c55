"""What models cost: counted by hand, by the paper, and through the command."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from helpers import model_by_rule
from satpipe.jobs.benchmark.profile import profile
from satpipe.jobs.commands.main import cli
from satpipe.reports import paper
from satpipe.reports import profile_tables as pages
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CONFIGS, get_config
from satpipe.sat.taggers.cost import TensorMemory, batch_bytes, cost
from satpipe.sat.taggers.sat import SATTagger
from torch import Tensor, nn

SMALL = replace(get_config("SAT_T_2s"), name="small", width=24, heads=2, depth=3)


def test_operations_and_memory_are_counted_as_by_hand() -> None:
    layer, given = nn.Linear(50, 30, bias=False), torch.randn(7, 50)
    queries = torch.randn(2, 3, 11, 5)

    def run() -> Tensor:
        x = layer(given)  # 7 x 30
        x = (x + 1) * 2  # two more, of which the first goes when it is done with
        torch.nn.functional.scaled_dot_product_attention(queries, queries, queries)
        return x.view(30, 7)

    with torch.no_grad():
        found = cost(run)
    assert found.linear_flops == 2 * 7 * 50 * 30
    assert found.flops == found.linear_flops + 2 * 2 * (2 * 3) * 11 * 11 * 5
    assert found.layer_bytes == 4 * 7 * 30
    # At most two of the three sums are alive at a time, or one and what attention makes.
    assert 3 * 4 * 7 * 30 <= found.peak_bytes <= 4 * (3 * 7 * 30 + 2 * 3 * 11 * (5 + 2))


def test_memory_that_is_freed_is_not_counted() -> None:
    with TensorMemory() as memory:
        for _ in range(10):
            torch.ones(1000).add_(1)
        kept = torch.ones(500)[:10]  # a view keeps all of it
        torch.ones(1000)
    assert memory.peak_bytes == 4 * 1500
    assert len(kept) == 10


def test_memory_of_a_batch_is_that_of_its_tensors() -> None:
    tagger = SATTagger(model_by_rule(SMALL))
    sizes = {chunks: batch_bytes(tagger, chunks) for chunks in (1, 8, 16, 32)}
    assert sizes[32] - sizes[16] == pytest.approx(2 * (sizes[16] - sizes[8]), rel=0.1)
    least = 4 * 32 * (64 * 192 + 48 * 4 * 24)  # the log-mel of a batch, and what the perceptron is widest in
    assert least < sizes[32] < 3 * least


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("satpipe.jobs.benchmark.profile.TIMED_S", 0.0)
        found = profile(["SAT_T_2s", "audiotransformer_tiny", "efficientat"], [2.0, 10.0], lines.append)
    assert lines[:3] == ["SAT_T_2s, 2 s", "audiotransformer_tiny, 2 s", "audiotransformer_tiny, 10 s"]
    return found


@pytest.mark.slow
def test_the_papers_figures_come_out(figures: dict[str, Any]) -> None:
    rows = {(row["model"], row["delay_s"]): row for row in figures["models"]}
    assert len(rows) == 1 + 2 + 2
    for (name, delay_s), row in rows.items():
        published = paper.row(1 if delay_s >= 10 else 2, name, delay_s, row["memory"])
        if published is None:
            continue
        assert published.gflops is not None
        assert row["first_chunk"]["linear_flops"] / 1e9 == pytest.approx(published.gflops, rel=0.05, abs=0.05)
    tiny, sat = rows["audiotransformer_tiny", 10.0], rows["SAT_T_2s", 2.0]
    assert 2 * tiny["first_chunk"]["layer_bytes"] == pytest.approx(52e6, rel=0.05)
    assert (sat["tokens"], tiny["tokens"]) == (48, 252)
    # Keys and values of 48 tokens of memory, in each of 12 blocks; and attention to twice as many tokens.
    more = sat["later_chunk"]["flops"] - sat["first_chunk"]["flops"]
    least = 12 * (2 * 48 * 192 * 2 * 192 + 2 * 2 * 48 * 48 * 192)
    assert least <= more <= 1.5 * least


@pytest.mark.slow
def test_a_batch_takes_more_memory_than_a_chunk(figures: dict[str, Any]) -> None:
    for row in figures["models"]:
        assert row["later_chunk"]["peak_bytes"] < row["batch_bytes"], row["model"]
        assert min(row["x_realtime"], row["batch_x_realtime"]) > 0
    assert [row["batch_chunks"] for row in figures["models"]] == [32, 32, 32, 4, 4]


@pytest.mark.slow
def test_the_tables_are_laid_out_as_the_papers(figures: dict[str, Any]) -> None:
    first, second = pages.tables(figures)
    assert [table.title for table in (first, second)] == ["Table 1: 10 s", "Table 2: 2 s"]
    (row,) = [row for row in second.rows if row[0] == "SAT_T_2s"]
    assert row[:8] == ("SAT_T_2s", "5.5", "48", "48/48", "10", "9 M", "0.516", "0.5")
    (peer,) = [row for row in first.rows if row[0] == "efficientat"]
    assert (peer[1], peer[2], peer[5]) == ("1.0", "", "")
    assert "SAT_T_2s, memory: 1.11 times the paper's." in second.note
    assert second.note.endswith(f"float32, torch {torch.__version__}.")


@pytest.mark.slow
def test_the_command_measures_external_taggers_of_full_size(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("satpipe.jobs.benchmark.profile.TIMED_S", 0.0)
    path = tmp_path / "figures.json"
    done = CliRunner().invoke(
        cli, ["profile", "beats", "htsat", "--delay", "2", "-o", str(path)], standalone_mode=False
    )
    assert done.exception is None, done.exception
    beats, htsat = json.loads(path.read_text())["models"]
    assert beats["first_chunk"]["flops"] == pytest.approx(17.8e9, rel=0.01)
    assert 2 * beats["first_chunk"]["layer_bytes"] == pytest.approx(83e6, rel=0.05)
    assert (beats["tokens"], htsat["tokens"]) == (96, 4096)  # HTS-AT repeats what is short to its 10 s
    assert re.search(r"^\| beats \| 90\.7 \| 96 \| 96 \|", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("models", "delays_s", "reason"),
    [
        (["SAT_T_2s"], [1.0], "SAT_T_2s has a delay of 2 s: omit --delay"),
        (["efficientat"], [30.0], "delay of efficientat must be 0.16 s to 10 s"),
        (["SAT_X"], [], "did you mean SAT_"),
    ],
)
def test_what_cannot_be_measured_is_said_first(models: list[str], delays_s: list[float], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        profile(models, delays_s, lambda line: None)


def test_every_model_of_the_papers_tables_that_we_have_is_known_by_its_name() -> None:
    named = {row.arch for number in (1, 2) for row in paper.TABLES[number] if row.arch}
    assert named == {*CONFIGS, "ast", "beats", "htsat"}
