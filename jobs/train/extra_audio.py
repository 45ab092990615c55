"""`satpipe extra-audio`: sounds from Debian's packages, cut into clips.

OUT/audio/PACKAGE/NAME_START.flac  16 kHz mono
OUT/manifest.tsv                   path, package, version, file, licence, split

extra_audio.tsv.gz lists all clips of the set that the bundled model was trained on (split train), and of the set on
which it is evaluated (split held-out). Licences are those in the copyright file of each package.
"""

import csv
import gzip
import subprocess
import tempfile
from collections.abc import Collection, Iterator
from itertools import groupby
from pathlib import Path
from shutil import which

import soundfile
from satpipe.pipeline.training_data.shards import decode_clip
from satpipe.sat.errors import AudioError, ConfigError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

TABLE = Path(__file__).parent / "extra_audio.tsv.gz"
MANIFEST = "manifest.tsv"
Row = dict[str, str]


def rows_of(table: Path, packages: Collection[str] = ()) -> list[Row]:
    """Read the rows of the given packages, by default all rows."""
    with gzip.open(table, "rt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if not packages or row["package"] in packages]


def clip_path(row: Row) -> str:
    """Return the path of a clip below OUT/audio, which is unique to its row."""
    parts = Path(row["file"]).with_suffix("").parts[-2:]
    return f"{row['package']}/{'_'.join(parts)}_{row['start_s']}{Path(row['file']).suffix}.flac"


def fetch(package: str, version: str, folder: Path) -> None:
    """Download a package and unpack it into a folder.

    Raises:
        ConfigError: apt is not installed, or it cannot find this version.
    """
    if not which("apt-get") or not which("dpkg-deb"):
        raise ConfigError(
            "apt-get and dpkg-deb, which download and unpack the packages, are not installed: use Debian 12 or its "
            "container"
        )
    found = subprocess.run(
        ["apt-get", "download", f"{package}={version}"], cwd=folder, capture_output=True, text=True, check=False
    )
    files = list(folder.glob("*.deb"))
    if found.returncode or not files:
        raise ConfigError(
            f"apt-get cannot find {package} {version}; Debian 12's main section or snapshot.debian.org has it",
            *found.stderr.strip().splitlines(),
        )
    subprocess.run(["dpkg-deb", "-x", str(files[0]), str(folder)], check=True)


def cut(rows: list[Row], unpacked: Path, audio: Path) -> Iterator[str]:
    """Write the clips of one package's rows into `audio`; yield a message for each clip that cannot be made."""
    for row in rows:
        target = audio / clip_path(row)
        try:
            samples, _ = decode_clip((unpacked / row["file"]).read_bytes(), SAMPLE_RATE_HZ)
        except (OSError, AudioError) as error:
            yield f"{row['package']}: {row['file']}: {error}"
            continue
        start = round(float(row["start_s"]) * SAMPLE_RATE_HZ)
        clip = samples[start : start + round(float(row["duration_s"]) * SAMPLE_RATE_HZ)]
        target.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(target, clip.clip(-1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")


def make(out: Path, packages: Collection[str] = ()) -> list[str]:
    """Make the set, by default from all packages; existing clips are kept.

    Returns:
        A message for each clip that could not be made.

    Raises:
        ConfigError: A package is unknown or cannot be downloaded.
    """
    rows = rows_of(TABLE, packages)
    if not rows:
        raise ConfigError(f"{TABLE.name} contains no package {', '.join(packages)}")
    problems: list[str] = []
    for package, group in groupby(rows, key=lambda row: row["package"]):
        wanted = list(group)
        if not all((out / "audio" / clip_path(row)).is_file() for row in wanted):
            with tempfile.TemporaryDirectory(prefix="satpipe-") as folder:
                fetch(package, wanted[0]["version"], Path(folder))
                problems += cut(wanted, Path(folder), out / "audio")
    made = [{"path": clip_path(row)} | row for row in rows if (out / "audio" / clip_path(row)).is_file()]
    write_manifest(out, made)
    return problems


def write_manifest(out: Path, rows: list[Row]) -> None:
    """Write the table of the clips of a set."""
    with (out / MANIFEST).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
