"""Sounds made by formula: noise through filters, impulses, engines, tones.

Each family takes a random generator and a number of samples at 16 kHz, and returns a waveform [n] at any level, with
random parameters.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from satpipe.sat.model.config import SAMPLE_RATE_HZ

Waveform = npt.NDArray[np.float64]
Family = Callable[[np.random.Generator, int], Waveform]


def wind(rng: np.random.Generator, n: int) -> Waveform:
    """Return low noise in gusts, sometimes with a whistling resonance."""
    gusts = _slow(rng, n, rng.uniform(0.1, 1.0))
    sound = gusts**2 * _noise(rng, n, slope=rng.uniform(1.0, 2.0), high_hz=rng.uniform(300, 3000))
    if rng.random() < 0.4:
        whistle = _noise(rng, n, resonances_hz=[rng.uniform(400, 2500)], width=0.05)
        sound = _rms(sound) + rng.uniform(0.1, 1.0) * gusts**3 * _rms(whistle)
    return sound


def waves(rng: np.random.Generator, n: int) -> Waveform:
    """Return noise that swells every few seconds, with foam that fades after each crest."""
    t = _seconds(n)
    period_s, phase = rng.uniform(3, 12), rng.uniform(0, 1)
    place = (t / period_s + phase + 0.1 * _slow(rng, n, 0.3)) % 1
    crest = rng.uniform(0.3, 0.7)
    swell = np.where(place < crest, place / crest, (1 - place) / (1 - crest)) ** rng.uniform(1, 3)
    foam = np.where(place < crest, 0, np.exp(-(place - crest) * rng.uniform(2, 8)))
    low = _noise(rng, n, slope=rng.uniform(0.5, 1.5), high_hz=rng.uniform(800, 4000))
    high = _noise(rng, n, slope=rng.uniform(-0.2, 0.5), low_hz=rng.uniform(500, 2000))
    return _rms(low) * (rng.uniform(0.05, 0.3) + swell) + rng.uniform(0.1, 0.8) * _rms(high) * foam


def rain(rng: np.random.Generator, n: int) -> Waveform:
    """Return steady noise and drops on a surface, from drizzle to a downpour."""
    bed = _noise(rng, n, slope=rng.uniform(-0.3, 0.7), low_hz=rng.uniform(50, 1000))
    drops = _impulses(rng, n, 10 ** rng.uniform(0.7, 3.0), spread=rng.uniform(0.5, 1.5))
    surface = _struck(rng, count=int(rng.integers(1, 5)), hz=(400, 6000), decay_s=(0.002, 0.02))
    return rng.uniform(0.1, 1.0) * _rms(bed) + rng.uniform(0.2, 1.5) * _rms(_convolved(drops, surface))


def stream(rng: np.random.Generator, n: int) -> Waveform:
    """Return bubbles, which are decaying tones of rising pitch, above a bed of noise: a tap, a brook, pouring."""
    sound = rng.uniform(0.02, 0.5) * _rms(_noise(rng, n, slope=rng.uniform(0.2, 1.2), low_hz=rng.uniform(50, 500)))
    low_hz = rng.uniform(200, 900)
    high_hz = low_hz * rng.uniform(2, 6)
    bubbles = np.zeros(n)
    for start in rng.integers(0, n, rng.poisson(n / SAMPLE_RATE_HZ * 10 ** rng.uniform(0.7, 2.3))):
        length = min(n - start, int(SAMPLE_RATE_HZ * rng.uniform(0.01, 0.12)))
        t = _seconds(length)
        hz = np.exp(rng.uniform(np.log(low_hz), np.log(high_hz)))
        pitch = 2 * np.pi * hz * (t + rng.uniform(0, 4) * t**2)
        bubbles[start : start + length] += rng.exponential() * np.sin(pitch) * np.exp(-5 * t / (t[-1] + 1e-3))
    return sound + _rms(bubbles)


def fire(rng: np.random.Generator, n: int) -> Waveform:
    """Return a low roar with crackling: short clicks of very different strength."""
    roar = _slow(rng, n, rng.uniform(1, 5)) * _noise(rng, n, slope=rng.uniform(1, 2), high_hz=rng.uniform(200, 1500))
    sound = rng.uniform(0.05, 1.0) * _rms(roar)
    for _ in range(rng.integers(1, 4)):
        clicks = _impulses(rng, n, 10 ** rng.uniform(0.3, 2.0), spread=rng.uniform(1.0, 2.0))
        snap = _struck(rng, count=int(rng.integers(1, 4)), hz=(800, 7500), decay_s=(0.0005, 0.008))
        sound += rng.uniform(0.2, 1.5) * _rms(_convolved(clicks, snap))
    return sound


def engine(rng: np.random.Generator, n: int) -> Waveform:
    """Return firing pulses of a changing rate through the resonances of an exhaust: idling, driving, sawing."""
    rate_hz = np.exp(rng.uniform(np.log(12), np.log(220)))
    speed = rate_hz * np.exp(rng.uniform(0, 0.5) * (_slow(rng, n, rng.uniform(0.1, 1.5)) - 0.5))
    if rng.random() < 0.3:  # the throttle is opened and closed
        speed *= 1 + rng.uniform(0.3, 1.5) * (_slow(rng, n, rng.uniform(0.3, 1.0)) > rng.uniform(0.4, 0.7))
        speed = _smoothed(speed, 0.3)
    phase = np.cumsum(speed * (1 + rng.uniform(0, 0.05) * rng.standard_normal(n))) / SAMPLE_RATE_HZ
    pulse = np.exp(-(phase % 1) * rng.uniform(2, 20))
    firing = pulse * (1 + rng.uniform(0, 0.5) * np.cos(np.pi * np.floor(phase)))  # cylinders differ
    exhaust = _struck(rng, count=int(rng.integers(2, 7)), hz=(60, 3500), decay_s=(0.002, 0.03))
    sound = _rms(_convolved(firing - firing.mean(), exhaust))
    hiss = _noise(rng, n, slope=rng.uniform(0, 1.5), low_hz=rng.uniform(50, 800)) * (rng.uniform(0, 1) + pulse)
    sound += rng.uniform(0.05, 0.8) * _rms(hiss)
    return np.tanh(rng.uniform(0.3, 3.0) * sound)


def rotor(rng: np.random.Generator, n: int) -> Waveform:
    """Return blades that chop noise, with a turbine's tone: helicopters, propellers, fans."""
    rate_hz = rng.uniform(6, 90)
    phase = np.cumsum(rate_hz * (1 + 0.05 * (_slow(rng, n, 0.3) - 0.5))) / SAMPLE_RATE_HZ
    chop = np.exp(-(phase % 1) * rng.uniform(1, 10))
    sound = _rms(chop * _noise(rng, n, slope=rng.uniform(0.3, 1.8), high_hz=rng.uniform(600, 6000)))
    thump = _struck(rng, count=2, hz=(40, 300), decay_s=(0.01, 0.05))
    sound += rng.uniform(0, 1.5) * _rms(_convolved(np.diff(np.floor(phase), prepend=0), thump))
    if rng.random() < 0.5:
        tone_hz = rng.uniform(300, 4000) * (1 + 0.02 * (_slow(rng, n, 0.5) - 0.5))
        sound += rng.uniform(0.02, 0.4) * np.sin(2 * np.pi * np.cumsum(tone_hz) / SAMPLE_RATE_HZ)
    distance = np.exp(rng.uniform(-1.5, 1.5) * np.linspace(-1, 1, n))  # comes nearer or goes away
    return sound * distance


def machine(rng: np.random.Generator, n: int) -> Waveform:
    """Return a hum with harmonics and a bed of noise: vacuum cleaners, air conditioning, drills, jets."""
    hz = np.exp(rng.uniform(np.log(50), np.log(900))) * (1 + rng.uniform(0, 0.1) * (_slow(rng, n, 0.5) - 0.5))
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    strengths = [rng.exponential() / k ** rng.uniform(0.3, 1.5) for k in range(1, 12)]
    hum = _harmonics(phase, strengths)
    bed = _noise(
        rng, n, slope=rng.uniform(-0.2, 1.5), resonances_hz=list(rng.uniform(100, 5000, rng.integers(0, 4))), width=0.3
    )
    sound = rng.uniform(0, 1.0) * _rms(hum) + rng.uniform(0.2, 1.0) * _rms(bed)
    if rng.random() < 0.3:  # switched on or off
        sound *= _smoothed((_seconds(n) > rng.uniform(0.5, 5)) == (rng.random() < 0.5), 0.5)
    return sound


def ticking(rng: np.random.Generator, n: int) -> Waveform:
    """Return blows at regular or irregular intervals on something that resonates: clocks, keys, hammers, hooves."""
    every_s = np.exp(rng.uniform(np.log(0.08), np.log(1.5)))
    uneven = rng.choice([0.0, 0.02, 0.3])
    steps_s = every_s * np.clip(1 + uneven * rng.standard_normal(int(10 * n / SAMPLE_RATE_HZ / every_s) + 2), 0.2, 3)
    places = (np.cumsum(steps_s) * SAMPLE_RATE_HZ).astype(int)
    places = places[places < n]
    sound = np.zeros(n)
    for parity in range(rng.integers(1, 3)):  # tick and tock
        blows = np.zeros(n)
        blows[places[parity::2]] = rng.uniform(0.5, 1.0)
        body = _struck(rng, count=int(rng.integers(1, 6)), hz=(150, 7000), decay_s=(0.001, 0.05))
        sound += _rms(_convolved(blows, body))
    return sound + rng.uniform(0, 0.1) * _rms(_noise(rng, n, slope=rng.uniform(0, 1.5)))


def bell(rng: np.random.Generator, n: int) -> Waveform:
    """Return long, inharmonic tones: bells, glasses, metal."""
    blows = _impulses(rng, n, rng.uniform(0.2, 6), spread=0.3)
    base_hz = np.exp(rng.uniform(np.log(150), np.log(3000)))
    body = _struck(rng, count=int(rng.integers(3, 9)), hz=(base_hz, min(7900, 5 * base_hz)), decay_s=(0.05, 1.5))
    return _convolved(blows, body)


def alarm(rng: np.random.Generator, n: int) -> Waveform:
    """Return tones that alternate, sweep or beep: sirens, alarms, horns, telephones."""
    t = _seconds(n)
    place = (t * np.exp(rng.uniform(np.log(0.15), np.log(8)))) % 1
    low, high = np.sort(rng.uniform(300, 3500, 2))
    shape = rng.integers(4)
    sweep = [0.5 - 0.5 * np.cos(2 * np.pi * place), place, (place > 0.5) * 1.0, np.zeros(n)][shape]
    hz = low * (high / low) ** sweep
    phase = 2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ
    sound = _harmonics(phase, [rng.uniform(0, 1) / k for k in range(1, 6)])
    if shape == 3 or rng.random() < 0.2:
        sound = sound * _smoothed(place < rng.uniform(0.3, 0.8), 0.005)
    return _rms(sound) + rng.uniform(0, 0.3) * _rms(_noise(rng, n, slope=rng.uniform(0.3, 1.5)))


def calls(rng: np.random.Generator, n: int) -> Waveform:
    """Return series of swept chirps: birds, frogs, crickets, cicadas."""
    base_hz = np.exp(rng.uniform(np.log(400), np.log(6500)))
    length_s, every_s = np.exp(rng.uniform(np.log(0.01), np.log(0.4))), np.exp(rng.uniform(np.log(0.03), np.log(2)))
    shape = rng.uniform(-1.5, 1.5, 2)
    sound = np.zeros(n)
    start_s = rng.uniform(0, every_s)
    while start_s < n / SAMPLE_RATE_HZ:
        start = int(start_s * SAMPLE_RATE_HZ)
        length = min(n - start, int(length_s * SAMPLE_RATE_HZ) + 1)
        x = np.arange(length) / (length_s * SAMPLE_RATE_HZ)
        hz = np.minimum(base_hz * np.exp(0.3 * (shape[0] * x + shape[1] * np.sin(2 * np.pi * x))), 7800)
        chirp = np.sin(2 * np.pi * np.cumsum(hz) / SAMPLE_RATE_HZ)
        sound[start : start + length] += rng.uniform(0.6, 1.0) * chirp * np.sin(np.pi * np.minimum(x, 1))
        start_s += every_s * rng.uniform(0.8, 1.2) * (8 if rng.random() < 0.1 else 1)
    return _rms(sound) + rng.uniform(0.01, 0.3) * _rms(_noise(rng, n, slope=rng.uniform(0.3, 1.5)))


FAMILIES: dict[str, Family] = {
    family.__name__: family
    for family in (wind, waves, rain, stream, fire, engine, rotor, machine, ticking, bell, alarm, calls)
}


def _seconds(n: int) -> Waveform:
    return np.arange(n) / SAMPLE_RATE_HZ


def _rms(sound: Waveform) -> Waveform:
    """Return the sound at an rms of 1."""
    scaled: Waveform = sound / (np.sqrt(np.mean(sound**2)) + 1e-9)
    return scaled


def _harmonics(phase: Waveform, strengths: list[float]) -> Waveform:
    sound = np.zeros(len(phase))
    for k, strength in enumerate(strengths, start=1):
        sound += strength * np.sin(k * phase)
    return sound


def _noise(
    rng: np.random.Generator,
    n: int,
    *,
    slope: float = 0.0,
    low_hz: float = 20.0,
    high_hz: float = SAMPLE_RATE_HZ / 2,
    resonances_hz: list[float] | None = None,
    width: float = 0.2,
) -> Waveform:
    """Return noise with a spectrum of f^-slope between two limits, raised around resonances of a relative width."""
    hz = np.fft.rfftfreq(n, 1 / SAMPLE_RATE_HZ).clip(min=1)
    shape = (hz / 1000) ** -slope / np.sqrt((1 + (low_hz / hz) ** 4) * (1 + (hz / high_hz) ** 6))
    for centre_hz in resonances_hz or []:
        shape *= 1 + 10 * np.exp(-((np.log(hz / centre_hz) / width) ** 2))
    return _rms(np.fft.irfft(np.fft.rfft(rng.standard_normal(n)) * shape, n))


def _slow(rng: np.random.Generator, n: int, rate_hz: float) -> Waveform:
    """Return a curve between 0 and 1 that changes about `rate_hz` times a second."""
    points = rng.random(max(4, int(n / SAMPLE_RATE_HZ * rate_hz) + 3))
    x = np.linspace(0, len(points) - 1, n)
    left = x.astype(int).clip(max=len(points) - 2)
    smooth = 0.5 - 0.5 * np.cos(np.pi * (x - left))
    curve: Waveform = points[left] * (1 - smooth) + points[left + 1] * smooth
    return curve


def _smoothed(curve: npt.NDArray[np.generic], seconds: float) -> Waveform:
    """Return the running mean of a curve."""
    window = max(1, int(seconds * SAMPLE_RATE_HZ))
    padded = np.concatenate([np.full(window, curve[0], dtype=np.float64), curve.astype(np.float64)])
    sums = np.cumsum(padded)
    means: Waveform = (sums[window:] - sums[:-window]) / window
    return means


def _impulses(rng: np.random.Generator, n: int, rate_hz: float, spread: float) -> Waveform:
    """Return impulses at random times, of log-normally distributed strength."""
    sound = np.zeros(n)
    places = rng.integers(0, n, max(1, rng.poisson(rate_hz * n / SAMPLE_RATE_HZ)))
    np.add.at(sound, places, rng.choice([-1, 1], len(places)) * np.exp(spread * rng.standard_normal(len(places))))
    return sound


def _struck(rng: np.random.Generator, *, count: int, hz: tuple[float, float], decay_s: tuple[float, float]) -> Waveform:
    """Return the response of a body to a blow: decaying tones of random pitch, and a click."""
    t = _seconds(int(5 * decay_s[1] * SAMPLE_RATE_HZ) + 16)
    response = np.zeros(len(t))
    for _ in range(count):
        pitch_hz = np.exp(rng.uniform(*np.log(hz)))
        decay = np.exp(rng.uniform(*np.log(decay_s)))
        response += rng.exponential() * np.sin(2 * np.pi * pitch_hz * t) * np.exp(-t / decay)
    response[:16] += rng.uniform(0, 0.5) * rng.standard_normal(16)
    return response


def _convolved(sound: Waveform, response: Waveform) -> Waveform:
    size = len(sound) + len(response)
    whole: Waveform = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(response, size), size)
    return whole[: len(sound)]
