"""Sounds from Debian's packages, cut into clips as a table says: `python -m satpipe.jobs.train.extra_audio OUT`.

OUT/audio/PACKAGE/NAME_START.flac  16 kHz mono
OUT/manifest.tsv                   path, package, version, file, licence, split

The table, extra_audio.tsv.gz, names every clip of the set that the bundled model was trained on (split train), and of
the one that it is judged by (split held-out). Licences are those that the package's copyright file names for its data.
"""

import csv
import gzip
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from shutil import which

import click
import soundfile
from satpipe.pipeline.training_data.shards import decode_clip
from satpipe.sat.errors import AudioError, ConfigError, SatpipeError
from satpipe.sat.model.config import SAMPLE_RATE_HZ

TABLE = Path(__file__).parent / "extra_audio.tsv.gz"
MANIFEST = "manifest.tsv"
Row = dict[str, str]


def rows_of(table: Path, packages: frozenset[str] = frozenset()) -> list[Row]:
    """Read the rows of some packages, or of all if none is named."""
    with gzip.open(table, "rt", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return [row for row in rows if not packages or row["package"] in packages]


def clip_path(row: Row) -> str:
    """Where a clip goes below OUT/audio; the same for no two rows."""
    parts = Path(row["file"]).with_suffix("").parts[-2:]
    return f"{row['package']}/{'_'.join(parts)}_{row['start_s']}{Path(row['file']).suffix}.flac"


def fetch(package: str, version: str, folder: Path) -> None:
    """Download a package and unpack it into a folder.

    Raises:
        ConfigError: There is no apt here, or it has no such version.
    """
    if not which("apt-get") or not which("dpkg-deb"):
        raise ConfigError(
            "the packages are fetched with apt-get and dpkg-deb: run this on Debian 12 or in its container"
        )
    found = subprocess.run(
        ["apt-get", "download", f"{package}={version}"], cwd=folder, capture_output=True, text=True, check=False
    )
    files = list(folder.glob("*.deb"))
    if found.returncode or not files:
        raise ConfigError(
            f"apt-get has no {package} {version}; Debian 12's main section or snapshot.debian.org has it\n"
            f"{found.stderr.strip()}"
        )
    subprocess.run(["dpkg-deb", "-x", str(files[0]), str(folder)], check=True)


def cut(rows: list[Row], unpacked: Path, audio: Path) -> Iterator[str]:
    """Write the clips of one package; yield what cannot be made.

    Args:
        rows: Of the table, all of one package.
        unpacked: Folder of the package's files.
        audio: Folder that the clips go to.
    """
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


def make(out: Path, rows: list[Row]) -> list[str]:
    """Make the set in a folder; clips of packages that are there already are kept.

    Returns:
        What could not be made, and why.
    """
    problems: list[str] = []
    for package, group in groupby(rows, key=lambda row: row["package"]):
        wanted = list(group)
        if not all((out / "audio" / clip_path(row)).is_file() for row in wanted):
            with tempfile.TemporaryDirectory(prefix="satpipe-") as folder:
                fetch(package, wanted[0]["version"], Path(folder))
                problems += cut(wanted, Path(folder), out / "audio")
    made = [{"path": clip_path(row)} | row for row in rows if (out / "audio" / clip_path(row)).is_file()]
    with (out / MANIFEST).open("w", newline="") as file:
        writer = csv.DictWriter(file, made[0].keys(), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(made)
    return problems


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--package", "packages", multiple=True, help="Only this one; may be given several times.")
def main(out: Path, packages: tuple[str, ...]) -> None:
    """Fetch the packages and cut the clips into OUT."""
    try:
        rows = rows_of(TABLE, frozenset(packages))
        if not rows:
            raise ConfigError(f"{TABLE.name} has none of {', '.join(packages)}")
        for problem in make(out, rows):
            click.echo(problem, err=True)
    except SatpipeError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{out / MANIFEST} lists the clips")


if __name__ == "__main__":
    main()
