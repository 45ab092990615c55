"""Write the scenes of `satpipe synth` and their tables to the output folder."""

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout
from satpipe.jobs.options.measure import SynthOptions
from satpipe.jobs.synth.inputs import EXAMPLES
from satpipe.jobs.synth.scenes import Scene, SceneMaker
from satpipe.pipeline.storage import is_remote, write_text, written_whole
from satpipe.sat.errors import OutputError
from satpipe.sat.model.config import SAMPLE_RATE_HZ
from satpipe.sat.printable import counted

TABLES = ("strong.tsv", "weak.csv", "events.tsv")
PROGRAM = "satpipe synth"


@dataclass
class Summary:
    """Counts of the scenes of a run."""

    duration_s: float = 0.0
    scenes: int = 0
    classes: Counter[str] = field(default_factory=Counter)
    """Number of events of each class, by display name."""
    foreground: Counter[str] = field(default_factory=Counter)
    """Number of events from each file."""
    background: Counter[str] = field(default_factory=Counter)
    """Number of scenes over each file."""
    quieter: int = 0
    """Number of events quieter than requested, since they would have clipped."""
    left_out: int = 0
    """Number of events that did not fit."""
    skipped: list[str] = field(default_factory=list)
    """Sources that could not be used, with the reason."""

    def add(self, scene: Scene, length_s: float) -> None:
        """Count a scene."""
        self.duration_s += length_s
        self.scenes += 1
        self.left_out += scene.left_out
        self.classes.update(event.clip.label.name for event in scene.events)
        self.foreground.update(event.clip.source.recording for event in scene.events)
        self.background.update([scene.background] if scene.background else [])
        pairs = zip(scene.reached_db, scene.events, strict=True)
        self.quieter += sum(reached_db < event.snr_db - 0.01 for reached_db, event in pairs)


def text(summary: Summary, out: str | Path) -> list[str]:
    """Return the closing lines of a run."""
    made = f"{counted(summary.scenes, 'scene')}, {timedelta(seconds=round(summary.duration_s))} in total"
    lines = [f"{out} contains {made}; events: {summary.classes.total():,}; classes: {len(summary.classes)}"]
    if summary.quieter:
        lines.append(
            f"  quieter than requested, so that nothing clips: {counted(summary.quieter, 'event')}, see events.tsv"
        )
    if summary.left_out:
        lines.append(f"  left out because they did not fit: {counted(summary.left_out, 'event')}")
    if summary.skipped:
        lines.append(f"  could not be used: {counted(len(summary.skipped), 'source')}, all listed in synth.json:")
        lines += [f"    {problem}" for problem in summary.skipped[:EXAMPLES]]
        lines += ["    ..."] if len(summary.skipped) > EXAMPLES else []
    return lines


@contextmanager
def claimed(options: SynthOptions) -> Iterator[None]:
    """Lock the output folder and remove the scenes of an earlier run from it.

    Raises:
        OutputError: The folder contains something else, or finished scenes without --overwrite, or another run uses it.
    """
    out = options.folder
    if is_remote(options.out) or (out.exists() and not out.is_dir()):
        raise OutputError(f"{options.out} is not a local folder")
    if out.is_dir() and {path.name for path in out.iterdir()} - {".lock"}:
        try:
            earlier = json.loads((out / "synth.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            earlier = None
        if not isinstance(earlier, dict) or earlier.get("program") != PROGRAM:
            raise OutputError(f"{out} is not empty and was not made by {PROGRAM}: choose another folder")
        if earlier.get("finished") and not options.overwrite:
            raise OutputError(f"{out} already contains scenes: choose another folder, or replace them with --overwrite")
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise OutputError(f"another {PROGRAM} is writing to {out}: wait until it has finished") from None
    try:
        for pattern in (*TABLES, *(f".{name}.*" for name in TABLES), "audio/scene_*", "audio/.scene_*"):
            for path in out.glob(pattern):
                path.unlink()
        yield
    finally:
        lock.release()


def write_scenes(maker: SceneMaker, pool: ThreadPoolExecutor, options: SynthOptions, summary: Summary) -> None:
    """Make all scenes, and write the tables at the same time."""
    (options.folder / "audio").mkdir(exist_ok=True)
    _note(options)
    length_s = options.samples / SAMPLE_RATE_HZ
    with ExitStack() as stack:
        paths = [stack.enter_context(written_whole(options.folder / name)) for name in TABLES]
        strong, weak, events = (stack.enter_context(path.open("w", encoding="utf-8")) for path in paths)
        strong.write("filename\tonset\toffset\tevent_label\n")
        weak.write(f"# {PROGRAM}\n# num_ytids={options.scenes}, num_segs={options.scenes}\n")
        weak.write("# YTID, start_seconds, end_seconds, positive_labels\n")
        events.write("filename\tonset\toffset\tevent_label\tdisplay_name\tsource\tsource_onset\tsnr_db\treached_db\n")
        try:
            for scene in pool.map(maker.make, range(options.scenes)):
                _write_events(strong, events, scene)
                mids = ",".join(sorted({event.clip.label.mid for event in scene.events}))
                weak.write(f'{Path(scene.file).stem}, 0.000, {length_s:.3f}, "{mids}"\n')
                summary.add(scene, length_s)
        finally:
            maker.stop.set()  # an interrupted run must not wait until long scenes are finished
            pool.shutdown(cancel_futures=True)
    _note(options, summary)


def _write_events(strong: IO[str], details: IO[str], scene: Scene) -> None:
    """Write the events of a scene; seconds with 7 decimals identify the sample."""
    for event, reached_db in zip(scene.events, scene.reached_db, strict=True):
        clip = event.clip
        onset_s, offset_s, start_s = (samples / SAMPLE_RATE_HZ for samples in (event.onset, event.offset, clip.start))
        row = f"{scene.file}\t{onset_s:.7f}\t{offset_s:.7f}\t{clip.label.mid}"
        strong.write(f"{row}\n")
        source = f"{clip.label.name}\t{clip.source.recording}\t{start_s:.7f}"
        details.write(f"{row}\t{source}\t{event.snr_db:.3f}\t{reached_db:.3f}\n")
    if not scene.events:
        strong.write(f"{scene.file}\t\t\t\n")


def _note(options: SynthOptions, summary: Summary | None = None) -> None:
    """Write `synth.json`: the inputs of the scenes and, at the end, a summary of their content."""
    others = ("out", "workers", "overwrite")
    content = {
        "program": PROGRAM,
        "finished": summary is not None,
        "options": {name: value for name, value in asdict(options).items() if name not in others},
        "rate_hz": SAMPLE_RATE_HZ,
        "versions": {name: version(name) for name in ("satpipe", "numpy", "soundfile", "soxr")},
    }
    if summary is not None:
        content |= {
            "events": summary.classes.total(),
            "quieter_than_asked": summary.quieter,
            "left_out": summary.left_out,
            "classes": dict(sorted(summary.classes.items())),
            "foreground": dict(sorted(summary.foreground.items())),
            "background": dict(sorted(summary.background.items())),
            "skipped": summary.skipped,
        }
    write_text(options.folder / "synth.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
