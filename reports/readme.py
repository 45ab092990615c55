"""Write the measured figures into the README and the documentation: `python -m satpipe.reports.readme`."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from satpipe.jobs.benchmark.reading import STEREO
from satpipe.jobs.consistency import Figures
from satpipe.jobs.options.results import EXACT
from satpipe.reports import consistency_pictures as pages
from satpipe.reports import speed_picture

ROOT = Path(__file__).resolve().parent.parent
_PRECISIONS = ("fp32", "bf16")  # on processors
_BETWEEN = "<!-- {0} -->\n{1}\n<!-- end of {0} -->"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """Return a table in Markdown; cells may contain markup."""
    kinds = ["---"] * text_columns + ["---:"] * (len(heads) - text_columns)
    lines = [f"| {' | '.join(heads)} |".replace("|  |", "| |"), f"|{'|'.join(kinds)}|"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


def speed(figures: dict[str, Any]) -> str:
    """Return a table of the speed of tagging."""
    rows = [("plain loop: one chunk per call, all processors", f"{figures['loop_x_realtime']:,.0f}", "1.0", "")]
    for name, run in figures["runs"].items():
        # The loop reads the WAV, so FLAC has no ratio.
        ratio = "" if "FLAC" in name else f"{run['times_loop']:.1f}"
        length = f", {run['duration_s'] / 60:g} min" if run["duration_s"] < figures["hours"] * 3600 else ""
        row = (f"`satpipe tag`, {name}{length}", f"{run['x_realtime']:,.0f}", ratio, f"{run['share_of_model']:.0%}")
        rows.append(row)
    for name, row in figures["sizes"].items():
        for precision in (each for each in _PRECISIONS if each in row):
            ratio = f"{row[precision] / row['loop']:.1f}"
            rows.append((f"`satpipe tag`, gapless {precision}, {name}", f"{row[precision]:,.0f}", ratio, ""))
    machine, start_up = figures["machine"], figures["start_up"]
    heads = ("", "x realtime", "times the loop", "of the model alone")
    return (
        f"{_table(heads, rows)}\n\n{figures['model']} on {machine['processors']} "
        f"processors ({machine['processor']}), torch {figures['versions']['torch']}, {figures['hours']:g} h of 16 kHz "
        f"WAV unless stated otherwise. Starting Ray took another {figures['ray_start_s']:.1f} s, and the workers' "
        f"first recording {figures['first_run_s']:.1f} s; one short file takes {start_up['one_file_s']:.1f} s in "
        f"total, `satpipe --help` {start_up['help_s']:.2f} s. The larger models have random weights. Gapless "
        "and script are [chunking modes](reports/docs/explanation/cutting.md).\n"
        f"Largest difference of any score between the first two rows: {figures['largest_score_difference']:.1e}."
    )


def stages(figures: dict[str, Any]) -> str:
    """Return a table of the workers' time by stage."""
    names = {"read": "decode and resample", "log_mel": "log-mel", "model": "model", "write": "write"}
    rows = []
    for run in ("gapless fp32", "gapless bf16", f"gapless fp32, {STEREO}", f"gapless bf16, {STEREO}"):
        seconds = figures["runs"][run]["worker_s"]
        rows.append((run, *(f"{seconds[name] / sum(seconds.values()):.0%}" for name in names)))
    return _table(("share of the workers' time", *names.values()), rows)


def parts(figures: dict[str, Any]) -> str:
    """Return tables of each part alone on one processor, of reading, and of the models, compared with their limits."""
    alone = [(name, f"{rate:,.0f}") for name, rate in figures["parts"].items() if name != "memory_copy"]
    reading = [
        (
            name,
            *(f"{row[part]:,.0f}" if part in row else "" for part in ("decode", "resample", "read")),
            f"{row['share']:.0%}",
        )
        for name, row in figures["reading"].items()
    ]
    models = [
        (
            name,
            f"{row['x_realtime']:,.0f}",
            f"{row['flops'] / 1e9:,.0f}",
            f"{row['bound_x_realtime']:,.0f}",
            f"{row['x_realtime'] / row['bound_x_realtime']:.0%}",
        )
        for name, row in figures["models"].items()
    ]
    flac = figures["reading"][STEREO]["read"] * figures["machine"]["processors"]
    shares = [figures["runs"][f"gapless {precision}, {STEREO}"]["x_realtime"] / flac for precision in _PRECISIONS]
    of_reading = ("reading, on one processor", "decoding alone", "resampling alone", "satpipe", "share of both alone")
    auto, times = figures["auto"]["precision"], figures["auto"]["times_fp32"]
    compared = ", ".join(f"{name} is {each:.2g} times as fast as fp32" for name, each in times.items())
    heads = ("model alone", "x realtime", "its products, GFLOP/s", "x realtime of products alone", "share reached")
    return (
        f"{_table(of_reading, reading)}\n\n{_table(('other parts, alone on one processor', 'x realtime'), alone)}\n\n"
        f"{_table(heads, models)}\n\nHere `--precision auto` takes {auto}: {compared}. "
        f"The machine copies memory at {figures['parts']['memory_copy'] / 1e9:.0f} GB/s. `satpipe tag` processes 48 "
        f"kHz stereo FLAC at {shares[0]:.0%} (fp32) and {shares[1]:.0%} (bf16) of the rate at which all processors "
        "could decode and resample it."
    )


def disk(figures: dict[str, Any]) -> str:
    """State the disk space that the tables of a year of audio take."""
    year = figures["year_bytes"]
    return (
        f"A year of audio without gaps takes about {year['tags'] / 1e9:.1f} GB as tags "
        f"and {year['scores'] / 1e9:.0f} GB as scores."
    )


def evaluation(figures: dict[str, Any]) -> str:
    """State the time that `evaluate` needs for a set as large as AudioSet's strong evaluation set."""
    measured = figures["evaluation"]
    quick, full, machine = measured["figures"], measured["with_intervals"], measured["machine"]
    exact = measured["psds_thresholds"] == EXACT
    psds = "exact PSDS" if exact else f"PSDS at {measured['psds_thresholds']} thresholds"
    return (
        f"On {machine['processors']} processors ({machine['processor']}), all figures of a set as large as AudioSet's "
        f"strong evaluation set ({measured['clips']:,} clips, {measured['events']:,} events, {measured['classes']} "
        f"classes, {psds}) take {quick['elapsed_s']:.0f} s and "
        f"{quick['peak_bytes'] / 1e9:.1f} GB of memory; with bootstrap intervals, {full['elapsed_s']:.0f} s and "
        f"{full['peak_bytes'] / 1e9:.1f} GB. sed_eval's own loops, without PSDS, would take "
        f"{measured['sed_eval_s'] / 60:.0f} minutes, estimated from one clip in {measured['sed_eval_one_in']}. "
        "`satpipe benchmark evaluate` measures these times."
    )


def live(figures: dict[str, Any]) -> str:
    """Return a table of the time from a chunk's last sample to its line, and state the memory use of long runs."""
    measured, soak = figures["stream"], figures["soak"]
    rows = [
        (
            run["model"],
            str(run["streams"]),
            f"{run['rate_hz'] / 1000:g} kHz { {1: 'mono', 2: 'stereo'}[run['channels']] }",
            f"{run['median_s'] * 1000:.0f}",
            f"{run['p95_s'] * 1000:.0f}",
            str(run["chunks"]),
        )
        for run in measured["runs"]
    ]
    heads = ("model", "streams", "input", "median, ms", "95 %, ms", "chunks")
    flat = "; ".join(_steady(soak[command], f"`satpipe {command}`") for command in ("tag", "stream"))
    return (
        f"Time from the last sample of a chunk to its line, on one processor ({measured['machine']['processor']}); "
        f"samples arrive in blocks of {measured['block_s'] * 1000:.0f} ms:\n\n{_table(heads, rows, 3)}\n\n"
        "This includes a wait of 6 ms, because the last frame of a chunk extends into the next one. `satpipe benchmark "
        "stream` measures these delays. `satpipe benchmark soak` measures memory and open files after four tenths and "
        f"after nine tenths of a long run: {flat}."
    )


def _steady(run: dict[str, Any], what: str) -> str:
    memory_mb, handles = run["memory_mb"], run["handles"]
    return (
        f"{what} and its processes, over {run['hours']:g} h of audio: {memory_mb[3]:,.0f} and {memory_mb[8]:,.0f} MB, "
        f"{handles[3]:,.0f} and {handles[8]:,.0f} open files"
    )


def consistency(figures: dict[str, Any]) -> str:
    """Return a table of the figures of scores over time for two long sounds."""
    measured = figures["consistency"]
    rows = [Figures(**row) for row in measured["figures"] if row["recording"]]
    return pages.table(rows, measured["threshold"]).markdown().partition("\n\n")[2]


def device(figures: dict[str, Any]) -> str:
    """Return a table of exported files: size and x realtime on one core; then state the cost of int8."""
    measured = figures["device"]
    rows = []
    for model in measured["models"]:
        sizes = (f"{model['size_bytes'][way] / 1e6:.1f} MB" for way in ("onnx", "int8"))
        speeds = (f"{model['x_realtime'][way]:,.0f}" for way in ("torch", "onnx", "int8", "torchscript"))
        rows.append((model["config"], *sizes, *speeds))
    heads = ("on one core", "ONNX file", "int8", "x realtime: Python", "ONNX Runtime", "int8", "TorchScript")
    difference, machine, versions = measured["models"][0]["difference"], measured["machine"], measured["versions"]
    exact, int8 = difference["onnx"], difference["int8"]
    return (
        f"{_table(heads, rows)}\n\n{machine['processor']}, torch {versions['torch']}, "
        f"ONNX Runtime {versions['onnxruntime']}. Over the {exact['chunks']} chunks of the example recordings, the "
        f"scores of the bundled model as ONNX differ from those in Python by at most {exact['largest']:.0e}; those of "
        f"the int8 file differ by at most {int8['largest']:.3f}, by {int8['mean']:.0e} on average, and the highest "
        f"class is the same in {int8['same_top']:.0%} of chunks."
    )


def peers(figures: dict[str, Any]) -> str:
    """Return a table of the quality of the tags of EfficientAT and the bundled model at several delays."""
    measured = figures["peers"]
    heads = {
        ("mAP", "macro"): "mAP",
        ("segment_f1", "micro"): "segment-F1, micro",
        ("segment_f1", "macro_zero"): "macro, 0 for classes never found",
    }
    rows = []
    for row in measured["rows"]:
        model = row["model"]
        values = {(figure["name"], figure["average"]): figure["value"] for figure in row["figures"]}
        name = {"efficientat": "EfficientAT, mn04_as"}.get(model["arch"], f"bundled, memory {model['memory']}")
        rows.append((name, f"{model['delay_s']:g} s", *(f"{100 * values[key]:.1f}" for key in heads)))
    return (
        f"{_table(('', 'delay', *heads.values()), rows)}\n\nIn percent, on {measured['scenes']} synthesised scenes of "
        f"{measured['length_s']:g} s with sounds of {measured['classes']} classes, labelled by their files' names; "
        "segments of 1 s, threshold 0.5. `satpipe benchmark taggers` measures these figures."
    )


def grids(figures: dict[str, Any]) -> str:
    """Return tables of accuracy and cost of rows shorter than a chunk."""
    measured = figures["grids"]
    heads = {
        "onset_f1": "onset-F1", "event_f1": "event-F1", "segment_f1_0.16": "segment-F1, 0.16 s",
        "segment_f1_0.5": "0.5 s", "segment_f1_1": "1 s", "segment_f1_2": "2 s", "psds1": "PSDS 1", "psds2": "PSDS 2",
    }  # fmt: skip
    rows, bounds = [], {}
    for row in measured["rows"]:
        hop = f"{row['hop_s']:.2f} s"
        values = (f"{100 * row['figures'][name]:.1f}" for name in heads)
        combine = row["combine"] if row["grids"] > 1 else ""
        rows.append((row["model"], str(row["grids"]), hop, combine, f"{row['x_realtime']:,.0f}", *values))
        bounds[row["hop_s"]] = (hop, *(f"{100 * row['ceilings'][name]:.1f}" for name in list(heads)[:-2]))
    of_grid = [bounds[hop_s] for hop_s in sorted(bounds, reverse=True)]
    head = ("", "grids", "row", "combine", "x realtime", *heads.values())
    return (
        f"{_table(head, rows, 4)}\n\nIn percent, on {measured['scenes']} synthesised scenes of "
        f"{measured['length_s']:g} s with {measured['events']} events of {measured['classes']} classes (seed "
        f"{measured['seeds']['reported']}), all classes together. Each F1 is at the threshold that is best for it on "
        f"{measured['scenes']} other scenes (seed {measured['seeds']['chosen_on']}); PSDS is at 50 evenly spaced "
        f"thresholds. x realtime is audio per second of "
        f"one processor ({measured['machine']['processor']}). {_shorter_or_more(measured['rows'])}\n\n"
        "The ground truth itself, put on the grid:\n\n"
        f"{_table(('row', *list(heads.values())[:-2]), of_grid)}"
    )


def _shorter_or_more(rows: Sequence[dict[str, Any]]) -> str:
    """Compare shorter chunks with more grids."""
    of = {(row["model"], row["grids"]): row for row in rows if row["combine"] == "geometric"}
    shorter, more = (
        f"an onset-F1 of {100 * row['figures']['onset_f1']:.1f} at {row['x_realtime']:,.0f} x realtime"
        for row in (of["SAT-T, 1 s", 1], of["SAT-T, 2 s", 2])
    )
    return f"Rows of 0.96 s: SAT-T reaches {shorter} with chunks of 1 s on one grid, and {more} with 2 s on two grids."


DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any]], str], ...]] = {
    "README.md": (disk, speed),
    "reports/docs/howto/long-runs.md": (disk,),
    "reports/docs/howto/stream.md": (live,),
    "reports/docs/howto/evaluation.md": (evaluation,),
    "reports/docs/howto/steadiness.md": (consistency,),
    "reports/docs/howto/other-taggers.md": (peers,),
    "reports/docs/howto/device.md": (device,),
    "reports/docs/howto/grids.md": (grids,),
    "reports/docs/explanation/speed.md": (stages, parts),
}


def fill(text: str, figures: dict[str, Any], document: str = "README.md") -> str:
    """Return the text with the figures between their marks."""
    for section in DOCUMENTS[document]:
        text = put(text, section.__name__, section(figures), document)
    return text


def put(text: str, name: str, content: str, document: str) -> str:
    """Return the text with content between the marks of a name.

    Raises:
        ValueError: The document has no such marks.
    """
    pattern = re.compile(rf"<!-- {name} -->.*?<!-- end of {name} -->", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{document} has no place for '{name}'")
    return pattern.sub(lambda _: _BETWEEN.format(name, content), text)


def measured() -> dict[str, Any]:
    """Return the figures in the JSON files that the measurements wrote."""
    folder = ROOT / "reports"
    figures: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    others = {
        "evaluation": "benchmark_evaluate.json",
        "consistency": "consistency.json",
        "stream": "benchmark_stream.json",
        "soak": "soak.json",
        "peers": "peers.json",
        "device": "benchmark_export.json",
        "grids": "benchmark_grids.json",
    }
    return figures | {name: json.loads((folder / file).read_text()) for name, file in others.items()}


def main() -> None:
    """Fill the documents of this checkout, and draw the picture of the speed."""
    figures = measured()
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(fill(path.read_text(), figures, document))
    speed_picture.draw(figures, ROOT / "reports")


if __name__ == "__main__":
    main()
