"""The page of `satpipe clips`, in a real browser."""

import csv
import json
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import satpipe
from audio import write
from browser import Browser, outside, started
from outputs import IDENTITY, RUN, scores_of, set_files, write_output
from satpipe.jobs.ground_truth.sheet import read_sheet, sheet_text
from selenium.webdriver.common.by import By

pytestmark = pytest.mark.slow
KEYS = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0], bubbles: true}))"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 6 birds and 2 dogs, in which a tone of 2 kHz sounds from the first second on."""
    folder = tmp_path_factory.mktemp("review")
    (folder / "in").mkdir()
    at = np.arange(40 * 16_000) / 16_000
    name = '=HYPERLINK("x"), é.wav'
    path = write(folder / "in" / name, (0.1 * np.sin(2 * np.pi * 2000 * at)).astype(np.float32))
    scores = scores_of(20, Bird=[0, 0.9, 0, 0.8, 0, 0.7, 0, 0.6, 0, 0.55, 0, 0.5], Dog=[0, 0.9, 0, 0, 0, 0.6])
    write_output(folder / "out", {name: scores}, run={**RUN, "inputs": [str(folder / "in")], "identity": IDENTITY})
    known = path.stat()
    set_files(
        folder / "out", {name: {"size_bytes": known.st_size, "modified": known.st_mtime_ns // 1000, "files": None}}
    )
    satpipe.clips(folder / "out", to=folder / "clips")
    return folder / "clips"


@pytest.fixture
def page(browser: Browser, clips: Path, tmp_path: Path) -> Browser:
    """That page, opened for the first time; downloads go to `tmp_path`."""
    browser.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.resize(1280)
    browser.open(clips / "review.html")
    browser.run("localStorage.clear()")
    browser.errors()
    browser.requests()
    browser.open(clips / "review.html")
    return browser


def press(page: Browser, keys: str) -> None:
    for key in keys:
        page.run(KEYS, {"<": "ArrowLeft", ">": "ArrowRight"}.get(key, key))


def text(page: Browser, id: str) -> str:
    return str(page.run("return document.getElementById(arguments[0]).textContent", id))


def saved(page: Browser, folder: Path) -> Path:
    press(page, "s")
    path = folder / "sheet.csv"
    page.wait("return document.getElementById('message').textContent.startsWith('Saved')")
    for _ in range(200):
        if path.exists() and path.stat().st_size:
            break
        page.run("return new Promise(done => setTimeout(done, 20))")
    return path


def test_answers_by_key_and_button_are_in_the_saved_sheet(page: Browser, clips: Path, tmp_path: Path) -> None:
    assert text(page, "progress-text") == "0 of 8 answered"
    order = page.run("return JSON.parse(document.getElementById('about').textContent).order")
    press(page, "yn")
    page.driver.find_element(By.CSS_SELECTOR, "[data-answer=unsure]").click()
    press(page, "<<")
    assert text(page, "place") == "Clip 2 of 8"
    assert page.run("return document.querySelector('[data-answer=no]').ariaPressed") == "true"
    press(page, "n")  # again: taken back
    press(page, ">>y")
    assert text(page, "progress-text") == "3 of 8 answered"
    before, after = (read_sheet(path) for path in (clips / "sheet.csv", saved(page, tmp_path)))
    assert [after[n].correct for n in order] == ["yes", "", "unsure", "yes", "", "", "", ""]
    assert [(row.clip, row.label, row.score, row.stratum) for row in after] == [
        (row.clip, row.label, row.score, row.stratum) for row in before
    ]
    assert (tmp_path / "sheet.csv").read_text(encoding="utf-8").count('"\'=HYPERLINK(""x""), é.wav"') == 8
    assert page.errors() == []
    assert outside(page.requests()) == []


def test_answers_survive_closing_and_a_half_judged_sheet_is_continued(
    page: Browser, clips: Path, tmp_path: Path
) -> None:
    press(page, "ynu")
    page.open(clips / "review.html")
    assert text(page, "progress-text") == "3 of 8 answered"
    assert text(page, "place") == "Clip 4 of 8"
    with (clips / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
        header, *rows = csv.reader(file)
    for row in rows:
        row[header.index("correct")] = "Yes" if row[header.index("label")] == "Dog" else ""
    rows[0][header.index("correct")] = "perhaps"
    (tmp_path / "half.csv").write_text(
        "\n".join(";".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row) for row in [header, *rows]),
        encoding="utf-8",
    )
    page.driver.find_element(By.ID, "upload").send_keys(str(tmp_path / "half.csv"))
    page.wait("return document.getElementById('message').textContent.startsWith('half.csv has 7 of the 8 clips')")
    assert "not yes, no or unsure: audio/bird_001_0.90.wav: perhaps" in text(page, "message")
    assert "2 yes, 0 no" in page.run("return document.querySelector('[data-label=Dog]').textContent")
    (tmp_path / "other.csv").write_text(sheet_text([]), encoding="utf-8")
    page.driver.find_element(By.ID, "upload").send_keys(str(tmp_path / "other.csv"))
    page.wait("return document.getElementById('message').textContent.startsWith('other.csv has none')")


def test_the_clip_can_be_heard_and_seen(page: Browser) -> None:
    page.wait("return document.getElementById('picture').dataset.drawn === '0'")
    length_s, about = page.run(
        "return [document.getElementById('player').duration, document.getElementById('about').textContent]"
    )
    clip = json.loads(about)["clips"][json.loads(about)["order"][0]]
    assert length_s == pytest.approx(clip["length"], abs=0.05)
    shown = page.run("""
        const canvas = document.getElementById('picture');
        const image = canvas.getContext('2d').getImageData(canvas.width / 2, 0, 1, canvas.height).data;
        const light = (at) => image[at] + image[at + 1] + image[at + 2];
        return Array.from({length: canvas.height}, (_, row) => light(4 * row));
    """)
    darkest = 8000 * (1 - (np.argmin(shown) + 0.5) / len(shown))
    assert darkest == pytest.approx(2000, abs=100)
    page.wait("return parseFloat(document.getElementById('head').style.left) > 5")  # it plays at once
    press(page, " ")
    page.wait("return document.getElementById('player').paused")
    page.run("document.getElementById('player').currentTime = 0")
    press(page, "p")
    page.wait("return !document.getElementById('player').paused")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
def test_it_fits_and_axe_finds_nothing_that_keeps_people_out(page: Browser, width: int, scheme: str) -> None:
    page.resize(width)
    page.scheme(scheme)
    press(page, "ynu")
    page.run("document.querySelector('details').open = true")
    assert page.run("return document.documentElement.scrollWidth <= innerWidth")
    pytest.importorskip("axe_playwright_python", reason="make install")
    page.run(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    page.scheme("light")
    assert len(found["passes"]) > 20
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
