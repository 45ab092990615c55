"""Make scenes, events over a background, block by block."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event as Flag

import numpy as np
import soundfile
from satpipe.jobs.options.measure import SynthOptions
from satpipe.jobs.synth.inputs import CROSS_FADE_SAMPLES, MAX_EVENT_SAMPLES, Background, Clip
from satpipe.jobs.synth.placement import Event, crowd, draw_events
from satpipe.jobs.synth.sound import Library, Stream, noise
from satpipe.pipeline.recordings.resample import Samples
from satpipe.pipeline.storage import written_whole
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

BLOCK_SAMPLES = 30 * SAMPLE_RATE_HZ
FADE_SAMPLES = SAMPLE_RATE_HZ // 200
LATEST_START_SAMPLES = 600 * SAMPLE_RATE_HZ  # in a background that must be decoded from its beginning
FLOOR_DB = -70
SCENE_PEAK = 0.99
LARGEST_WAV_BYTES = 2**32 - 2**16


@dataclass(frozen=True)
class Scene:
    """A finished scene."""

    file: str
    background: str
    """Name of the background, "" for noise."""
    events: list[Event]
    """In the order of their onsets."""
    reached_db: list[float]
    """Signal-to-noise ratio of each event."""
    left_out: int
    """Number of events that did not fit."""


class SceneMaker:
    """Makes scenes from given sources, in any order and in any thread.

    Attributes:
        stop: Set it to stop scenes that are being made.
    """

    def __init__(self, options: SynthOptions, clips: list[list[Clip]], backgrounds: list[Background]) -> None:
        """Take the clips of each label, and the backgrounds to draw from; without backgrounds, noise is used."""
        self.stop = Flag()
        self._options, self._clips, self._backgrounds = options, clips, backgrounds
        self._library = Library()

    def make(self, number: int) -> Scene:
        """Draw a scene and write its audio."""
        options = self._options
        rng = np.random.default_rng([options.seed, number])
        events, left_out = draw_events(rng, self._clips, options)
        name, background = self._background(rng)
        file = f"scene_{number:05d}.{options.format}"
        large = 2 * options.samples > LARGEST_WAV_BYTES
        format = {"flac": "FLAC", "wav": "RF64" if large else "WAV"}[options.format]
        with (
            written_whole(options.folder / "audio" / file) as path,
            soundfile.SoundFile(path, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format=format) as audio,
        ):
            reached_db = self._render(events, Stream(background), audio)
        return Scene(file, name, events, reached_db, left_out)

    def _render(self, events: list[Event], background: Stream, audio: soundfile.SoundFile) -> list[float]:
        """Write a scene block by block; return the signal-to-noise ratio of each event."""
        samples, end = self._options.samples, 0
        reached_db: list[float] = []
        under = mixed = np.empty(0, np.float32)  # the background, alone and with events, from `begin` to `end`
        for begin in range(0, samples, BLOCK_SAMPLES):
            if self.stop.is_set():
                raise OutputError("stopped")
            ahead = min(begin + BLOCK_SAMPLES + MAX_EVENT_SAMPLES, samples)
            new, end = background.take(ahead - end), ahead
            under, mixed = np.concatenate([under, new]), np.concatenate([mixed, new])
            while len(reached_db) < len(events) and events[len(reached_db)].onset < begin + BLOCK_SAMPLES:
                event = events[len(reached_db)]
                place = slice(event.onset - begin, event.offset - begin)
                sound, ratio_db = self._sound(event, crowd(event, events), under[place])
                mixed[place] += sound
                reached_db.append(ratio_db)
            # libsndfile rounds differently for FLAC and WAV, so samples are rounded here.
            audio.write(np.rint(mixed[:BLOCK_SAMPLES] * 2**15).astype(np.int16))
            under, mixed = under[BLOCK_SAMPLES:], mixed[BLOCK_SAMPLES:]
        return reached_db

    def _sound(self, event: Event, shares: int, under: Samples) -> tuple[Samples, float]:
        """Return an event at its level in the mix, and its signal-to-noise ratio."""
        clip = event.clip
        sound = self._library.part(clip, clip.start, clip.stop)[: len(under)].copy()
        fade = min(FADE_SAMPLES, len(sound) // 2)
        rise = np.linspace(0, 1, fade, dtype=np.float32)
        sound[:fade] *= rise
        sound[len(sound) - fade :] *= rise[::-1]
        noise_power, power, peak = _power(under), _power(sound), float(np.abs(sound).max())
        if not power:  # the table states a longer sound, but the part before the scene's end is silent
            return sound, -math.inf
        wanted = 10 ** (event.snr_db / 20) * math.sqrt(noise_power / power)
        gain = min(wanted, (SCENE_PEAK - float(np.abs(under).max())) / shares / peak)
        return sound * np.float32(gain), 10 * math.log10(gain**2 * power / noise_power)

    def _background(self, rng: np.random.Generator) -> tuple[str, Iterator[Samples]]:
        """Draw a background; return its name and its sound, repeated endlessly."""
        chance = rng.spawn(1)[0]
        if not self._backgrounds:
            return "", noise(chance, self._options.background_db)
        drawn = self._backgrounds[rng.integers(len(self._backgrounds))]
        latest = max(0, drawn.samples - max(self._options.samples, CROSS_FADE_SAMPLES))
        if not drawn.info.exact_seek:
            latest = min(latest, LATEST_START_SAMPLES)
        recorded = self._library.repeated(drawn, int(rng.integers(latest + 1)))
        floor = Stream(noise(chance, FLOOR_DB))
        return drawn.source.recording, (np.float32(drawn.gain) * block + floor.take(len(block)) for block in recorded)


def _power(sound: Samples) -> float:
    return float(np.square(sound, dtype=np.float64).mean())
