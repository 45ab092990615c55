"""`satpipe benchmark consistency`: tag long sounds with and without memory; `jobs.consistency` compares the scores."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from satpipe.jobs.benchmark.common import Say
from satpipe.jobs.options.measure import ConsistencyRunOptions, SynthOptions
from satpipe.jobs.synth import synth
from satpipe.jobs.tag.job import tag

BACKGROUND_DB = -25.0


def tagged(sounds: Sequence[Path], options: ConsistencyRunOptions, say: Say) -> list[Path]:
    """Make long recordings by repeating sounds, and tag them in each regime.

    Args:
        sounds: Recordings, each of one steady sound.
        options: Other options.
        say: Called with the name of each step before it starts.

    Returns:
        The output folder of each regime.

    Raises:
        SatpipeError: A sound cannot be read, or the full-context model cannot be used.
    """
    work = options.work
    shutil.rmtree(work, ignore_errors=True)
    (work / "recordings").mkdir(parents=True)
    for sound in sounds:
        say(f"making {options.minutes:g} minutes of {sound.name}")
        name = re.sub(r"_\d.*", "", sound.stem)  # without rate and channels
        _repeat(sound, work / name, options.minutes).rename(work / "recordings" / f"{name}.wav")
    regimes: dict[str, dict[str, Any]] = {"memory": {}, "alone": {"memory": "off"}}
    if options.full_context:
        full = {"model": options.full_context}
        regimes |= {"full_10s": full, "full_2s": full | {"delay_s": 2.0}}
    for name, given in regimes.items():
        say(f"tagging: {name}")
        tag(work / "recordings", out=work / name, **given)
    return [work / name for name in regimes]


def _repeat(sound: Path, folder: Path, minutes: float) -> Path:
    """Make a scene without events whose background is the sound; return the file."""
    folder.mkdir()
    events = folder / "events.csv"
    events.write_text(f"path,label\n{sound.resolve()},Bird\n")  # `synth` requires a clip, but mixes none in
    synth(
        SynthOptions(
            out=folder / "scene",
            foreground=str(events),
            events_per_minute=0,
            background=str(sound),
            background_db=BACKGROUND_DB,
            scenes=1,
            length_s=60 * minutes,
        )
    )
    return folder / "scene" / "audio" / "scene_00000.wav"
