"""`satpipe synth`: sound scenes with exact ground truth, from clips of single sounds over backgrounds.

    audio/scene_00000.wav ...   16 kHz mono, 16 bit
    strong.tsv                  filename, onset, offset (seconds), event_label (mid); one empty row for an empty scene
    weak.csv                    the classes in each scene, in the form of AudioSet's segment lists
    events.tsv                  also the name, source and signal-to-noise ratio (requested, reached) of each event
    synth.json                  the options, the sources used, the number of events left out

The rules (all times are integer samples at 16 kHz):

* The sound of a clip lasts from the first to the last 10 ms frame whose power is at most 40 dB below the power of its
  loudest frame, unless a table gives onset and offset. This part, at most 30 s of it, is mixed, and its position is the
  ground truth. Both ends are faded over 5 ms.
* The number of events is Poisson distributed. For each event the label is drawn first, then one of its clips, then the
  onset; all three are drawn up to 20 times until the event is 0.25 s away from others of its class (crowded scenes
  favour short clips). An event that still does not fit is left out and counted. The end of the scene may cut an event
  off, but at least 0.25 s of it remains.
* A background shorter than the scene is repeated, its end cross-faded into its beginning over 0.5 s; a longer one
  starts at a random position. It is brought to a common level, or a lower one so that its peak stays below 0.5. White
  noise at -70 dBFS is added to it; without a background, white noise at its level replaces it. So a scene contains no
  digital silence.
* The level of an event is set relative to the power of the background during the event. Where k events overlap, each
  may use at most 1/k of the headroom that the background leaves below 0.99, so no scene clips or has to be scaled
  afterwards. An event that becomes quieter than requested is counted, and `events.tsv` has the ratio it reached.
* Scene k depends on the seed, k, the other options and the sources, but not on the number of scenes or workers.

Scenes are made in threads, not in Ray tasks: decoding, NumPy and encoding release the interpreter's lock, all threads
share the decoded clips, and an hour of sound takes seconds, so no cluster is needed.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import soundfile
from satpipe.jobs.options.measure import SynthOptions
from satpipe.jobs.synth.inputs import Background, Clip, find_backgrounds, find_clips
from satpipe.jobs.synth.placement import Event, crowd, draw_events
from satpipe.jobs.synth.scenes import Scene, SceneMaker
from satpipe.jobs.synth.write import Summary, claimed, text, write_scenes
from satpipe.sat.errors import OutputError

__all__ = [
    "Background", "Clip", "Event", "Scene", "SceneMaker", "Summary", "SynthOptions", "crowd", "draw_events", "synth",
    "text",
]  # fmt: skip

MAX_WORKERS = 16  # by default; only one thread at a time runs the Python code between the array operations


def synth(options: SynthOptions) -> Summary:
    """Make scenes and their ground truth.

    Raises:
        ConfigError: The options are not valid, or no clip can be used.
        LabelError: A label of the foreground is unknown; the message names its place.
        AudioError: A source has changed since it was first read.
        OutputError: The folder cannot be written, or contains something else.
    """
    summary = Summary()
    with ThreadPoolExecutor(options.workers or min(os.cpu_count() or 1, MAX_WORKERS)) as pool:
        clips = find_clips(options, pool, summary.skipped)
        backgrounds = find_backgrounds(options, pool, summary.skipped)
        try:
            with claimed(options):
                write_scenes(SceneMaker(options, clips, backgrounds), pool, options, summary)
        except (OSError, soundfile.LibsndfileError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"{options.out} cannot be written: {reason}") from error
    return summary
