"""Directives that generate tables of the documentation from the code, so that no fact is typed twice.

`schema NAME`: the columns of a table in `satpipe.pipeline.tables.columns`. `statuses`: the possible statuses of a
recording. `warnings`: the kinds of warnings of a recording. `metrics`: those of a run on a cluster. `configurations
models` or `configurations training`: the configurations that come with satpipe. `paper-training`: the paper's training
next to that of the configurations. `cost`: the measured cost of models. `groups`: the groups of classes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import yaml
from docutils import nodes
from satpipe.jobs.train.config import CONFIG_FOLDER, STAGES, Stage, load_config
from satpipe.pipeline import recording_warnings
from satpipe.pipeline.tables import columns, schemas
from satpipe.pipeline.tagging import metrics
from satpipe.pipeline.training_data.segments import SegmentOptions
from satpipe.reports import profile_tables
from satpipe.reports.tables import markdown_text
from satpipe.sat.groups import shipped_rows
from satpipe.sat.model.config import CONFIGS, SAMPLE_RATE_HZ
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

STAGE_NAMES = {"mae": "MAE", "full": "full", "sat": "SAT"}


class Schema(SphinxDirective):
    """The columns of a table."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = (
            (f"`{each.name}`", _type(each.kind), each.unit, "yes" * each.null, each.about, f"`{each.example}`")
            for each in getattr(columns, self.arguments[0])
        )
        return self.parse_text_to_nodes(_table(("column", "type", "unit", "can be null", "", "example"), rows))


class Statuses(SphinxDirective):
    """The possible statuses of a recording."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = ((f"`{status}`", meaning) for status, meaning in schemas.STATUSES.items())
        return self.parse_text_to_nodes(_table(("status", ""), rows))


class Warnings(SphinxDirective):
    """The kinds of warnings of a recording."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = ((f"`{kind}`", meaning) for kind, meaning in recording_warnings.KINDS.items())
        return self.parse_text_to_nodes(_table(("kind", ""), rows))


class Metrics(SphinxDirective):
    """The metrics of a run on a cluster, as Prometheus sees them."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = ((f"`{metrics.exported(name)}`", meaning) for name, meaning in metrics.ALL.items())
        return self.parse_text_to_nodes(_table(("metric", ""), rows))


class Configurations(SphinxDirective):
    """The configurations that come with satpipe: `models` or `training`."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        return self.parse_text_to_nodes(_models() if self.arguments[0] == "models" else _training())


class PaperTraining(SphinxDirective):
    """The paper's training, the authors' published values, and the recipes'."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = yaml.safe_load(Path(self.env.srcdir, "reference", "paper_training.yaml").read_text())
        cells = (
            (row["what"], row.get("paper", ""), row.get("published", ""), _recipes(row), row.get("reason", ""))
            for row in rows
        )
        return self.parse_text_to_nodes(_table(("", "paper (section)", "published", "satpipe", "why"), cells))


class Groups(SphinxDirective):
    """The groups of classes that come with satpipe, with the reasons for the choice of classes."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        groups: dict[str, list[str]] = {}
        for row in shipped_rows():
            groups.setdefault(row.group, []).append(row.label + (f" ({row.why})" if row.why else ""))
        rows = ((f"`{name}`", "; ".join(classes)) for name, classes in groups.items())
        return self.parse_text_to_nodes(_table(("group", "classes (`under:` adds all classes below)"), rows))


class Cost(SphinxDirective):
    """The cost of models and other taggers, next to the paper's figures."""

    def run(self) -> list[nodes.Node]:
        """Return the tables."""
        figures = json.loads(Path(profile_tables.__file__).with_name("profile.json").read_text())
        return self.parse_text_to_nodes(markdown_text(profile_tables.tables(figures)))


def _recipes(row: dict[str, Any]) -> str:
    """Return what the recipes have for one row of the table: the text of the row, or the values of its keys."""
    if "satpipe" in row:
        return str(row["satpipe"])
    if "options" in row:
        return ", ".join(f"`{name}={getattr(SegmentOptions, name):g}`" for name in row["options"])
    return "; ".join(
        ", ".join(_values(stage, key) for key in keys) + f" ({STAGE_NAMES[stage]})"
        for stage, keys in row["keys"].items()
    )


def _values(stage: Stage, key: str) -> str:
    """Return the value of a key in the recipes of a stage; those of the sizes T, S and B if they differ."""
    chosen = (f"{stage}_{size}" + "_2s" * (stage == "sat") for size in ("tiny", "small", "base"))
    given = ("data=a", "labels=b", "validation=c")
    values = [_short(getattr(load_config(stage, name, given), key)) for name in chosen]
    return f"`{key}={values[0] if len(set(values)) == 1 else ' / '.join(values)}`"


def _short(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _models() -> str:
    rows = (
        (
            f"`{config.name}`",
            config.width,
            config.heads,
            config.depth,
            f"{config.chunk_samples / SAMPLE_RATE_HZ:g}",
            config.chunk_tokens,
            config.memory_tokens or "",
            config.warmup_chunks or "",
        )
        for config in CONFIGS.values()
    )
    head = ("configuration", "width", "heads", "blocks", "chunk, s", "tokens", "memory tokens", "chunks of context")
    return _table(head, rows)


def _training() -> str:
    """Return one table per group of files with the same first comment, after that comment."""
    keys = ("arch", "epochs", "batch", "lr")
    groups: dict[str, list[tuple[object, ...]]] = {}
    for path in sorted(CONFIG_FOLDER.glob("*.yaml"), key=lambda path: (STAGES.index(_stage(path)), path.stem)):
        about = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#"))
        settings = yaml.safe_load(path.read_text())
        groups.setdefault(about, []).append((f"`{path.stem}`", *(settings[key] for key in keys)))
    return "\n\n".join(f"{about}\n\n{_table(('name', *keys), rows)}" for about, rows in groups.items())


def _stage(path: Path) -> str:
    stage: str = yaml.safe_load(path.read_text())["stage"]
    return stage


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return f"{kind.value_type}, dictionary-coded"
    if pa.types.is_list(kind) and pa.types.is_struct(kind.value_type):
        return "list of structs"
    return str(kind)


def _table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    return "\n".join(_lines([tuple(head), *(tuple(row) for row in rows)]))


def _lines(rows: list[tuple[object, ...]]) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |"
        if number == 0:
            yield "|" + " --- |" * len(row)


def as_written(app: Sphinx, what: str, name: str, of: Any, options: Any, lines: list[str]) -> None:
    """Prevent napoleon from misreading docstrings.

    Napoleon treats the text before a colon in the first line of an attribute's docstring as its type. A first line with
    an escaped space, which is not rendered, prevents that. Indented blocks in a module's docstring are shown literally.
    """
    if what in ("attribute", "data", "property"):
        lines.insert(0, "\\ ")
    if what == "module":
        begins = [n for n in range(2, len(lines)) if _begins_block(*lines[n - 2 : n + 1])]
        for n in reversed(begins):
            lines[n:n] = ["::", ""]


def _begins_block(paragraph: str, empty: str, line: str) -> bool:
    return bool(paragraph) and not paragraph.startswith(" ") and not empty and line.startswith("    ")


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.setup_extension("sphinx.ext.autodoc")
    app.connect("autodoc-process-docstring", as_written, priority=400)  # before napoleon, at 500
    directives = {
        "schema": Schema,
        "statuses": Statuses,
        "warnings": Warnings,
        "metrics": Metrics,
        "configurations": Configurations,
        "cost": Cost,
        "groups": Groups,
        "paper-training": PaperTraining,
    }
    for name, directive in directives.items():
        app.add_directive(name, directive)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
