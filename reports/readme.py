"""Write the measured figures into the README: `python -m reports.readme`."""

import json
import re
from pathlib import Path
from typing import Any

from jobs.consistency import Figures
from reports import consistency as pages

ROOT = Path(__file__).parent.parent
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
    machine = figures["machine"]
    versions = figures["versions"]
    where = (
        f"{figures['model']} on {machine['processors']} processors ({machine['processor']}), torch {versions['torch']}"
    )
    return (
        "\n".join(lines)
        + f"\n\n{where}, {figures['hours']:g} h of 16 kHz WAV where nothing else is said. Starting Ray took "
        + f"{figures['ray_start_s']:.1f} s more, and the workers' first recording {figures['first_run_s']:.1f} s.\n"
        + f"Largest difference of any score between the first two rows: {figures['largest_score_difference']:.1e}."
    )


def stages(figures: dict[str, Any]) -> str:
    """Markdown table of the workers' time by stage."""
    names = {"read": "decode and resample", "log_mel": "log-mel", "model": "model", "write": "write"}
    lines = ["| share of the workers' time | " + " | ".join(names.values()) + " |", "|---|" + "---:|" * len(names)]
    for run in ("gapless fp32", "gapless bf16", "gapless fp32, 48 kHz stereo FLAC"):
        seconds = figures["runs"][run]["worker_s"]
        total = sum(seconds.values())
        lines.append(f"| {run} | " + " | ".join(f"{seconds[name] / total:.0%}" for name in names) + " |")
    return "\n".join(lines)


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


def consistency(figures: dict[str, Any]) -> str:
    """Markdown table of score over time of two long sounds."""
    measured = figures["consistency"]
    rows = [Figures(**row) for row in measured["figures"] if row["recording"]]
    return pages.table(rows, measured["threshold"]).markdown().partition("\n\n")[2]


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


def fill(readme: str, figures: dict[str, Any]) -> str:
    """Put the figures between their marks."""
    for section in (speed, stages, disk, evaluation, consistency, peers):
        name = section.__name__
        pattern = re.compile(rf"<!-- {name} -->.*?<!-- end of {name} -->", re.DOTALL)
        if not pattern.search(readme):
            raise ValueError(f"README.md has no place for '{name}'")
        text = _BETWEEN.format(name, section(figures))
        readme = pattern.sub(text.replace("\\", r"\\"), readme)
    return readme


def measured() -> dict[str, Any]:
    """What `make bench`, `make bench-evaluate`, `make consistency` and `make bench-peers` wrote."""
    folder = ROOT / "reports"
    figures: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    others = {"evaluation": "benchmark_evaluate.json", "consistency": "consistency.json", "peers": "peers.json"}
    return figures | {name: json.loads((folder / file).read_text()) for name, file in others.items()}


def main() -> None:
    """Fill the README of this checkout."""
    path = ROOT / "README.md"
    path.write_text(fill(path.read_text(), measured()))


if __name__ == "__main__":
    main()
