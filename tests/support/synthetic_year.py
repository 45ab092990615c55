"""A year of synthetic scores, as `satpipe tag` would write them for two recorders that ran for half a year each.

    python tests/support/synthetic_year.py FOLDER [DAYS]
    python tests/support/synthetic_year.py FOLDER DAYS embeddings

The second command writes embeddings instead, and no scores and tags: noise around a direction for each hour.

Recordings of one hour, named like those of an AudioMoth, in a folder for each site: `meadow/20250101_000000.WAV`. Birds
sing from before sunrise, most in June; crickets after sunset from May; traffic has rush hours except on Sundays; bells
strike the hour; on some days it rains, and on summer evenings it thunders. Scores rise and fall over several chunks.
Other classes are noise near 0. Scores are multiples of 1/1024, so that a year needs only 5 GB. Hours are UTC.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from satpipe.jobs.options.tag import TagOptions
from satpipe.jobs.tag.job import describe
from satpipe.pipeline.tables import schemas
from satpipe.pipeline.tables.batches import Finished, TableOptions
from satpipe.pipeline.tables.files import new_name, table_writer
from satpipe.pipeline.tables.output_folder import Output
from satpipe.pipeline.tables.schemas import Made, model_name, staged_table
from satpipe.pipeline.tables.staged import SpanOutcome
from satpipe.sat.labels import find
from satpipe.sat.model.config import BUNDLED, CLASSES, SAMPLE_RATE_HZ
from satpipe.sat.weights.registry import load_checkpoint
from scipy.special import expit, ndtri

FIRST_DAY = datetime(2025, 1, 1, tzinfo=UTC)
DAYS = 183  # of each site: together a year
SITES = ("meadow", "street")
HOUR_S = 3600
CHUNK_SAMPLES = 30_720
CHUNKS = HOUR_S * SAMPLE_RATE_HZ // CHUNK_SAMPLES  # 1875 per hour, without a remainder
HOURS_PER_FILE = 32  # as in a run of `tag`
NOISES = 8  # hours of the other classes' scores; each hour has one of them
RUN_CHUNKS = 7  # approximate time for a score to rise and fall
STEPS = 1024
Values = npt.NDArray[np.float64]


class Moments:
    """Time and place of chunks, [n] each."""

    def __init__(self, site: str, begin: datetime, chunks: int = CHUNKS) -> None:
        self.street, self.meadow = site == "street", site == "meadow"
        self.seconds = np.arange(chunks) * CHUNK_SAMPLES / SAMPLE_RATE_HZ
        self.hour = begin.hour + self.seconds / HOUR_S
        self.day = begin.timetuple().tm_yday
        self.sunday = begin.weekday() == 6
        self.summer = (1 - np.cos(2 * np.pi * (self.day + 10) / 365)) / 2  # 0 at Christmas, 1 at Midsummer
        self.sunrise, self.sunset = 8 - 4 * self.summer, 16 + 5 * self.summer
        weather = np.random.default_rng(self.day)
        self.rain_from, self.rainy, self.windy = weather.uniform(0, 20), weather.random() < 0.35, weather.random()
        self.thunder = self.summer > 0.7 and weather.random() < 0.2

    def around(self, hour: float, width: float) -> Values:
        """Return a bell curve around an hour of the day."""
        return np.exp(-(((self.hour - hour) / width) ** 2))


def birds(at: Moments) -> Values:
    light = (at.hour > at.sunrise - 1) & (at.hour < at.sunset + 0.5)
    song = 0.75 * at.around(at.sunrise, 1.0) + 0.25 * at.around(at.sunset, 1.0) + 0.12 * light
    return np.asarray(song * (0.1 + 0.9 * at.summer) * (1 if at.meadow else 0.3))


def crickets(at: Moments) -> Values:
    dark = (at.hour > at.sunset + 0.5) | (at.hour < at.sunrise - 1.5)
    return 0.85 * dark * at.meadow * (at.day > 120)


def owls(at: Moments) -> Values:
    return 0.02 * at.meadow * (at.around(1, 2) + at.around(23, 2))


def traffic(at: Moments) -> Values:
    rush = at.around(8, 1.2) + at.around(17.5, 1.5)
    day = 0.35 * ((at.hour > 6) & (at.hour < 22)) + 0.04
    return np.asarray((day + 0.45 * rush * (not at.sunday)) * (1 if at.street else 0.06))


def voices(at: Moments) -> Values:
    return at.around(15, 4) * (0.15 if at.street else 0.01)


def rain(at: Moments) -> Values:
    return 0.9 * at.rainy * ((at.hour > at.rain_from) & (at.hour < at.rain_from + 4))


def wind(at: Moments) -> Values:
    return np.asarray(0.3 * at.windy**3 * (0.3 + at.around(14, 5)))


def bells(at: Moments) -> Values:
    long_s = 300 if at.sunday and 10 <= at.hour[0] < 11 else 24
    return 0.97 * at.street * ((at.seconds < long_s) & (at.hour >= 7) & (at.hour < 22))


def sirens(at: Moments) -> Values:
    return np.full_like(at.hour, 0.004 * at.street)


def thunder(at: Moments) -> Values:
    return 0.25 * at.thunder * at.around(18, 1)


RULES: list[tuple[Callable[[Moments], Values], list[str]]] = [
    (birds, ["Bird", "Bird vocalization, bird call, bird song", "Chirp, tweet", "Wild animals", "Animal"]),
    (crickets, ["Cricket", "Insect"]),
    (owls, ["Owl", "Hoot"]),
    (traffic, ["Vehicle", "Traffic noise, roadway noise", "Car", "Motor vehicle (road)"]),
    (voices, ["Speech"]),
    (rain, ["Rain", "Rain on surface"]),
    (wind, ["Wind"]),
    (bells, ["Church bell", "Bell"]),
    (sirens, ["Emergency vehicle", "Siren"]),
    (thunder, ["Thunder", "Thunderstorm"]),
]
COLUMNS = np.array([find(label).index for _, labels in RULES for label in labels])
FAMILY = np.repeat(np.arange(len(RULES)), [len(labels) for _, labels in RULES])
WEAKER = np.concatenate([0.4 * np.arange(len(labels)) for _, labels in RULES])  # than the first of the family


def write_output(
    folder: str | Path,
    days: int = DAYS,
    sites: tuple[str, ...] = SITES,
    hours_of_day: Sequence[int] = range(24),
    seed: int = 0,
) -> None:
    """Write the tables as `satpipe tag` does; they are the same every time, except for the names of the files."""
    options = TagOptions(("by rule",), folder)
    run = describe(options, load_checkpoint(BUNDLED))
    table = TableOptions(
        run["id"], model_name(run["identity"]), CHUNK_SAMPLES, options.threshold, options.top_k, options.scores
    )
    output = Output(folder)
    hours = [
        (site, FIRST_DAY + timedelta(days=day, hours=hour))
        for site in sites
        for day in range(days)
        for hour in hours_of_day
    ]
    noises = _noises(seed)
    with output.claim(run):
        for first in range(0, len(hours), HOURS_PER_FILE):
            some = hours[first : first + HOURS_PER_FILE]
            rng = np.random.default_rng((seed, first))
            output.batches.publish(
                _stage(output, some, (_scores(Moments(*hour), noises, rng) for hour in some)), table, new_name()
            )
        output.finish()
        output.note(run | {"finished": run["started"]})


def write_embeddings(folder: str | Path, days: int = DAYS, sites: tuple[str, ...] = SITES, seed: int = 0) -> None:
    """Write the tables `recordings` and `embeddings`, with an empty `tags`."""
    checkpoint = load_checkpoint(BUNDLED)
    size = checkpoint.embedding_size
    run = describe(TagOptions(("by rule",), folder, scores=False), checkpoint, size)
    output = Output(folder)
    hours = [(site, FIRST_DAY + timedelta(hours=hour)) for site in sites for hour in range(24 * days)]
    rng = np.random.default_rng(seed)
    noises = rng.standard_normal((NOISES, CHUNKS, size), np.float32)
    chunks = np.arange(CHUNKS, dtype=np.int32)
    times = schemas.chunk_times(chunks, CHUNK_SAMPLES, HOUR_S)
    made = Made(run["id"], model_name(run["identity"]))
    with output.claim(run):
        for first in range(0, len(hours), HOURS_PER_FILE):
            some, name = hours[first : first + HOURS_PER_FILE], new_name()
            with table_writer(output.folder, "tags", name, schemas.TAGS):
                pass
            with table_writer(output.folder, "embeddings", name, schemas.embeddings_schema(size)) as writer:
                for hour in some:
                    direction = 2 * rng.standard_normal(size, np.float32)
                    values = direction + np.roll(noises[rng.integers(NOISES)], rng.integers(size), axis=1)
                    names = schemas.name_of_each([_name(*hour)], np.zeros(CHUNKS, np.int32))
                    writer.add(schemas.embedding_rows(names, chunks, values, times, made))
            rows = [{**_row(*hour), "tags": 0, **vars(made)} for hour in some]
            output.batches.commit(name, pa.Table.from_pylist(rows, schema=schemas.RECORDINGS))
        output.note(run | {"finished": run["started"], "batches": output.batches.names})


def _noises(seed: int) -> npt.NDArray[np.float32]:
    """Return the scores of classes that do not occur, [NOISES, CHUNKS, 527]."""
    rng = np.random.default_rng(seed)
    logit = rng.normal(-7, 0.7, CLASSES).astype(np.float32) + 1.2 * rng.standard_normal(
        (NOISES, CHUNKS, CLASSES), np.float32
    )
    return np.round(expit(logit) * STEPS) / STEPS


def _scores(at: Moments, noises: npt.NDArray[np.float32], rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Return the scores of an hour, [CHUNKS, 527]."""
    share = np.stack([rule(at) for rule, _ in RULES], axis=1)
    steps = rng.standard_normal((CHUNKS + RUN_CHUNKS, len(RULES)), np.float32).cumsum(axis=0)
    wave = (steps[RUN_CHUNKS:] - steps[:-RUN_CHUNKS]) / np.sqrt(RUN_CHUNKS)  # above ndtri(1 - p) for a share p
    logit = 3 * (wave + ndtri(np.clip(share, 1e-5, 0.999)))
    logit = logit[:, FAMILY] - WEAKER + 0.5 * rng.standard_normal((CHUNKS, len(COLUMNS)), np.float32)
    scores = noises[rng.integers(NOISES)].copy()
    scores[:, COLUMNS] = np.maximum(scores[:, COLUMNS], np.round(expit(logit) * STEPS) / STEPS)
    return scores


def _stage(output: Output, hours: list[tuple[str, datetime]], scores: Iterator[Any]) -> list[Finished]:
    names = [_name(*hour) for hour in hours]
    with output.staging.stage() as file:
        for place, values in enumerate(scores):
            file.write(staged_table([place] * CHUNKS, list(range(CHUNKS)), values))
        staged = file.conclude([SpanOutcome((name, 100, 0, 0, None), CHUNKS) for name in names])
    return [Finished(_row(*hour), [span]) for hour, span in zip(hours, staged, strict=True)]


def _name(site: str, begin: datetime) -> str:
    return f"{site}/{begin:%Y%m%d_%H%M%S}.WAV"


def _row(site: str, begin: datetime) -> dict[str, Any]:
    known = {"duration_s": float(HOUR_S), "rate_hz": 48_000, "channels": 1, "chunks": CHUNKS, "time": begin}
    return schemas.recording_row(_name(site, begin), 345_600_488, int(begin.timestamp() * 1e9), "ok", "", **known)


if __name__ == "__main__":
    write = write_embeddings if sys.argv[3:] == ["embeddings"] else write_output
    write(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else DAYS)
