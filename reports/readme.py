"""Write the measured figures into the README and the documentation: `python -m satpipe.reports.readme`."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from satpipe.jobs.consistency import Figures
from satpipe.reports import consistency_pictures as pages

ROOT = Path(__file__).resolve().parent.parent
_PRECISIONS = ("fp32", "bf16")  # on processors
_BETWEEN = "<!-- {0} -->\n{1}\n<!-- end of {0} -->"


def speed(figures: dict[str, Any]) -> str:
    """Markdown table of how fast tagging is."""
    loop = figures["loop_x_realtime"]
    rows = [("plain loop: one chunk at a time, batch 1, all processors", loop)]
    rows += [(f"`satpipe tag`, {name}", run["x_realtime"]) for name, run in figures["runs"].items()]
    lines = ["| | x realtime | times the loop |", "|---|---:|---:|"]
    for name, x_realtime in rows:
        ratio = "" if "FLAC" in name else f"{x_realtime / loop:.1f}"  # the loop reads the WAV
        lines.append(f"| {name} | {x_realtime:,.0f} | {ratio} |")
    for name, row in figures["sizes"].items():
        for precision in _PRECISIONS:
            lines.append(
                f"| `satpipe tag`, gapless {precision}, {name} | {row[precision]:,.0f} | "
                f"{row[precision] / row['loop']:.1f} |"
            )
    machine = figures["machine"]
    versions = figures["versions"]
    start_up = figures["start_up"]
    where = (
        f"{figures['model']} on {machine['processors']} processors ({machine['processor']}), torch {versions['torch']}"
    )
    return (
        "\n".join(lines)
        + f"\n\n{where}, {figures['hours']:g} h of 16 kHz WAV where nothing else is said. Starting Ray took "
        + f"{figures['ray_start_s']:.1f} s more, and the workers' first recording {figures['first_run_s']:.1f} s; one "
        + f"short file takes {start_up['one_file_s']:.1f} s in all, `satpipe --help` {start_up['help_s']:.2f} s. The "
        + "larger models have random weights.\n"
        + f"Largest difference of any score between the first two rows: {figures['largest_score_difference']:.1e}."
    )


def stages(figures: dict[str, Any]) -> str:
    """Markdown table of the workers' time by stage."""
    names = {"read": "decode and resample", "log_mel": "log-mel", "model": "model", "write": "write"}
    lines = ["| share of the workers' time | " + " | ".join(names.values()) + " |", "|---|" + "---:|" * len(names)]
    for run in ("gapless fp32", "gapless bf16", "gapless fp32, 48 kHz stereo FLAC", "gapless bf16, 48 kHz stereo FLAC"):
        seconds = figures["runs"][run]["worker_s"]
        total = sum(seconds.values())
        lines.append(f"| {run} | " + " | ".join(f"{seconds[name] / total:.0%}" for name in names) + " |")
    return "\n".join(lines)


def parts(figures: dict[str, Any]) -> str:
    """Markdown tables of each part alone on one processor, and of the models beside their products."""
    lines = ["| alone, on one processor | x realtime |", "|---|---:|"]
    lines += [f"| {name} | {rate:,.0f} |" for name, rate in figures["parts"].items() if name != "memory_copy"]
    lines += ["", "| model alone | x realtime | its products' rate, GFLOP/s | nothing but products | reached |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, row in figures["models"].items():
        lines.append(
            f"| {name} | {row['x_realtime']:,.0f} | {row['flops'] / 1e9:,.0f} | {row['bound_x_realtime']:,.0f} "
            f"| {row['x_realtime'] / row['bound_x_realtime']:.0%} |"
        )
    flac = figures["parts"]["decode, mix and resample FLAC"] * figures["machine"]["processors"]
    shares = [
        figures["runs"][f"gapless {precision}, 48 kHz stereo FLAC"]["x_realtime"] / flac for precision in _PRECISIONS
    ]
    copied = figures["parts"]["memory_copy"] / 1e9
    return "\n".join(lines) + (
        f"\n\nMemory is copied at {copied:.0f} GB/s. `satpipe tag` takes 48 kHz stereo FLAC at {shares[0]:.0%} (fp32) "
        f"and {shares[1]:.0%} (bf16) of the rate at which all processors would decode and resample it."
    )


def disk(figures: dict[str, Any]) -> str:
    """What a year of audio takes on disk."""
    year = figures["year_bytes"]
    return (
        f"A year of audio without a gap takes about {year['tags'] / 1e9:.1f} GB as tags "
        f"and {year['scores'] / 1e9:.0f} GB as scores."
    )


def evaluation(figures: dict[str, Any]) -> str:
    """How long `evaluate` takes on a set of the size of AudioSet's strong labels."""
    measured = figures["evaluation"]
    quick, full = measured["figures"], measured["with_intervals"]
    machine = measured["machine"]
    return (
        f"All figures of a set as large as AudioSet's strong evaluation set ({measured['clips']:,} clips, "
        f"{measured['events']:,} events, {measured['classes']} classes, PSDS at {measured['psds_thresholds']} "
        "thresholds) "
        f"take {quick['elapsed_s']:.0f} s and {quick['peak_bytes'] / 1e9:.1f} GB, with bootstrap intervals "
        f"{full['elapsed_s']:.0f} s and {full['peak_bytes'] / 1e9:.1f} GB, on {machine['processors']} processors "
        f"({machine['processor']}). sed_eval's own loops, without PSDS, take {measured['sed_eval_s'] / 60:.0f} minutes "
        f"there, reckoned from one clip in {measured['sed_eval_one_in']}. `make bench-evaluate` measures it."
    )


def live(figures: dict[str, Any]) -> str:
    """How long a chunk takes from its last sample to its line, and what hours of sound take."""
    measured, soak = figures["stream"], figures["soak"]
    lines = ["| model | streams | input | median, ms | 95 %, ms | chunks |", "|---|---:|---|---:|---:|---:|"]
    for run in measured["runs"]:
        channels = {1: "mono", 2: "stereo"}[run["channels"]]
        lines.append(
            f"| {run['model']} | {run['streams']} | {run['rate_hz'] / 1000:g} kHz {channels} | "
            f"{run['median_s'] * 1000:.0f} | {run['p95_s'] * 1000:.0f} | {run['chunks']} |"
        )
    flat = " and ".join(_steady(soak[command], f"`satpipe {command}`") for command in ("tag", "stream"))
    return (
        f"From the last sample of a chunk to its line, in blocks of {measured['block_s'] * 1000:.0f} ms, on one "
        f"processor ({measured['machine']['processor']}):\n\n"
        + "\n".join(lines)
        + "\n\n16 ms of it is the half window that the last frame takes from the next chunk. `make bench-stream` "
        + f"measures it. What long runs take, at their fourth and ninth tenth, by `make soak`: {flat}."
    )


def _steady(run: dict[str, Any], what: str) -> str:
    memory_mb, handles = run["memory_mb"], run["handles"]
    return (
        f"{what} with all it starts {memory_mb[3]:,.0f} and {memory_mb[8]:,.0f} MB and {handles[3]:,.0f} and "
        f"{handles[8]:,.0f} open files, in {run['hours']:g} h of sound"
    )


def consistency(figures: dict[str, Any]) -> str:
    """Markdown table of score over time of two long sounds."""
    measured = figures["consistency"]
    rows = [Figures(**row) for row in measured["figures"] if row["recording"]]
    return pages.table(rows, measured["threshold"]).markdown().partition("\n\n")[2]


def device(figures: dict[str, Any]) -> str:
    """Markdown table of exported files: size, and x realtime on one core; then what int8 costs."""
    measured = figures["device"]
    lines = [
        "| on one core | ONNX file | int8 | x realtime: Python | ONNX Runtime | int8 | TorchScript |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for model in measured["models"]:
        size, speed = model["size_bytes"], model["x_realtime"]
        sizes = " | ".join(f"{size[way] / 1e6:.1f} MB" for way in ("onnx", "int8"))
        speeds = " | ".join(f"{speed[way]:,.0f}" for way in ("torch", "onnx", "int8", "torchscript"))
        lines.append(f"| {model['config']} | {sizes} | {speeds} |")
    bundled, machine = measured["models"][0]["difference"], measured["machine"]
    exact, int8 = bundled["onnx"], bundled["int8"]
    return (
        "\n".join(lines)
        + f"\n\n{machine['processor']}, torch {measured['versions']['torch']}, "
        + f"ONNX Runtime {measured['versions']['onnxruntime']}. Over the {exact['chunks']} chunks of the example "
        + f"recordings no score of the bundled model as ONNX is more than {exact['largest']:.0e} from that of Python; "
        + f"as int8 {int8['largest']:.3f} at most, {int8['mean']:.0e} on average, and the highest class is the same in "
        + f"{int8['same_top']:.0%} of chunks."
    )


def peers(figures: dict[str, Any]) -> str:
    """Markdown table of how well EfficientAT and the bundled model tag under several delays."""
    measured = figures["peers"]
    heads = {
        ("mAP", "macro"): "mAP",
        ("segment_f1", "micro"): "segment-F1, micro",
        ("segment_f1", "macro_zero"): "macro, classes never found as 0",
    }
    lines = ["| | delay | " + " | ".join(heads.values()) + " |", "|---|---:|" + "---:|" * len(heads)]
    for row in measured["rows"]:
        model = row["model"]
        values = {(figure["name"], figure["average"]): figure["value"] for figure in row["figures"]}
        name = {"efficientat": "EfficientAT, mn04_as"}.get(model["arch"], f"bundled, memory {model['memory']}")
        cells = " | ".join(f"{100 * values[key]:.1f}" for key in heads)
        lines.append(f"| {name} | {model['delay_s']:g} s | {cells} |")
    return (
        "\n".join(lines)
        + f"\n\nIn percent, on {measured['scenes']} synthesised scenes of {measured['length_s']:g} s with sounds of "
        f"{measured['classes']} classes, named by their files' names; segments of 1 s, threshold 0.5. "
        "`make bench-peers` measures it."
    )


DOCUMENTS: dict[str, tuple[Callable[[dict[str, Any]], str], ...]] = {
    "README.md": (disk, speed),
    "reports/docs/howto/long-runs.md": (disk,),
    "reports/docs/howto/stream.md": (live,),
    "reports/docs/howto/evaluation.md": (evaluation,),
    "reports/docs/howto/steadiness.md": (consistency,),
    "reports/docs/howto/other-taggers.md": (peers,),
    "reports/docs/howto/device.md": (device,),
    "reports/docs/explanation/speed.md": (stages, parts),
}


def fill(text: str, figures: dict[str, Any], document: str = "README.md") -> str:
    """Put the figures between their marks."""
    for section in DOCUMENTS[document]:
        text = put(text, section.__name__, section(figures), document)
    return text


def put(text: str, name: str, content: str, document: str) -> str:
    """Put content between the marks of a name.

    Raises:
        ValueError: The document has no such marks.
    """
    pattern = re.compile(rf"<!-- {name} -->.*?<!-- end of {name} -->", re.DOTALL)
    if not pattern.search(text):
        raise ValueError(f"{document} has no place for '{name}'")
    return pattern.sub(lambda _: _BETWEEN.format(name, content), text)


def measured() -> dict[str, Any]:
    """What the targets `bench`, `bench-evaluate`, `bench-stream`, `bench-peers`, `consistency` and `soak` wrote."""
    folder = ROOT / "reports"
    figures: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    others = {
        "evaluation": "benchmark_evaluate.json",
        "consistency": "consistency.json",
        "stream": "benchmark_stream.json",
        "soak": "soak.json",
        "peers": "peers.json",
        "device": "benchmark_export.json",
    }
    return figures | {name: json.loads((folder / file).read_text()) for name, file in others.items()}


def main() -> None:
    """Fill the documents of this checkout."""
    for document in DOCUMENTS:
        path = ROOT / document
        path.write_text(fill(path.read_text(), measured(), document))


if __name__ == "__main__":
    main()
