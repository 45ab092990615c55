"""Sound scenes: their ground truth is exact to the sample."""

import csv
import json
import os
import shutil
import subprocess
import sys
import warnings
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
from audio import Samples, noise, probed, shorten, write
from conftest import ROOT, Satpipe
from encoded import encode
from filelock import FileLock
from satpipe.jobs import synth
from satpipe.jobs.ground_truth import match, read_strong, read_weak
from satpipe.jobs.options.measure import MIN_SAMPLES
from satpipe.jobs.synth import Clip, Event, Summary, SynthOptions, crowd, draw_events
from satpipe.jobs.synth.inputs import CROSS_FADE_SAMPLES, EXAMPLES, MAX_EVENT_SAMPLES, find_clips
from satpipe.jobs.synth.placement import GAP_SAMPLES
from satpipe.jobs.synth.sound import Library
from satpipe.pipeline.recordings.find import Source
from satpipe.sat.errors import AudioError, ConfigError, LabelError, OutputError, SatpipeError
from satpipe.sat.labels import find
from satpipe.sat.model.config import SAMPLE_RATE_HZ

RECORDINGS = ROOT / "examples" / "recordings"
TONES_HZ = {"Sine wave": 500, "Beep, bleep": 1500, "Bell": 3000}
SILENCE_S, SOUND_S = 0.3, 0.5
HOUR_MB = 100  # above the imports; the scene alone would take 230 MB


def tone(hz: float, seconds: float, rate_hz: int = SAMPLE_RATE_HZ) -> Samples:
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def between_silence(sound: Samples) -> Samples:
    silence = np.zeros(round(SILENCE_S * SAMPLE_RATE_HZ), np.float32)
    return np.concatenate([silence, sound, silence])


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A different tone for each of three classes, between silence."""
    folder = tmp_path_factory.mktemp("clips")
    for label, hz in TONES_HZ.items():
        (folder / label).mkdir()
        write(folder / label / "tone.wav", between_silence(tone(hz, SOUND_S)))
    return folder


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One recording of noise, 10 s."""
    folder = tmp_path_factory.mktemp("street")
    write(folder / "street.wav", 0.2 * noise(10 * SAMPLE_RATE_HZ))
    return folder


def make(out: Path, foreground: Path, **given: Any) -> Summary:
    return synth.synth(SynthOptions(out, str(foreground), **given))


def scene(out: Path, number: int = 0, extension: str = "wav") -> Samples:
    samples, rate_hz = soundfile.read(out / "audio" / f"scene_{number:05d}.{extension}", dtype="float32")
    assert rate_hz == SAMPLE_RATE_HZ
    return np.asarray(samples)


def events(out: Path) -> list[dict[str, str]]:
    with (out / "events.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def span(event: dict[str, str]) -> slice:
    return slice(*(round(float(event[name]) * SAMPLE_RATE_HZ) for name in ("onset", "offset")))


def content(out: Path) -> dict[str, bytes]:
    """All files written."""
    return {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file() and p.name != ".lock"}


def noted(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "synth.json").read_text()))


def power_db(sound: Samples) -> float:
    return float(10 * np.log10(np.square(sound, dtype=np.float64).mean()))


# Sound


def test_the_truth_is_where_the_energy_is(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", clips, scenes=4, events_per_minute=40, snr_db=(20, 20), seed=3)
    found = events(tmp_path / "out")
    assert len(found) > 15
    for number in range(4):
        sound = scene(tmp_path / "out", number)
        time_s = np.arange(len(sound)) / SAMPLE_RATE_HZ
        for label, hz in TONES_HZ.items():
            # the tone's loudness: its band alone, over 10 ms
            turned = np.convolve(sound * np.exp(-2j * np.pi * hz * time_s), np.full(160, 1 / 160), "same")
            active = np.zeros(len(sound), bool)
            for event in found:
                if event["filename"] == f"scene_{number:05d}.wav" and event["display_name"] == label:
                    active[span(event)] = True
            loud = np.abs(turned) > 0.25 * max(0.004, np.abs(turned).max())
            wrong = loud != active
            borders = np.flatnonzero(np.diff(active))
            for border in borders:
                wrong[max(0, border - 160) : border + 160] = False
            assert not wrong.any(), (number, label, np.flatnonzero(wrong) / SAMPLE_RATE_HZ)


def test_an_event_has_the_length_of_what_is_audible(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", clips, scenes=5)
    whole = [event for event in events(tmp_path / "out") if float(event["offset"]) < 10]
    assert len(whole) > 5
    assert {event["source_onset"] for event in whole} == {f"{SILENCE_S:.7f}"}
    assert all((found := span(event)).stop - found.start == SOUND_S * SAMPLE_RATE_HZ for event in whole)


@pytest.mark.parametrize("background", [False, True], ids=["noise", "recording"])
def test_the_ratio_is_the_one_asked(clips: Path, street: Path, tmp_path: Path, background: bool) -> None:
    given: dict[str, Any] = {"background": str(street) if background else None, "scenes": 5, "max_polyphony": 1}
    make(tmp_path / "out", clips, snr_db=(0, 15), **given)
    make(tmp_path / "empty", clips, events_per_minute=0, **given)
    ratios = []
    for event in events(tmp_path / "out"):
        number = int(event["filename"][6:11])
        under = scene(tmp_path / "empty", number)
        added = scene(tmp_path / "out", number) - under
        ratio_db = power_db(added[span(event)]) - power_db(under[span(event)])
        assert ratio_db == pytest.approx(float(event["reached_db"]), abs=0.1)
        assert event["reached_db"] == event["snr_db"]
        ratios.append(ratio_db)
    assert len(ratios) > 8
    assert max(ratios) - min(ratios) > 5
    assert -0.1 <= min(ratios) <= max(ratios) <= 15.1


def test_outside_events_there_is_the_background_alone(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", clips, scenes=1, length_s=65)
    make(tmp_path / "empty", clips, scenes=1, length_s=65, events_per_minute=0)
    added = scene(tmp_path / "out") - scene(tmp_path / "empty")
    for event in events(tmp_path / "out"):
        assert np.abs(added[span(event)]).max() > 0.001
        added[span(event)] = 0
    assert not added.any()


def test_what_does_not_fit_under_full_scale_is_quieter_and_said_so(clips: Path, tmp_path: Path) -> None:
    summary = make(tmp_path / "out", clips, scenes=5, events_per_minute=120, snr_db=(30, 60), background_db=-20)
    found = events(tmp_path / "out")
    below = [event for event in found if float(event["reached_db"]) < float(event["snr_db"]) - 0.01]
    assert summary.quieter == len(below) == noted(tmp_path / "out")["quieter_than_asked"] > 0.9 * len(found)
    peaks = [float(np.abs(scene(tmp_path / "out", number)).max()) for number in range(5)]
    assert max(peaks) <= 0.99
    assert min(peaks) > 0.3
    assert min(float(event["reached_db"]) for event in found) > 0
    assert f"{len(below)} events, see events.tsv" in "\n".join(synth.text(summary, "out"))


def test_without_a_background_there_is_noise_of_its_level(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", clips, scenes=2, background_db=-45, events_per_minute=0)
    assert power_db(scene(tmp_path / "out")) == pytest.approx(-45, abs=0.1)
    assert not np.array_equal(scene(tmp_path / "out", 0), scene(tmp_path / "out", 1))


def test_a_short_background_is_repeated_without_a_gap(clips: Path, tmp_path: Path) -> None:
    write(tmp_path / "short.wav", 0.9 * noise(24_001))
    make(tmp_path / "out", clips, background=str(tmp_path), scenes=1, length_s=20, events_per_minute=0)
    sound = scene(tmp_path / "out")
    assert power_db(sound) == pytest.approx(-50, abs=0.3)
    each_100_ms = [power_db(piece) for piece in sound.reshape(-1, 1600)]
    assert min(each_100_ms) > -51.5
    assert max(each_100_ms) < -48.5
    period = 24_001 - CROSS_FADE_SAMPLES
    assert np.corrcoef(sound[20_000:30_000], sound[20_000 + period : 30_000 + period])[0, 1] > 0.9


def test_the_repetition_of_a_background_does_not_click(clips: Path, tmp_path: Path) -> None:
    write(tmp_path / "hum.wav", tone(50, 1.234))
    make(tmp_path / "out", clips, background=str(tmp_path), scenes=1, events_per_minute=0, background_db=-20)
    steps = np.abs(np.diff(scene(tmp_path / "out")))
    assert steps.max() < 2 * np.median(steps) + 0.005


def test_silence_in_a_background_is_not_digital_silence(clips: Path, tmp_path: Path) -> None:
    write(tmp_path / "gap.wav", between_silence(noise(16_000)))
    make(tmp_path / "out", clips, background=str(tmp_path), scenes=1, events_per_minute=0)
    assert min(power_db(piece) for piece in scene(tmp_path / "out").reshape(-1, 1600)) > -71


@pytest.mark.slow
@pytest.mark.parametrize("name", ["long.flac", "long.m4a"])
def test_a_long_background_is_entered_anywhere(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "background"
    folder.mkdir()
    long = noise(40 * SAMPLE_RATE_HZ)
    path = folder / name
    if name == "long.flac":
        write(path, long)
    else:
        encode(path, long, SAMPLE_RATE_HZ, "mp4", "aac")
    assert probed(path).exact_seek == (name == "long.flac")
    given: dict[str, Any] = {"background": str(folder), "length_s": 2, "scenes": 8}
    make(tmp_path / "kept", clips, **given)
    monkeypatch.setattr("satpipe.jobs.synth.sound.CACHED_SAMPLES", 0)
    make(tmp_path / "streamed", clips, **given)
    assert content(tmp_path / "kept") == content(tmp_path / "streamed")
    make(tmp_path / "empty", clips, events_per_minute=0, **given)
    starts = []
    for number in range(8):
        sound = scene(tmp_path / "empty", number)
        size = 2 ** (len(long) - 1).bit_length()
        likeness = np.fft.irfft(np.fft.rfft(long, size) * np.conj(np.fft.rfft(sound, size)))
        starts.append(int(np.argmax(likeness)))
        piece = long[starts[-1] :][: len(sound)]
        assert np.corrcoef(piece, sound)[0, 1] > 0.8
    assert np.ptp(starts) > 10 * SAMPLE_RATE_HZ


def test_any_length_and_any_block_give_whole_scenes(
    clips: Path, street: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for length_s in (0.25, 9.99999, 31.4, 60):
        make(tmp_path / f"{length_s}", clips, background=str(street), scenes=1, length_s=length_s, seed=5)
        assert len(scene(tmp_path / f"{length_s}")) == round(length_s * SAMPLE_RATE_HZ)
    monkeypatch.setattr("satpipe.jobs.synth.scenes.BLOCK_SAMPLES", 5_000)
    make(tmp_path / "blocks", clips, background=str(street), scenes=1, length_s=60, seed=5)
    assert content(tmp_path / "blocks") == content(tmp_path / "60")


def test_a_scene_shorter_than_a_cross_fade_is_made(clips: Path, tmp_path: Path) -> None:
    write(tmp_path / "short.wav", noise(16_000))
    summary = make(tmp_path / "out", clips, background=str(tmp_path), scenes=20, length_s=0.25)
    assert summary.scenes == 20


def test_flac_holds_the_same_samples(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "wav", clips, scenes=2)
    make(tmp_path / "flac", clips, scenes=2, format="flac")
    assert np.array_equal(scene(tmp_path / "wav", 1), scene(tmp_path / "flac", 1, "flac"))
    assert (tmp_path / "wav" / "strong.tsv").read_text().replace(".wav", ".flac") == (
        tmp_path / "flac" / "strong.tsv"
    ).read_text()


def test_a_wav_too_large_for_its_header_is_rf64(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("satpipe.jobs.synth.scenes.LARGEST_WAV_BYTES", 1000)
    make(tmp_path / "out", clips, scenes=1)
    assert soundfile.info(tmp_path / "out" / "audio" / "scene_00000.wav").format == "RF64"


# Chance


def test_the_same_seed_gives_the_same_bytes_whatever_the_number_of_workers(
    clips: Path, street: Path, tmp_path: Path
) -> None:
    for name, given in {"a": {"workers": 1}, "b": {"workers": 4}, "c": {"seed": 1}}.items():
        make(tmp_path / name, clips, background=str(street), scenes=12, **given)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert a.keys() == c.keys()
    assert not any(a[name] == c[name] for name in a)


def test_a_scene_does_not_depend_on_how_many_there_are(clips: Path, street: Path, tmp_path: Path) -> None:
    make(tmp_path / "few", clips, background=str(street), scenes=3)
    make(tmp_path / "many", clips, background=str(street), scenes=6)
    few, many = content(tmp_path / "few"), content(tmp_path / "many")
    assert all(few[name] == many[name] for name in few if name.startswith("audio/"))
    for table in ("strong.tsv", "events.tsv"):
        assert many[table].startswith(few[table])
    assert many.keys() - few.keys() == {f"audio/scene_{number:05d}.wav" for number in (3, 4, 5)}


def clip(label: str, length: int) -> Clip:
    return Clip(Source(label, label, 0, 0), probed(RECORDINGS / "speech_16k_mono.WAV"), find(label), 0, length)


@pytest.fixture
def sounds() -> list[list[Clip]]:
    lengths = (160, 8_000, 30_000, MAX_EVENT_SAMPLES)
    return [[clip(label, length) for length in lengths] for label in ("Dog", "Bell", "Speech", "Drum")]


@pytest.mark.parametrize("polyphony", [None, 1, 2])
def test_events_of_a_class_keep_apart_and_no_more_sound_at_once_than_allowed(
    sounds: list[list[Clip]], polyphony: int | None
) -> None:
    options = SynthOptions("out", "", length_s=300, events_per_minute=300, max_polyphony=polyphony)
    drawn, left_out = draw_events(np.random.default_rng(0), sounds, options)
    assert len(drawn) > 50
    assert left_out > 10
    assert [event.onset for event in drawn] == sorted(event.onset for event in drawn)
    by_class = defaultdict(list)
    active = np.zeros(options.samples, int)
    for event in drawn:
        by_class[event.clip.label].append(event)
        active[event.onset : event.offset] += 1
    for each in by_class.values():
        assert all(b.onset - a.offset >= GAP_SAMPLES for a, b in pairwise(each))
    if polyphony:
        assert active.max() == polyphony
    assert [crowd(event, drawn) for event in drawn] == [active[event.onset : event.offset].max() for event in drawn]


def test_a_scene_s_end_cuts_events_but_leaves_a_quarter_of_a_second(sounds: list[list[Clip]]) -> None:
    options = SynthOptions("out", "", length_s=2, events_per_minute=120)
    cut = 0
    for seed in range(200):
        for event in draw_events(np.random.default_rng(seed), sounds, options)[0]:
            wanted, length = event.clip.stop - event.clip.start, event.offset - event.onset
            assert 0 <= event.onset < event.offset <= options.samples
            assert length == wanted or (event.offset == options.samples and length >= MIN_SAMPLES)
            cut += length < wanted
    assert cut > 50


def test_the_number_of_events_has_the_mean_asked(sounds: list[list[Clip]]) -> None:
    short = [of_label[:1] for of_label in sounds]
    options = SynthOptions("out", "", length_s=60, events_per_minute=6)
    counts = [len(draw_events(np.random.default_rng(seed), short, options)[0]) for seed in range(400)]
    assert np.mean(counts) == pytest.approx(6, abs=0.4)
    assert np.var(counts) == pytest.approx(6, abs=1.5)


def test_every_label_is_as_likely_however_many_clips_it_has() -> None:
    sounds = [[clip("Dog", 160)] * 9, [clip("Bell", 160)]]
    drawn, _ = draw_events(np.random.default_rng(0), sounds, SynthOptions("out", "", length_s=36_000))
    assert sum(event.clip.label.name == "Bell" for event in drawn) / len(drawn) == pytest.approx(0.5, abs=0.02)


def test_crowd_counts_an_event_that_is_not_among_the_others_too(sounds: list[list[Clip]]) -> None:
    a, b, c = (Event(onset, onset + 100, sounds[k][0], 0) for k, onset in enumerate((0, 50, 100)))
    assert crowd(a, []) == 1
    assert crowd(b, [a, c]) == 2  # c begins when a ends
    assert crowd(Event(0, 200, sounds[3][0], 0), [a, b, c]) == 3


def test_a_table_that_calls_silence_a_sound_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", between_silence(tone(440, 1)))
    (tmp_path / "table.csv").write_text("path,label,onset_s,offset_s\na.wav,Bell,0,1.6\n")
    summary = make(tmp_path / "out", tmp_path / "table.csv", length_s=0.25, events_per_minute=500)
    reached = [event["reached_db"] for event in events(tmp_path / "out")]
    assert reached == ["-inf"] * summary.quieter
    assert reached


# The tables


def test_the_tables_are_those_that_evaluation_reads(clips: Path, tmp_path: Path) -> None:
    summary = make(tmp_path / "out", clips, scenes=40, events_per_minute=6)
    strong, weak = read_strong(tmp_path / "out" / "strong.tsv"), read_weak(tmp_path / "out" / "weak.csv")
    recordings = [path.name for path in sorted((tmp_path / "out" / "audio").iterdir())]
    for listed in (strong.clips, weak.clips):
        found = match(listed, recordings)
        assert not found.missing
        assert not found.unlisted
    assert len(strong.events) == len(strong.events.merged()) == summary.classes.total() > 20
    heard = zip(strong.events.clip, strong.events.label, strict=True)
    pairs = {(strong.clips[clip][:11], strong.labels[label]) for clip, label in heard}
    weakly = zip(weak.clip, weak.label, strict=True)
    assert pairs == {(weak.clips[clip][:11], weak.labels[label]) for clip, label in weakly}
    assert len({name for name, _ in pairs}) < 40  # some scenes have no event


def test_the_strong_table_is_read_by_sed_eval_and_pandas(clips: Path, tmp_path: Path) -> None:
    make(tmp_path / "out", clips, scenes=20, events_per_minute=6)
    path = tmp_path / "out" / "strong.tsv"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # dcase_util imports pkg_resources
        import sed_eval

        listed = sed_eval.io.load_event_list(str(path))
    table = pd.read_csv(path, sep="\t")
    assert list(table) == ["filename", "onset", "offset", "event_label"]
    assert table.filename.nunique() == 20
    rows = [(e.filename, e.onset, e.offset, e.event_label) for e in listed if e.event_label]
    assert rows == list(table.dropna().itertuples(index=False, name=None))
    assert 0 < len(rows) < len(table)


def test_the_note_says_what_made_the_scenes(clips: Path, street: Path, tmp_path: Path) -> None:
    summary = make(tmp_path / "out", clips, background=str(street), scenes=9, seed=7)
    note = noted(tmp_path / "out")
    assert note["finished"]
    assert note["options"]["seed"] == 7
    assert note["options"]["foreground"] == str(clips)
    assert note["versions"].keys() == {"satpipe", "numpy", "soundfile", "soxr"}
    assert note["background"] == {"street.wav": 9}
    assert note["foreground"] == {f"{label}/tone.wav": count for label, count in note["classes"].items()}
    assert sum(note["classes"].values()) == note["events"] == len(events(tmp_path / "out")) == summary.classes.total()


# Sources


def looked_at(foreground: Path) -> tuple[list[Clip], list[str]]:
    """The clips found, and the sources not used."""
    skipped: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        found = find_clips(SynthOptions("out", str(foreground)), pool, skipped)
    return [clip for of_label in found for clip in of_label], skipped


@pytest.mark.parametrize(
    ("folder", "label"),
    [
        ("Bell", "Bell"),
        ("bell", "Bell"),
        ("Beep,_bleep", "Beep, bleep"),
        ("Dog/session 1/morning", "Dog"),
        ("m_0bt9lr", "Dog"),
        ("_m_01v_m0", "Sine wave"),
        ("m/0bt9lr", "Dog"),
        ("g_122z_qxw", "Firecracker"),
        ("74", "Dog"),
    ],
)
def test_a_sub_folder_is_named_after_a_label(tmp_path: Path, folder: str, label: str) -> None:
    (tmp_path / folder).mkdir(parents=True)
    write(tmp_path / folder / "a.wav", tone(440, 0.2))
    [found], skipped = looked_at(tmp_path)
    assert found.label == find(label)
    assert not skipped


@pytest.mark.parametrize("delimiter", [",", "\t"])
def test_a_table_lists_clips_and_may_say_from_when_to_when_they_sound(tmp_path: Path, delimiter: str) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path / "sub" / "a.wav", between_silence(tone(440, 1)))
    lines = [
        ["path", "label", "onset_s", "offset_s"],
        ["sub/a.wav", "/m/0bt9lr", "", ""],
        ["sub/a.wav", "Bell", "0.5", "0.75"],
        ["sub/a.wav", '"Beep, bleep"', "0", "1.6"],
        [str(tmp_path / "sub" / "a.wav"), "0", "0.4", "1.605"],  # as little beyond the end as containers round
    ]
    (tmp_path / "table.csv").write_text("\ufeff" + "\n".join(delimiter.join(line) for line in lines) + "\n")
    found, skipped = looked_at(tmp_path / "table.csv")
    assert not skipped
    assert {clip.label.name: (clip.start, clip.stop) for clip in found} == {
        "Dog": (4_800, 20_800),
        "Bell": (8_000, 12_000),
        "Beep, bleep": (0, 25_600),
        "Speech": (6_400, 25_600),
    }


def test_a_clip_sounds_where_it_is_less_than_40_db_below_its_loudest_frame(tmp_path: Path) -> None:
    (tmp_path / "Bell").mkdir()
    steps_db = (-60, -41, -39, 0, -20, -39, -41, -80)
    loudness = np.repeat(10 ** (np.array(steps_db) / 20), 1600)
    write(tmp_path / "Bell" / "a.wav", (loudness * tone(1000, 0.8)).astype(np.float32), subtype="FLOAT")
    [found], _ = looked_at(tmp_path)
    assert (found.start, found.stop) == (3_200, 9_600)


def test_of_a_long_clip_the_first_30_s_are_used(tmp_path: Path) -> None:
    (tmp_path / "Bell").mkdir()
    write(tmp_path / "Bell" / "a.flac", between_silence(tone(1000, 40)))
    [found], _ = looked_at(tmp_path)
    assert (found.start, found.stop) == (4_800, 4_800 + 30 * SAMPLE_RATE_HZ)
    make(tmp_path / "out", tmp_path, scenes=1, length_s=90, events_per_minute=4, snr_db=(20, 20))
    assert max(float(event["offset"]) - float(event["onset"]) for event in events(tmp_path / "out")) == 30


def test_the_example_recordings_of_all_formats_make_scenes(tmp_path: Path) -> None:
    rows = [("bells_32k_mono.aiff", "Bell"), ("birds_48k_stereo.opus", "Bird"), ("speech_16k_mono.WAV", "Speech")]
    rows += [("drums_44k1_stereo.flac", "Drum"), ("night/thunder_48k_mono.opus", "Thunder")]
    table = tmp_path / "table.tsv"
    table.write_text("path\tlabel\n" + "".join(f"{RECORDINGS / name}\t{label}\n" for name, label in rows))
    summary = make(tmp_path / "out", table, background=str(RECORDINGS / "airport"), scenes=10)
    assert not summary.skipped
    assert summary.classes.keys() == {label for _, label in rows}
    assert noted(tmp_path / "out")["background"] == {"jet_landing_32k_stereo.mp3": 10}


def test_decoded_clips_are_kept_up_to_a_limit(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = looked_at(clips)
    bytes_each = 4 * round(SOUND_S * SAMPLE_RATE_HZ)
    make(tmp_path / "kept", clips, scenes=3)
    monkeypatch.setattr("satpipe.jobs.synth.sound.CACHE_BYTES", 2 * bytes_each)
    library = Library()
    first, _, third = (library.part(clip, clip.start, clip.stop) for clip in found)
    assert library.part(found[2], found[2].start, found[2].stop) is third
    assert library.part(found[0], found[0].start, found[0].stop) is not first
    assert sum(part.nbytes for part in library._parts.values()) == library._bytes == 2 * bytes_each
    make(tmp_path / "dropped", clips, scenes=3)
    assert content(tmp_path / "kept") == content(tmp_path / "dropped")


@pytest.mark.slow
def test_an_hour_takes_little_memory(clips: Path, tmp_path: Path) -> None:
    """Over a background too long for the cache."""
    folder = tmp_path / "background"
    folder.mkdir()
    with soundfile.SoundFile(folder / "long.wav", "w", SAMPLE_RATE_HZ, 1) as file:
        for seed in range(7):
            file.write(noise(60 * SAMPLE_RATE_HZ, seed=seed))
    code = (
        "import sys; from memory import peak_mb; from satpipe.jobs.synth import SynthOptions, synth\n"
        "before = peak_mb(); synth(SynthOptions(*sys.argv[1:], scenes=1, length_s=3600.0)); print(before, peak_mb())"
    )
    call = [sys.executable, "-c", code, tmp_path / "out", clips, folder]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "tests" / "support")}
    done = subprocess.run(
        list(map(str, call)), capture_output=True, text=True, check=True, timeout=480, env=environment
    )
    before_mb, after_mb = map(float, done.stdout.split())
    assert after_mb - before_mb < HOUR_MB
    assert soundfile.info(tmp_path / "out" / "audio" / "scene_00000.wav").frames == 3600 * SAMPLE_RATE_HZ


# Errors


def test_what_cannot_be_used_is_counted_and_named(clips: Path, street: Path, tmp_path: Path) -> None:
    folder = tmp_path / "Bell"
    folder.mkdir()
    write(folder / "good.wav", tone(440, 1))
    write(folder / "silent.wav", np.zeros(16_000))
    write(folder / "empty.wav", np.zeros(0))
    (folder / "text.wav").write_text("not audio at all")
    write(tmp_path / "loose.wav", tone(440, 1))
    write(folder / "cut.wav", tone(440, 1))
    shorten(folder / "cut.wav", 0.5)  # the rest of it is used
    backgrounds = tmp_path.with_name(tmp_path.name + "-backgrounds")
    backgrounds.mkdir()
    write(backgrounds / "good.wav", noise(16_000))
    write(backgrounds / "silent.wav", np.zeros(16_000))
    write(backgrounds / "short.wav", noise(15_999))
    (backgrounds / "text.wav").write_text("not audio at all")
    summary = make(tmp_path / "out", tmp_path, background=str(backgrounds), scenes=3)
    reasons = dict(line.split(": ", 1) for line in summary.skipped)
    assert reasons.keys() == {
        "loose.wav", "Bell/silent.wav", "Bell/empty.wav", "Bell/text.wav", "silent.wav", "short.wav", "text.wav",
    }  # fmt: skip
    assert reasons["Bell/silent.wav"] == reasons["silent.wav"] == "contains only silence"
    assert reasons["short.wav"] == "shorter than 1 s"
    assert noted(tmp_path / "out")["skipped"] == summary.skipped
    lines = synth.text(summary, "out")
    assert lines[1] == "  could not be used: 7 sources, all listed in synth.json:"
    assert len(lines) == 2 + EXAMPLES + 1


def test_a_table_names_what_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", between_silence(tone(440, 1)))
    (tmp_path / "table.csv").write_text(
        "path,label,onset_s,offset_s\na.wav,Bell,,\na.wav,Bell,0,0.2\na.wav,Bell,1,12\ngone.wav,Bell,,\n"
    )
    found, skipped = looked_at(tmp_path / "table.csv")
    assert len(found) == 1
    assert skipped[:2] == ["a.wav: contains only silence", "a.wav: its offset of 12 s is after its end at 1.6 s"]
    assert skipped[2].startswith("gone.wav: cannot be opened")


@pytest.mark.parametrize(
    ("table", "error", "message"),
    [
        ("file,label\na.wav,Bell\n", ConfigError, "must have a header with the columns path and label"),
        ("", ConfigError, "must have a header with the columns path and label"),
        ("path,label\na.wav,Bel\n", LabelError, "line 2 of .*did you mean 'Bell'"),
        ("path,label\na.wav,Bell\na.wav,\n", ConfigError, "line 3 of .*path or label is missing"),
        ("path,label\na.wav\n", ConfigError, "line 2 of .*path or label is missing"),
        (
            "path,label,onset_s,offset_s\na.wav,Bell,1,1\n",
            ConfigError,
            "line 2 of .*onset_s 1 must be at least 0 and below offset_s 1",
        ),
        ("path,label,onset_s,offset_s\na.wav,Bell,-1,1\n", ConfigError, "line 2 of"),
        ("path,label,onset_s,offset_s\na.wav,Bell,1,\n", ConfigError, "line 2 of"),
        ("path,label,onset_s,offset_s\na.wav,Bell,0,nan\n", ConfigError, "line 2 of"),
        ("path,label,onset_s,offset_s\na.wav,Bell,0,inf\n", ConfigError, "line 2 of"),
        ("path,label,onset_s\na.wav,Bell,x\n", ConfigError, "line 2 of"),
        ("path,label\n", ConfigError, "no clip of .*table.csv can be used"),
        ("path,label\ngone.wav,Bell\n", ConfigError, "no clip of .*can be used\ngone.wav: cannot be opened"),
    ],
)
def test_a_wrong_table_is_an_error_that_says_where(
    tmp_path: Path, table: str, error: type[SatpipeError], message: str
) -> None:
    write(tmp_path / "a.wav", tone(440, 1))
    (tmp_path / "table.csv").write_text(table)
    with pytest.raises(error, match=message):
        make(tmp_path / "out", tmp_path / "table.csv")
    assert not (tmp_path / "out").exists()


def test_other_wrong_sources_are_errors(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere not found"):
        make(tmp_path / "out", tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="nowhere.* not found"):
        make(tmp_path / "out", clips, background=str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="cannot be read as a table"):
        make(tmp_path / "out", RECORDINGS / "bells_32k_mono.aiff")
    (tmp_path / "Bel").mkdir()
    with pytest.raises(ConfigError, match="no clip of .* can be used"):
        make(tmp_path / "out", tmp_path)
    with pytest.raises(ConfigError, match="no recording of .* can be used"):
        make(tmp_path / "out", clips, background=str(tmp_path))
    write(tmp_path / "Bel" / "a.wav", tone(440, 1))
    with pytest.raises(LabelError, match="sub-folder Bel of .*did you mean 'Bell'"):
        make(tmp_path / "out", tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"snr_db": (20, 6)}, "--snr-db must be the lower and then the higher ratio, not 20 6"),
        ({"length_s": 0.2}, "--length-s must be at least 0.25, not 0.2"),
        ({"length_s": float("nan")}, "--length-s must be at least 0.25, not nan"),
        ({"snr_db": (0, float("inf"))}, "--snr-db must be the lower and then the higher ratio, not 0 inf"),
        ({"scenes": 0}, "--scenes must be from 1 to 100,000, not 0"),
        ({"scenes": 100_001}, "--scenes must be from 1 to 100,000, not 100,001"),
    ],
)
def test_options_that_cannot_work_are_errors(clips: Path, tmp_path: Path, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(tmp_path / "out", clips, **given)


# The output folder


def test_scenes_are_replaced_only_when_asked(clips: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    make(out, clips, scenes=4)
    with pytest.raises(OutputError, match="already contains scenes"):
        make(out, clips, scenes=2)
    make(out, clips, scenes=2, format="flac", overwrite=True)
    make(tmp_path / "new", clips, scenes=2, format="flac")
    assert content(out) == content(tmp_path / "new")


def test_what_others_put_there_is_left_alone(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    for _ in range(2):
        with pytest.raises(OutputError, match="is not empty and was not made by satpipe synth"):
            make(tmp_path, clips, overwrite=True)
        (tmp_path / "synth.json").write_text("[]")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["synth.json", "thesis.txt"]
    with pytest.raises(OutputError, match="is not a local folder"):
        make(tmp_path / "thesis.txt", clips)
    with pytest.raises(OutputError, match="is not a local folder"):
        synth.synth(SynthOptions("s3://bucket/out", str(clips)))
    with pytest.raises(OutputError, match="cannot be written"):
        make(tmp_path / "thesis.txt" / "out", clips)


def test_a_folder_is_written_by_one_at_a_time(clips: Path, tmp_path: Path) -> None:
    with FileLock(tmp_path / ".lock"), pytest.raises(OutputError, match="another satpipe synth is writing to"):
        make(tmp_path, clips)


def test_a_run_that_breaks_off_leaves_no_table_and_is_begun_again(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changing, out, claimed = tmp_path / "clips", tmp_path / "out", synth.claimed
    shutil.copytree(clips, changing)

    def late(options: SynthOptions) -> Any:
        (changing / "Bell" / "tone.wav").unlink()  # after it was read first
        return claimed(options)

    with monkeypatch.context() as patch:
        patch.setattr(synth, "claimed", late)
        with pytest.raises(AudioError, match="Bell/tone.wav: cannot be opened"):
            make(out, changing, scenes=30)
    assert not noted(out)["finished"]
    assert {path.name for path in out.iterdir()} == {"synth.json", "audio", ".lock"}
    assert not list((out / "audio").glob(".*"))
    make(out, clips, scenes=3)
    make(tmp_path / "whole", clips, scenes=3)
    assert content(out) == content(tmp_path / "whole")


def test_a_long_scene_is_broken_off_when_another_fails(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person who stops a run must not wait for the end of a long scene."""
    options = SynthOptions(tmp_path, str(clips), scenes=2, length_s=100_000)
    made = synth.SceneMaker.make

    def interrupted(self: synth.SceneMaker, number: int) -> synth.Scene:
        if number == 0:
            raise KeyboardInterrupt
        return made(self, number)

    monkeypatch.setattr(synth.SceneMaker, "make", interrupted)
    with pytest.raises(KeyboardInterrupt):
        synth.synth(replace(options, workers=2))
    assert not list((tmp_path / "audio").iterdir())


# The command


@pytest.mark.slow
def test_the_command_makes_scenes(satpipe: Satpipe, clips: Path, street: Path, tmp_path: Path) -> None:
    options = ["--foreground", clips, "--background", street, "--scenes", 3, "--length-s", 5, "--snr-db", 3, 9]
    more = ["--events-per-minute", 30, "--seed", 2, "--max-polyphony", 2, "--background-db", -45, "--format", "flac"]
    done = satpipe("synth", "-o", tmp_path / "out", *options, *more, "--workers", 1)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{tmp_path / 'out'} contains 3 scenes, 0:00:15 in total; events: ")
    given = SynthOptions(tmp_path / "same", str(clips), str(street), 3, 5.0, 30.0, (3.0, 9.0), -45.0, 2, 2, "flac")
    synth.synth(given)
    assert content(tmp_path / "out") == content(tmp_path / "same")


def test_the_command_says_what_is_wrong_in_a_line(satpipe_here: Satpipe, clips: Path, tmp_path: Path) -> None:
    done = satpipe_here("synth", "-o", tmp_path, "--foreground", clips, "--snr-db", 9, 3)
    assert done.returncode == 1
    assert done.stderr == "ConfigError: --snr-db must be the lower and then the higher ratio, not 9 3\n"
    assert satpipe_here("synth", "-o", tmp_path).returncode == 2
