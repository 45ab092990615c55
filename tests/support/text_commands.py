"""The commands of the texts: what each one must do, and which are tested elsewhere."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import satpipe
from satpipe.sat.weights import hub
from texts import ROOT, TEXTS, blocks

RECORDINGS = (
    "0.wav",
    "AACQBaSIzog.wav",
    "rec-100525-0520.wav",
    "pond/a.wav",
    "pond/20250510_052000.wav",
    "pond/20250510_052006.wav",
)
"""In /recordings. The last two follow each other."""
Check = Callable[[Path, str], None]
"""Takes the folder of the commands and what a command printed."""


@dataclass(frozen=True)
class Command:
    """A command in the texts, and how its effect is checked.

    Attributes:
        check: Asserts the effect.
        after: Commands that run before it.
        apart: It changes what other commands need, so it gets its own copy of `out`.
    """

    check: Check
    after: tuple[str, ...] = ()
    apart: bool = False


def prints(*texts: str) -> Check:
    """Return a check of what a command prints."""

    def check(folder: Path, printed: str) -> None:
        assert all(text in printed for text in texts), printed

    return check


def writes(*names: str) -> Check:
    """Return a check of the files that a command writes."""

    def check(folder: Path, printed: str) -> None:
        assert all((folder / name).exists() for name in names), names

    return check


def check_make_tag(folder: Path, printed: str) -> None:
    assert re.search(r"^ +recording +chunk +start_s +end_s +mid +label +score$", printed, re.MULTILINE)
    assert len(re.findall(r"^\d+ +\S+ +\d+ .* 0\.\d+$", printed, re.MULTILINE)) == 12  # of which file depends on time
    assert f"The tables are in {folder}/out" in printed
    names = set(pd.read_parquet(folder / "out" / "recordings").recording)
    assert {"speech_16k_mono.WAV", "night/thunder_48k_mono.opus"} <= names
    # True tags: among the three that a recording has most of, in seven of the eight at least.
    tags = pd.read_parquet(folder / "out" / "tags")
    scores = tags.groupby(["recording", "label"], observed=True).score.sum()
    most = scores.groupby("recording", observed=True).nlargest(3).reset_index(level=0, drop=True)
    true = pd.read_csv(ROOT / "examples" / "labels.csv", index_col="path").labels.str.split(";")
    right = [any((name, label) in most.index for label in labels) for name, labels in true.items()]
    assert sum(right) >= len(right) - 1


def check_tag(folder: Path, printed: str) -> None:
    table = pd.read_parquet(folder / "out" / "recordings").set_index("recording")
    assert "speech_16k_mono.WAV" in table.index  # the same folder: what the examples gave stays
    assert list(table.chunks[["0.wav", "AACQBaSIzog.wav"]]) == [4, 4]


def check_clock(folder: Path, printed: str) -> None:
    rates = pd.read_parquet(folder / "out" / "recordings").set_index("recording").clock_rate
    assert rates["pond/20250510_052000.wav"] == pytest.approx(1 + 73 / (31 * 86400))


def check_pruned(folder: Path, printed: str) -> None:
    names = set(pd.read_parquet(folder / "out" / "recordings").recording)
    assert names == set(RECORDINGS)


def check_pulled(folder: Path, printed: str) -> None:
    assert len(pd.read_parquet(folder / "out_sat" / "scores")) == 4 * len(RECORDINGS)
    assert json.loads((folder / "out_sat" / "run.json").read_text())["identity"]["arch"] == "SAT_T_2s"


def check_joined(folder: Path, printed: str) -> None:
    table = pd.read_parquet(folder / "out_joined" / "recordings").set_index("recording")
    assert len(table.loc["pond/20250510_052000.wav"].files) == 2
    assert "start time known for 2 of 5 recordings" in printed


def check_alone(folder: Path, printed: str) -> None:
    assert json.loads((folder / "out_alone" / "run.json").read_text())["identity"]["memory"] == "off"


def check_stream(folder: Path, printed: str) -> None:
    *_, last, end = map(json.loads, printed.splitlines())
    assert {"source", "chunk", "start_s", "end_s", "tags"} <= set(last)
    assert last["tags"][0]["label"] == "Speech"
    assert (end["event"], end["end_s"]) == ("end", 10.0)


def check_events(folder: Path, printed: str) -> None:
    found = pd.read_parquet(folder / "out" / "events.parquet")
    assert {"Bird", "Speech"} <= set(found.label)
    assert found.peak_score.min() >= 0.3


def check_bird_events(folder: Path, printed: str) -> None:
    found = pd.read_csv(folder / "birds.csv")
    assert set(found.label) == {"Bird"}
    assert "birds_48k_stereo.opus" in set(found.recording)


def check_events_of_a_table(folder: Path, printed: str) -> None:
    found = pd.read_parquet(folder / "out" / "events.parquet")
    assert set(found.label) <= {"Bird", "Thunder"}
    assert (found.end_s - found.start_s).min() >= 2


def check_hits(folder: Path, printed: str) -> None:
    hits = pd.read_csv(folder / "hits.csv")
    assert hits.recording[0] == "birds_48k_stereo.opus"
    assert set(hits.label) == {"birds_48k_stereo"}
    assert f"{len(hits)} hits with 20 of 61 chunks" in printed


def check_report(folder: Path, printed: str) -> None:
    assert printed.strip().endswith("report.html")
    text = (folder / "report.html").read_text()
    assert "Sounds in out" in text
    assert "speech_16k_mono.WAV" in text


def check_evaluated(folder: Path, printed: str) -> None:
    assert "2 of 3 clips found (not found: -9DpfakhxAU" in printed
    assert "eval_segments.csv of AudioSet, 1 of 20,371 clips found" in printed
    result = json.loads((folder / "results" / "evaluate.json").read_text())
    names = {figure["name"] for figure in result["figures"]}
    assert {"mAP", "segment_f1", "onset_f1", "event_f1", "error_rate", "psds1"} <= names
    assert len(pd.read_csv(folder / "results" / "classes.csv")) == 527


def check_evaluated_both(folder: Path, printed: str) -> None:
    assert "Table 2 of Dinkel et al." in printed
    assert "Table 3 of Dinkel et al." in printed
    assert {path.name for path in (folder / "compared").iterdir()} == {"out", "out_alone"}


def check_scenes(folder: Path, printed: str) -> None:
    assert "scenes contains 20 scenes, 0:10:00 in total" in printed
    assert len(list((folder / "scenes" / "audio").iterdir())) == 20


def check_clips(folder: Path, printed: str) -> None:
    assert "clips/review.html (" in printed
    sheet = pd.read_csv(folder / "clips" / "sheet.csv")
    assert {path.name for path in (folder / "clips" / "audio").iterdir()} == {Path(clip).name for clip in sheet["clip"]}
    # The truth answers, as the page on verification lets it.
    (answer,) = (block for block in blocks(TEXTS[VERIFICATION], "python") if "strong.tsv" in block)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        exec(compile(answer, VERIFICATION, "exec"), {})


def check_verification(folder: Path, printed: str) -> None:
    assert all(f"| {label} |" in printed for label in ("Bird", "Speech", "Thunder"))
    verified = satpipe.verify(folder / "clips" / "sheet.csv").set_index("mid")
    truth = pd.read_csv(folder / "scenes" / "strong.tsv", sep="\t").dropna()
    found = satpipe.events(folder / "out_scenes", labels=list(verified.index), threshold=0.1)
    both = found.reset_index().merge(truth, left_on=["recording", "mid"], right_on=["filename", "event_label"])
    right = both[(both.onset < both.end_s) & (both.offset > both.start_s)]["index"]
    precision = found.index.isin(right)
    for mid, events in found.groupby("mid", observed=True):
        low, high = verified.loc[mid, ["low", "high"]]
        assert low - 0.005 <= precision[events.index].mean() <= high + 0.005


def check_verified_events(folder: Path, printed: str) -> None:
    assert 0 < len(pd.read_csv(folder / "events.csv")) < len(satpipe.events(folder / "out_scenes", threshold=0.1))


def check_answers_as_truth(folder: Path, printed: str) -> None:
    assert "pairs of clip and class were judged: nothing else counts" in printed


def check_tagged_scenes(folder: Path, printed: str) -> None:
    assert len(pd.read_parquet(folder / "out_scenes" / "recordings")) == 20


def check_steadiness(folder: Path, printed: str) -> None:
    assert "| Bird | 0.wav | SAT_T_2s, 2 s, memory (out_sat) |" in printed
    assert "| Vehicle | AACQBaSIzog.wav | SAT_T_2s, 2 s, no memory (out_alone) |" in printed
    names = {path.name for path in (folder / "steadiness").iterdir()}
    assert names == {f"consistency.{ending}" for ending in ("json", "csv", "png", "svg")}


def check_models(folder: Path, printed: str) -> None:
    assert all(name in printed for name in hub.PUBLISHED)


def check_device_example(folder: Path, printed: str) -> None:
    rows = pd.read_csv(io.StringIO(printed))
    assert "Speech" in set(rows[rows.chunk == 0].label)


EVALUATE = "satpipe evaluate --weak --strong -o results"
TAG = "satpipe tag /recordings"
TAG_LIKE = "satpipe tag examples/recordings -o out_like --embeddings"
SEARCH = "satpipe search out_like --like examples/recordings/birds_48k_stereo.opus --end-s 6 -n 20 -o hits.csv"
TAG_ALONE = "satpipe tag /recordings -o out_alone --memory off"
TAG_SAT = "satpipe tag /recordings -o out_sat --model SAT_T_2s"
PULL = "satpipe models pull SAT_T_2s"
EVALUATE_BOTH = "satpipe evaluate out out_alone --strong -o compared --table2 --table3"
SYNTH = "satpipe synth -o scenes --foreground examples/sounds.csv --scenes 20 --length-s 30"
TAG_SCENES = "satpipe tag scenes/audio -o out_scenes"
VERIFICATION = "reports/docs/howto/verification.md"
CLIPS = (
    "satpipe clips out_scenes -o clips --labels Bird --labels Speech --labels Thunder --threshold 0.1 --per-class 20"
)
JOIN = "satpipe tag /recordings -o out_joined --time-zone Europe/Berlin --join"
VERIFY = "satpipe verify clips/sheet.csv -o thresholds.json"
EXPORT = "satpipe export bundled -o sat.onnx --check examples/recordings"

COMMANDS = {
    # README
    "make tag": Command(check_make_tag),
    TAG: Command(check_tag, ("make tag",)),
    "satpipe evaluate --strong": Command(prints("2 of 3 clips found", "segment-F1"), (TAG,)),
    "satpipe models": Command(check_models),
    PULL: Command(prints("SAT_T_2s is in ")),
    TAG_SAT: Command(check_pulled, (PULL,)),
    # how-to guides
    "satpipe report -o report.html": Command(check_report, ("make tag",)),
    "satpipe report --group birds --labels Insect --recordings 'pond/*' --since 2025-05-01 --until 2025-06-01 "
    "--threshold 0.3": Command(writes("out/report.html"), (TAG,)),
    "satpipe report --pictures pictures": Command(
        writes("pictures/labels_over_time.svg", "pictures/recordings"), (TAG,)
    ),
    "satpipe events --labels under:Animal --labels Speech --threshold 0.3 --merge-gap-s 4": Command(
        check_events, (TAG,)
    ),
    "satpipe events --labels Bird --threshold 0.2 -o birds.csv": Command(check_bird_events, (TAG,)),
    "satpipe events --group birds --threshold 0.3 -o birds.csv": Command(writes("birds.csv"), (TAG,)),
    "satpipe events --group birds --threshold 0.3": Command(writes("out/events.parquet"), (TAG,), apart=True),
    "satpipe activity --group birds --by hour --threshold 0.3 -o birds_by_hour.csv": Command(
        writes("birds_by_hour.csv"), (TAG,)
    ),
    TAG_LIKE: Command(writes("out_like/embeddings")),
    SEARCH: Command(check_hits, (TAG_LIKE,)),
    "satpipe clips out_like --stretches hits.csv -o like_clips": Command(writes("like_clips/sheet.csv"), (SEARCH,)),
    "satpipe search out_like --like-recording night/thunder_48k_mono.opus --start-s 2 --end-s 6": Command(
        prints("hits with 50 of "), (TAG_LIKE,)
    ),
    "satpipe events --threshold thresholds.csv --merge-gap-s 4 --min-s 2": Command(check_events_of_a_table, (TAG,)),
    f"{TAG} --time-zone Europe/Berlin": Command(prints("recordings (3 from name)"), (TAG,)),
    f"{TAG} --time-pattern 'rec-%d%m%y-%H%M'": Command(prints("(1 from pattern, 2 from name)"), (TAG,)),
    f"{TAG} --time-zone Europe/Berlin --clock-marks marks.csv": Command(check_clock, (TAG,)),
    f"{TAG} --times times.csv": Command(prints("(1 from csv, 3 from name)"), (TAG,)),
    JOIN: Command(check_joined),
    f"{TAG} --dry-run": Command(prints("6 recordings"), (TAG,)),
    "satpipe status": Command(prints("finished", "model: SAT_T_2s"), (TAG,)),
    "satpipe status --max-age 26h": Command(prints("finished"), (TAG,)),
    "satpipe status --json": Command(prints('"state": "finished"', '"exit_code": 0'), (TAG,)),
    "satpipe status --check": Command(prints("out is undamaged"), (TAG,)),
    f"{TAG} --prune": Command(check_pruned, (TAG,), apart=True),
    f"{TAG} --retry-failed": Command(check_tag, (TAG,)),
    f"{TAG} -q || [ $? -eq 3 ]": Command(check_tag, (TAG,)),
    "satpipe stream examples/recordings/speech_16k_mono.WAV --idle-s 0": Command(check_stream),
    EVALUATE: Command(check_evaluated, (TAG,)),
    "satpipe evaluate --strong strong.tsv --tune validation.txt -o tuned": Command(
        writes("tuned/evaluate.json"), (TAG,)
    ),
    TAG_ALONE: Command(check_alone),
    EVALUATE_BOTH: Command(check_evaluated_both, (TAG, TAG_ALONE)),
    "satpipe evaluate --compare compared/out compared/out_alone": Command(
        prints("segment-F1, 1.92 s"), (EVALUATE_BOTH,)
    ),
    "satpipe report-evaluation results -o pictures": Command(
        writes(
            *(
                f"pictures/{name}"
                for name in (
                    "classes_average_precision.png",
                    "psd_roc.svg",
                    "branches.svg",
                    "tables.html",
                    "tables.tex",
                )
            )
        ),
        (EVALUATE,),
    ),
    SYNTH: Command(check_scenes),
    TAG_SCENES: Command(check_tagged_scenes, (SYNTH,)),
    CLIPS: Command(check_clips, (TAG_SCENES,)),
    VERIFY: Command(check_verification, (CLIPS,)),
    "satpipe events out_scenes --threshold thresholds.json --low 0.06 -o events.csv": Command(
        check_verified_events, (VERIFY,)
    ),
    "satpipe evaluate out_scenes --strong clips/sheet.csv --bootstrap 0": Command(check_answers_as_truth, (VERIFY,)),
    "satpipe evaluate out_scenes --strong scenes/strong.tsv --weak scenes/weak.csv -o results_scenes": Command(
        prints("20 of 20 clips found"), (TAG_SCENES,)
    ),
    "satpipe report-consistency --labels Bird,Vehicle out_sat out_alone -o steadiness": Command(
        check_steadiness, (TAG_SAT, TAG_ALONE)
    ),
    "satpipe compact": Command(prints("out: files of each table: "), (TAG,), apart=True),
    "satpipe profile SAT_T_2s": Command(prints("| SAT_T_2s | 5.5 | 48 | 48/48 |")),
    EXPORT: Command(prints("sat.onnx: SAT_T_2s, fp32, ", "chunks of examples/recordings: largest difference ")),
    "python examples/device/tag.py sat.onnx examples/recordings/speech_16k_mono.WAV": Command(
        check_device_example, (EXPORT,)
    ),
}

ELSEWHERE = {
    "make test": "below",
    "make check": "below",
    "make docs": "test_docs.py",
    'pytest -m "not slow"': "below",
    "apt-get install chromium chromium-driver": "below",
    "apt-get install openjdk-17-jre-headless": "what test_spark.py needs",
    "make train-smoke": "below",
    "satpipe formula-audio formula": "test_bundled.py",
    "satpipe prepare garden -o garden_set": "test_train.py",
    "satpipe psl garden_set --strong garden.tsv -o garden_labels": "test_train.py",
    "satpipe tag garden": "test_docs.py: the tutorial runs it",
    "satpipe tag garden --embeddings": "test_docs.py: the page on own classes runs it",
    "satpipe search --like-recording garden0.wav --start-s 9 --end-s 11 -n 20 --label gate -o hits.csv": "test_docs.py",
    "satpipe learn judged.csv --embeddings-from out -o gate.safetensors": "test_docs.py",
    "satpipe classify --own-classes gate.safetensors": "test_docs.py",
    "satpipe events --own gate": "test_own_classes.py",
    "satpipe compare out out_sat -o changes.csv": "test_compare.py",
    'satpipe events --group birds --group "rain and water" -o birds.csv': "test_events.py",
    "satpipe activity --group birds --group frogs --by hour --time-zone Europe/Berlin -o hours.csv": "test_activity.py",
    f"{TAG} --precision auto": "test_precision.py",
    "satpipe tag /shared/recordings -o /shared/out --address auto": "test_survival.py",
    "satpipe status /shared/out": "as for another folder",
    "satpipe tag recordings -o out_fine --grids 4": "test_tag_grids.py",
    "satpipe events out_fine --threshold 0.3": "test_tag_grids.py",
    "satpipe evaluate --strong desed.tsv --aliases desed": "test_truth_dialects.py",
    "satpipe evaluate out_test --strong test.tsv --threshold tuned/thresholds.json": "test_evaluate.py",
    "satpipe events out_test --threshold tuned/thresholds.json": "test_truth_dialects.py",
    "ray start --head --port 6379": "Ray's",
    "ray start --address FIRST:6379": "Ray's",
    "satpipe export bundled -o sat_int8.onnx --int8 --check /recordings": "test_export.py",
    "satpipe export bundled -o sat.pt --format torchscript": "test_export.py",
    "satpipe tag s3://recordings/site1 -o s3://tables/site1": "test_object_store.py",
    "satpipe events s3://tables/site1 --labels Bird -o birds.csv": "test_object_store.py",
    "satpipe profile SAT_T_2s ast --delay-s 2 -o costs.json": "test_profile.py",
    "satpipe benchmark tag examples/recordings -o benchmark.json": "test_benchmark.py",
    "satpipe benchmark consistency examples/recordings/birds_48k_stereo.opus "
    "examples/recordings/car_engine_22k05_mono.mp3 -o consistency": "test_benchmark.py",
    "python -m satpipe.reports.readme": "below",
}
"""Commands that are tested elsewhere, and where."""

UNAVAILABLE = re.compile(
    r"pip install .*"  # needs the network
    r"|satpipe tag recordings -o out_\w+ --model (ast|efficientat):.*|satpipe tag recordings -o out --model loudness"
    r"|satpipe evaluate out_sat out_ast out_eat .*"  # weights; test_other_taggers.py has models like these
    r"|satpipe stream (SOURCE\.\.\.|recording\.wav .*|rtsp://.*|--live https://.*)|arecord .*"  # test_live_sources.py
    r"|satpipe (prepare audioset/.*|train (mae|full|sat) .*|psl train .*|reproduce .*)"  # AudioSet; train-smoke
    r"|satpipe (train-bundled corpus|extra-audio) .*|satpipe benchmark tag .* --device cuda"
    r"|satpipe tag /recordings (-o out_garden )?--model (sat|garden_model)/model\.safetensors"
    r"|satpipe benchmark bundled corpus .*|python -m satpipe\.reports\.model_card figures\.json"  # test_bundled.py
)
"""Commands that need what a test does not have; test_docs.py parses them."""
