"""`satpipe synth`: sound scenes whose truth is known to the sample, from clips of single sounds over backgrounds.

    audio/scene_00000.wav ...   16 kHz mono, 16 bit
    strong.tsv                  filename, onset, offset (seconds), event_label (mid); one empty row for an empty scene
    weak.csv                    which classes are in each scene, in the form of AudioSet's segment lists
    events.tsv                  of each event also its name, source and signal-to-noise ratio, asked and reached
    synth.json                  the options, the sources used, what was left out

The rules, all times being integer samples at 16 kHz:

* A clip sounds from the first to the last 10 ms frame whose power is at most 40 dB below that of its loudest frame,
  unless a table says from when to when. That is what is mixed, and its place is the truth; of a longer sound, the
  first 30 s. Both ends are faded over 5 ms.
* The number of events is Poisson distributed; of each, the label is drawn first, then one of its clips, then the
  onset, all anew up to 20 times until it keeps 0.25 s from others of its class (crowded scenes favour short clips);
  what then does not fit is left out and counted. A scene's end may cut an event, but 0.25 s of it stay.
* A background shorter than the scene is repeated, its end cross-faded into its beginning over 0.5 s; a longer one is
  entered somewhere. It is brought to one level, or below, so that its peak stays under 0.5. White noise at -70 dBFS
  lies under it; without a background, white noise at its level takes its place. So nothing is ever digital silence.
* The level of an event follows from the power of what lies under it. Where k events meet, none may use more than 1/k
  of what the background leaves free under 0.99: so no scene clips, and none has to be scaled afterwards. An event that
  this makes quieter than asked is counted, and `events.tsv` has the ratio it reached.
* Scene k depends on the seed, k, the other options and the sources, not on the number of scenes or of workers.

Scenes are made in threads, not in Ray tasks: decoding, NumPy and encoding leave the interpreter free, all share the
decoded clips, and what takes seconds for an hour of sound needs no cluster that sees the clips.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import soundfile
from satpipe.jobs.synth.inputs import Background, Clip, find_backgrounds, find_clips
from satpipe.jobs.synth.options import SynthOptions, check
from satpipe.jobs.synth.placement import Event, crowd, draw_events
from satpipe.jobs.synth.scenes import Scene, SceneMaker
from satpipe.jobs.synth.write import Summary, claimed, text, write_scenes
from satpipe.sat.errors import OutputError

__all__ = [
    "Background",
    "Clip",
    "Event",
    "Scene",
    "SceneMaker",
    "Summary",
    "SynthOptions",
    "crowd",
    "draw_events",
    "synth",
    "text",
]

MOST_WORKERS = 16  # unless more are asked for: what is left of Python between the arrays runs one at a time


def synth(options: SynthOptions) -> Summary:
    """Make scenes and their truth.

    Raises:
        ConfigError: Options that cannot work, or no clip that can be used.
        LabelError: A label of the foreground is not known; the message says where it stands.
        AudioError: A source has changed since it was looked at.
        OutputError: The folder cannot be written, or holds something else.
    """
    check(options)
    summary = Summary()
    with ThreadPoolExecutor(options.workers or min(os.cpu_count() or 1, MOST_WORKERS)) as pool:
        clips = find_clips(options, pool, summary.skipped)
        backgrounds = find_backgrounds(options, pool, summary.skipped)
        try:
            with claimed(options):
                write_scenes(SceneMaker(options, clips, backgrounds), pool, options, summary)
        except (OSError, soundfile.LibsndfileError) as error:
            raise OutputError(
                f"{options.out} cannot be written: {getattr(error, 'strerror', None) or error}"
            ) from error
    return summary
