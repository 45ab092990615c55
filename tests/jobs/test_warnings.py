"""Warnings: what is odd about recordings but does not stop them, from the file to every place that shows it."""

from pathlib import Path

import numpy as np
import pytest
from audio import Samples, claim_flac_frames, noise, write
from conftest import Satpipe
from tag_tables import assert_same_tables, recordings

RATE_HZ = 16_000


def seconds(count: float, channels: int = 1, *, seed: int = 0) -> Samples:
    return 0.3 * noise(int(count * RATE_HZ), channels, seed)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings with something odd, and one without; the last two follow each other."""
    folder = tmp_path_factory.mktemp("odd")
    write(folder / "fair.wav", seconds(5, 2))
    claim_flac_frames(write(folder / "third.flac", seconds(30)), 10 * RATE_HZ)
    write(folder / "phase.wav", seconds(10)[:, None] * [1, -1])
    write(folder / "loud.wav", seconds(5) * 30_000, subtype="FLOAT")
    write(folder / "zeros.wav", np.concatenate([seconds(10), np.zeros(70 * RATE_HZ), seconds(10)]))
    first = write(folder / "pond_20250501_050000.wav", np.concatenate([seconds(10), np.zeros(20 * RATE_HZ)]))
    content = bytearray(first.read_bytes())
    content[40:44] = (44).to_bytes(4, "little")
    first.write_bytes(content)
    write(folder / "pond_20250501_050030.wav", np.concatenate([np.zeros(45 * RATE_HZ), seconds(5)]))
    return folder


@pytest.fixture(scope="module")
def out(folder: Path, satpipe_here: Satpipe) -> tuple[Path, str]:
    """The folder, tagged in one piece each, and what was printed."""
    out = folder.with_name("out")
    done = satpipe_here("tag", folder, "-o", out, "--join")
    assert done.returncode == 0, done.stderr
    return out, done.stdout


SIZE = "size corrected: the header states"
WARNINGS = {
    "fair.wav": [],
    "third.flac": [f"{SIZE} 160,000 samples, the file holds 480,000"],
    "phase.wav": ["channels cancel: their mean is silence in 100 % of the sound; tag one of them"],
    "loud.wav": ["beyond full scale: samples reach 8,"],
    "zeros.wav": ["zeros: 70.00 s in stretches longer than 60 s, the first from 10.00 to 80.00 s"],
    "pond_20250501_050000.wav": [
        "size corrected: pond_20250501_050000.wav: the header states 44 bytes of samples, the file holds 960,000",
        "zeros: 65.00 s in stretches longer than 60 s, the first from 10.00 to 75.00 s",
    ],
}


def test_recordings_with_something_odd_are_tagged_and_have_warnings(out: tuple[Path, str]) -> None:
    table = recordings(out[0])
    assert set(table.status) == {"ok"}
    assert dict(table.duration_s) == {
        "fair.wav": 5,
        "third.flac": 30,
        "phase.wav": 10,
        "loud.wav": 5,
        "zeros.wav": 90,
        "pond_20250501_050000.wav": 80,
    }
    for name, texts in WARNINGS.items():
        assert [text[: len(start)] for text, start in zip(table.warnings[name], texts, strict=True)] == texts


def test_the_warnings_do_not_depend_on_how_recordings_are_cut(
    folder: Path, out: tuple[Path, str], satpipe_here: Satpipe, tmp_path: Path
) -> None:
    done = satpipe_here("tag", folder, "-o", tmp_path / "cut", "--join", "--span-s", 10)
    assert done.returncode == 0, done.stderr
    assert_same_tables(out[0], tmp_path / "cut")  # all columns


def test_warnings_are_counted_and_shown(out: tuple[Path, str], satpipe_here: Satpipe, tmp_path: Path) -> None:
    kinds = "2 size corrected, 2 zeros, 1 beyond full scale, 1 channels cancel"
    for text in (out[1], satpipe_here("status", out[0]).stdout):
        assert f"recordings with warnings: {kinds}; all texts are in the column warnings" in text
        assert f"  third.flac: {WARNINGS['third.flac'][0]}\n" in text
    done = satpipe_here("report", out[0], "-o", tmp_path / "report.html", "--no-audio")
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text()
    assert f"<caption>Warnings: {kinds}</caption>" in page
    assert f'<td class="text">{WARNINGS["third.flac"][0]}</td>' in page


def test_a_channel_of_its_own_does_not_cancel(folder: Path, satpipe_here: Satpipe, tmp_path: Path) -> None:
    write(tmp_path / "in.wav", np.stack([seconds(70), np.zeros(70 * RATE_HZ)], axis=1))
    for channels, expected in {
        "mix": {"in.wav": ["dead channel: channel 2 of 2 has no sound"]},
        "split": {
            "in.wav#ch1": [],
            "in.wav#ch2": ["zeros: 70.00 s in stretches longer than 60 s, the first from 0.00 to 70.00 s"],
        },
    }.items():
        out = tmp_path / channels
        assert satpipe_here("tag", tmp_path / "in.wav", "-o", out, "--channels", channels).returncode == 0
        assert {name: list(texts) for name, texts in recordings(out).warnings.items()} == expected
