"""A headless Chromium for the tests of pages."""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

_SWITCHES = (
    "headless=new no-sandbox disable-gpu disable-quic no-first-run disable-background-networking "
    "disable-component-update disable-sync autoplay-policy=no-user-gesture-required"
)
_LOCAL = ("file:", "data:", "blob:", "about:")


class Browser:
    """A browser with one window."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        """Open a file and wait until its script has finished."""
        self.driver.get(page.as_uri())
        self.wait("return document.documentElement.dataset.ready")

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def wait(self, script: str, timeout_s: float = 20) -> Any:
        """Run a script repeatedly until it returns a true value; return that value."""
        end = time.monotonic() + timeout_s
        while not (value := self.run(script)):
            assert time.monotonic() < end, f"never true: {script}"
            time.sleep(0.02)
        return value

    def processor_time_s(self, page: Path) -> float:
        """Open a file; return the processor time of the page's thread, on which other programs have little effect."""
        self.driver.execute_cdp_cmd("Performance.enable", {"timeDomain": "threadTicks"})
        self.open(page)
        metrics = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        self.driver.execute_cdp_cmd("Performance.disable", {})
        return float(next(each["value"] for each in metrics if each["name"] == "TaskDuration"))

    def resize(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def scheme(self, name: str) -> None:
        """Set the preferred colour scheme, "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def errors(self) -> list[str]:
        """Return the messages of the console since the last call."""
        return [f"{entry['level']}: {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Return the URLs requested since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


def outside(urls: list[str]) -> list[str]:
    """Return the URLs that are neither files of this machine nor parts of the page itself."""
    return [url for url in urls if not url.startswith(_LOCAL)]


@contextmanager
def started() -> Iterator[Browser]:
    """Start a browser; if none is installed, the test is skipped, or fails in CI."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    chromedriver = shutil.which("chromedriver")
    if not (chromium and chromedriver):
        reason = "install a browser: apt-get install chromium chromium-driver"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as folder:
        options = webdriver.ChromeOptions()
        options.binary_location = chromium
        for switch in (*_SWITCHES.split(), f"user-data-dir={folder}"):
            options.add_argument(f"--{switch}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options, Service(chromedriver))
        try:
            driver.execute_cdp_cmd("Network.enable", {})
            yield Browser(driver)
        finally:
            driver.quit()
