"""The page of `satpipe report`, in a real browser."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from browser import Browser, outside, started
from click.testing import CliRunner
from conftest import ROOT, Satpipe
from outputs import CHUNK_S, scores_of, set_clock, write_output
from satpipe.jobs.commands.main import cli
from satpipe.jobs.report_data import Excerpt, ReportOptions, collect
from satpipe.jobs.report_data.collection import MAX_CURVES, MAX_DETAILS, MAX_LABELS
from satpipe.jobs.report_data.count import MAX_PARTS
from satpipe.jobs.report_data.excerpts import MAX_BYTES
from satpipe.jobs.report_data.grid import MAX_DAYS
from satpipe.pipeline.tables.dataframes import read_scores
from satpipe.reports import page as page_of
from satpipe.sat.groups import shipped
from satpipe.sat.labels import weak_labels
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

pytestmark = pytest.mark.slow
WIDE, PHONE = 1280, 360
MIN_FONT_PX = 13
MIN_CONTRAST = 4.5  # WCAG 2.2, AA
SOUNDS = ("speech_16k_mono.WAV", "birds_48k_stereo.opus", "drums_44k1_stereo.flac")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with started() as browser:
        yield browser


@pytest.fixture(scope="module")
def tagged(browser: Browser, tmp_path_factory: pytest.TempPathFactory, satpipe_here: Satpipe) -> Path:
    """Tables of three example recordings, and their page."""
    folder = tmp_path_factory.mktemp("page")
    inputs = [ROOT / "examples" / "recordings" / name for name in SOUNDS]
    assert satpipe_here("tag", *inputs, "-o", folder / "out").returncode == 0
    done = satpipe_here("report", folder / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(folder / "out" / "report.html")
    return folder / "out"


@pytest.fixture
def page(browser: Browser, tagged: Path) -> Browser:
    """That page, just opened."""
    browser.resize(WIDE)
    browser.scheme("light")
    browser.errors()
    browser.requests()
    browser.open(tagged / "report.html")
    return browser


def report(*arguments: object) -> None:
    done = CliRunner().invoke(cli, ["report", *map(str, arguments)])
    assert done.exit_code == 0, done.output


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of 15 nights with a bird from 03:00 on, in summer time."""
    folder = tmp_path_factory.mktemp("deployment")
    half_hour = round(1800 / CHUNK_S)
    nights = [f"site/{day:02}.wav" for day in range(1, 16)]
    bird = [0.0] * half_hour + [0.8] * half_hour
    write_output(folder, {name: scores_of(2 * half_hour, Bird=bird, Owl=[0.4]) for name in nights})
    # 00:30 UTC is 02:30 in Berlin.
    start = datetime(2025, 5, 1, 0, 30, tzinfo=UTC)
    set_clock(folder, {name: (start + timedelta(days=day), None) for day, name in enumerate(nights)})
    report(folder, "-o", folder / "new" / "page.html", "--time-zone", "Europe/Berlin")
    return folder / "new" / "page.html"


def rows(browser: Browser) -> dict[str, str]:
    """The table of labels: name and time."""
    script = """
        return [...document.querySelectorAll('#labels tbody tr')].map(
          row => [row.querySelector('button').textContent, row.cells[1].textContent])
    """
    return dict(browser.run(script))


def unfold(browser: Browser) -> None:
    """Show the classes of all groups, and all rows of the table of labels."""
    browser.run("document.querySelectorAll('#labels .more').forEach(button => button.click())")
    groups = browser.run("return document.querySelectorAll('.unfold').length")
    for number in range(groups):
        browser.run(
            "const button = document.querySelectorAll('.unfold')[arguments[0]];"
            "if (button.ariaExpanded === 'false') button.click()",
            number,
        )
    browser.run("document.querySelectorAll('#labels .more').forEach(button => button.click())")


def saved(browser: Browser, section: str, folder: Path) -> pd.DataFrame:
    """Press "Download CSV" in a section, and read the file."""
    settings = {"behavior": "allow", "downloadPath": str(folder)}
    browser.driver.execute_cdp_cmd("Page.setDownloadBehavior", settings)
    browser.driver.find_element(By.CSS_SELECTOR, f"#{section} .save").send_keys(Keys.ENTER)
    end = time.monotonic() + 20
    while not (files := list(folder.glob("*.csv"))):
        assert time.monotonic() < end, "nothing was saved"
        time.sleep(0.05)
    (path,) = files
    return pd.read_csv(path.rename(folder / f"{section}.read"))


def maps(browser: Browser, section: str) -> list[str]:
    return browser.run(f"return [...document.querySelectorAll('#{section} h3')].map(h => h.textContent)")  # type: ignore[no-any-return]


def type_label(browser: Browser, text: str) -> None:
    field = browser.driver.find_element(By.ID, "text")
    field.clear()
    field.send_keys(text)


def set_threshold(browser: Browser, wanted: str) -> None:
    """Set the threshold with the keys."""
    slider = browser.driver.find_element(By.ID, "level")
    slider.send_keys(Keys.HOME)
    while browser.run("return document.getElementById('level-value').textContent") != wanted:
        slider.send_keys(Keys.ARROW_RIGHT)


def length(seconds: float) -> str:
    return f"{seconds:.1f} s"


def test_it_opens_without_a_request_or_an_error(page: Browser, tagged: Path) -> None:
    page.run("document.querySelectorAll('button.more').forEach(button => button.click())")
    requests = page.requests()
    assert (tagged / "report.html").as_uri() in requests  # so requests are seen
    assert outside(requests) == []
    assert page.errors() == []
    assert page.driver.title == "Sounds in out"


def test_it_could_not_ask_the_network_if_it_wanted_to(page: Browser, tagged: Path) -> None:
    kinds = {
        "fetch('http://127.0.0.1:9/a').catch(() => 0)": "connect-src",
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/b.png'}))": "img-src",
        "document.body.append(Object.assign(document.createElement('script'), {src: 'http://127.0.0.1:9/c.js'}))": (
            "script-src-elem"
        ),
    }
    page.run(
        "window.refused = []; addEventListener('securitypolicyviolation', e => refused.push(e.effectiveDirective))"
    )
    for script in kinds:
        page.run(script)
    page.wait(f"return window.refused.length === {len(kinds)}")
    assert sorted(page.run("return window.refused")) == sorted(kinds.values())


def test_the_labels_are_those_of_the_scores_at_every_threshold(page: Browser, tagged: Path) -> None:
    scores = read_scores(tagged)
    lengths = (scores.end_s - scores.start_s).to_numpy()
    values = scores.iloc[:, 5:]
    unfold(page)
    for threshold in ("0.2", "0.5", "0.7"):
        set_threshold(page, threshold)
        unfold(page)
        reached = (values.to_numpy(np.float64) >= float(threshold)).T @ lengths
        true = pd.Series(reached, values.columns)
        true = true[true > 0]
        shown = rows(page)
        assert {label: shown[label] for label in true.index} == {label: length(true[label]) for label in true.index}
        assert all(label in shipped() for label in shown.keys() - set(true.index))
        assert f"{len(true)} of" in page.run("return document.getElementById('matches').textContent")


def test_a_group_shows_its_classes_when_asked(page: Browser) -> None:
    assert "birds" in rows(page)
    assert "Bird" not in rows(page)
    button = page.driver.find_element(By.CSS_SELECTOR, ".unfold[aria-label$='group birds']")
    assert button.get_attribute("aria-expanded") == "false"
    button.send_keys(Keys.ENTER)
    names = list(rows(page))
    assert names[names.index("birds") + 1] == "Bird"
    assert "Bird" in page.run("return document.querySelector('#when .names').textContent")
    assert page.run("return document.activeElement.getAttribute('aria-expanded')") == "true"
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert "Bird" not in rows(page)


def test_what_is_shown_can_be_saved(page: Browser, tagged: Path, tmp_path: Path) -> None:
    type_label(page, "Bird")
    table = saved(page, "labels", tmp_path)
    assert table.label.tolist() == ["Bird"]
    assert table.mid.tolist() == ["/m/015p6"]
    scores = read_scores(tagged, labels="Bird")
    assert table.seconds[0] == pytest.approx((scores.end_s - scores.start_s)[scores.Bird >= 0.5].sum(), abs=0.01)
    moments = saved(page, "moments", tmp_path)
    assert set(moments.kind) == {"certain"}
    best = scores.loc[scores.Bird.idxmax()]
    assert (moments.recording[0], moments.start_s[0]) == (best.recording, pytest.approx(best.start_s))
    cells = saved(page, "when", tmp_path)
    assert cells.seconds_recorded.sum() == pytest.approx(len(scores) * CHUNK_S, abs=0.1)
    parts = saved(page, "recordings", tmp_path)
    assert parts.groupby("recording").highest_score.max().max() == pytest.approx(scores.Bird.max(), abs=0.005)


def test_doubtful_moments_follow_the_slider(browser: Browser, tmp_path: Path) -> None:
    peaks = [0.26, 0.33, 0.45, 0.56, 0.76, 0.83, 0.95, 0.97]
    bird = [score for peak in peaks for score in (peak, 0.1, 0.1, 0.1)]
    write_output(tmp_path / "out", {"a.wav": scores_of(len(bird), Bird=bird)})
    report(tmp_path / "out", "--labels", "Bird")
    browser.open(tmp_path / "out" / "report.html")
    script = "return [...document.querySelectorAll('.pair > div')].map(column => column.innerText)"
    for threshold, near in (("0.3", ["0.33", "0.26"]), ("0.8", ["0.83", "0.76"]), ("0.5", ["0.45", "0.56"])):
        set_threshold(browser, threshold)
        certain, doubtful = browser.run(script)
        assert re.findall(r"Bird (\S+)", certain) == ["0.97", "0.95"]
        assert re.findall(r"Bird (\S+)", doubtful) == near
        assert f"nearest to {threshold}," in doubtful


def test_a_moment_is_seen(page: Browser) -> None:
    script = """
        const canvas = document.querySelector('.spectrogram');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        return new Set(new Uint32Array(data.buffer)).size;
    """
    page.wait(f"return (() => {{ {script} }})() > 50")  # colours


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_that_keeps_people_out(page: Browser, scheme: str) -> None:
    pytest.importorskip("axe_playwright_python", reason="make install")
    page.scheme(scheme)
    unfold(page)
    page.run(resources.files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8"))
    found = page.driver.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
    assert len(found["passes"]) > 20
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []


def test_the_filter_changes_everything_that_is_shown(page: Browser) -> None:
    assert {"speech", "birds", "music"} <= rows(page).keys()
    assert set(maps(page, "recordings")) == set(SOUNDS)
    set_threshold(page, "0.6")
    type_label(page, "Speech")
    assert list(rows(page)) == ["Speech"]  # not those that have "speech" in their names
    assert maps(page, "when") == ["Labels over time", "Speech"]
    assert maps(page, "recordings") == ["speech_16k_mono.WAV"]
    moments = page.run("return [...document.querySelectorAll('.moment b')].map(b => b.textContent)")
    assert set(moments) == {"Speech"}
    type_label(page, "no such label")
    assert rows(page) == {}
    assert "No label matches." in page.run("return document.getElementById('labels').textContent")
    page.driver.find_element(By.CSS_SELECTOR, "button[type=reset]").click()
    page.wait("return document.querySelectorAll('#labels tbody tr').length > 2")
    page.driver.find_element(By.XPATH, "//tbody//button[.='birds']").click()
    assert list(rows(page)) == ["birds"]
    assert page.run("return document.activeElement.textContent") == "birds"
    page.driver.find_element(By.XPATH, "//tbody//button[.='birds']").click()
    assert len(rows(page)) > 2


def test_a_higher_threshold_shows_less(page: Browser) -> None:
    def drawn() -> str:
        return page.run("return document.querySelector('#recordings canvas[tabindex]').toDataURL()")  # type: ignore[no-any-return]

    type_label(page, "Bird")
    before = drawn()
    set_threshold(page, "0.8")
    assert drawn() != before
    set_threshold(page, "0.9")
    assert rows(page) == {}
    assert maps(page, "recordings") == []


def test_a_map_tells_what_it_shows_by_mouse_and_by_key(deployment: Path, browser: Browser) -> None:
    browser.resize(WIDE)
    browser.errors()
    browser.open(deployment)
    type_label(browser, "Bird")
    assert maps(browser, "when") == ["Labels over time", "Recorded", "Bird"]
    effort, canvas = browser.driver.find_elements(By.CSS_SELECTOR, "#when canvas[tabindex]")[1:]
    effort.send_keys(Keys.ARROW_DOWN * 3)
    effort_told = "return document.querySelectorAll('#when output')[1].textContent"
    assert browser.run(effort_told) == "1 May 2025, 02:00–03:00: 30.0 min recorded"
    assert canvas.get_attribute("aria-label").startswith("Bird. up to 100 % of the time.")
    told = "return document.querySelectorAll('#when output')[2].textContent"
    canvas.send_keys(Keys.ARROW_DOWN)
    assert browser.run(told) == "1 May 2025, 00:00–01:00: no recording"
    canvas.send_keys(Keys.ARROW_DOWN * 2)
    assert browser.run(told) == "1 May 2025, 02:00–03:00: 0 % of 30.0 min"
    canvas.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.run(told) == "3 May 2025, 03:00–04:00: 100 % of 30.0 min"
    browser.run(
        "const box = arguments[0].getBoundingClientRect();"
        "const at = {clientX: box.left + 0.5 / 15 * box.width, clientY: box.top + 3.5 / 24 * box.height};"
        "arguments[0].dispatchEvent(new PointerEvent('pointermove', at))",
        canvas,
    )
    assert browser.run(told) == "1 May 2025, 03:00–04:00: 100 % of 30.0 min"
    text = browser.run("return document.body.innerText")
    assert "1 May 2025 02:30 to 15 May 2025 03:30 (Europe/Berlin)" in text
    ticks = browser.run("return [...document.querySelector('#when .ticks').children].map(tick => tick.textContent)")
    assert ticks[0] == "1 May"
    assert len(set(ticks)) == len(ticks)  # no date twice
    assert browser.errors() == []


def test_moments_can_be_heard(page: Browser) -> None:
    count = page.run("return document.querySelectorAll('audio').length")
    assert count >= 3
    page.run("window.heard = document.querySelector('audio'); heard.muted = true; heard.play()")
    page.wait("return heard.currentTime > 0.3")
    assert 2 < page.run("return heard.duration") < 7
    assert page.run("return heard.error") is None
    assert page.errors() == []


def test_every_control_is_reached_by_the_tab_key(page: Browser) -> None:
    type_label(page, "speech")
    controls = "a[href], button, input, audio, [tabindex='0']"
    wanted = page.run(f'window.wanted = [...document.querySelectorAll("{controls}")]; return wanted.length')
    page.run("wanted[0].focus()")
    reached = [0]
    for _ in range(12 * wanted):  # a player has several buttons
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
        number = page.run("return wanted.indexOf(document.activeElement)")
        if number in reached[:-1]:
            break
        if number not in (-1, reached[-1]):
            reached.append(number)
    assert reached == list(range(wanted))  # all, in the order in which they are read
    unnamed = page.run(
        "return wanted.filter(e => !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert unnamed == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_is_readable_on_a_phone(page: Browser, scheme: str) -> None:
    page.scheme(scheme)
    page.resize(PHONE, 740)
    page.wait(f"return innerWidth === {PHONE}")
    page.run("document.querySelectorAll('button.more').forEach(button => button.click())")
    assert page.run("return document.documentElement.scrollWidth") == PHONE
    wide = page.run(
        "return [...document.body.querySelectorAll('*')].filter(e => !e.matches('.skip')"
        f" && e.getBoundingClientRect().right > {PHONE} + 0.5).map(e => e.outerHTML.slice(0, 80))"
    )
    assert wide == []
    texts = page.run(
        """
        const found = [];
        const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
          const parent = walker.currentNode.parentElement;
          if (!walker.currentNode.data.trim() || parent.closest('script, noscript, datalist')) continue;
          if (!parent.checkVisibility()) continue;
          let under = parent;
          while (getComputedStyle(under).backgroundColor === 'rgba(0, 0, 0, 0)') under = under.parentElement;
          const style = getComputedStyle(parent);
          const back = getComputedStyle(under).backgroundColor;
          found.push([walker.currentNode.data.trim(), style.fontSize, style.color, back]);
        }
        return found;
        """
    )
    assert len(texts) > 100
    assert [text for text, size, *_ in texts if float(size.removesuffix("px")) < MIN_FONT_PX] == []
    assert [text for text, _, ink, paper in texts if contrast(ink, paper) < MIN_CONTRAST] == []
    dark_paper = luminance(texts[0][3]) < 0.1
    assert dark_paper == (scheme == "dark")


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = np.array([int(part) for part in re.findall(r"\d+", colour)[:3]]) / 255
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_a_page_of_a_year_opens_fast(browser: Browser, tmp_path: Path) -> None:
    """A page with as many numbers as one can have, which do not compress, and as much sound."""
    labels = [label.name for label in weak_labels()[:MAX_LABELS]]
    day = {name: scores_of(MAX_PARTS, **dict.fromkeys(labels, [0.9] * MAX_PARTS)) for name in "abcdefgh"}
    write_output(tmp_path / "out", day)
    set_clock(tmp_path / "out", {name: (datetime(2025, 1, 1, hour, tzinfo=UTC), None) for hour, name in enumerate(day)})
    found = collect(tmp_path / "out", ReportOptions(labels=labels, audio=False))
    rng = np.random.default_rng(0)
    days = tuple(str(np.datetime64("2025-01-01") + number) for number in range(MAX_DAYS))
    hours = tuple(f"{hour:02}:00" for hour in range(24))
    shape = (len(hours), len(days))
    sound = [rng.bytes(MAX_BYTES // len(found.moments)) for _ in found.moments]
    moments = [replace(each, excerpt=Excerpt(audio)) for each, audio in zip(found.moments, sound, strict=True)]
    scores = rng.integers(0, 201, (MAX_DETAILS, MAX_CURVES, MAX_PARTS), np.uint8)
    year = replace(
        found,
        grid=replace(found.grid, rows=hours, columns=days, minutes=60),
        chunks=rng.integers(1, 1876, shape),
        shares=rng.integers(0, 256, (*found.shares.shape[:2], *shape), np.uint8),
        details=tuple(replace(found.details[0], scores=some, labels=tuple(range(MAX_CURVES))) for some in scores),
        moments=tuple(moments),
    )
    place = page_of.write(year, tmp_path / "year.html")
    assert 10e6 < place.stat().st_size < 15e6
    browser.resize(WIDE)
    assert 0.1 < min(browser.processor_time_s(place) for _ in range(3)) < 3
    assert browser.run("return document.querySelectorAll('#when canvas').length") > 6


def test_a_page_of_nothing_says_so(browser: Browser, tmp_path: Path) -> None:
    write_output(tmp_path / "out", {"<b>&.wav": scores_of(0)})
    report(tmp_path / "out")
    browser.errors()
    browser.open(tmp_path / "out" / "report.html")
    text = browser.run("return document.body.innerText")
    assert "There are no scores to show." in text
    assert "<b>&.wav" in text
    assert "empty: a header without samples" in text
    assert browser.errors() == []
