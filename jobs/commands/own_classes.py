"""Commands on own classes."""

from pathlib import Path
from typing import Any

import click
from satpipe.jobs.commands.shared import FILE, OUT, log, options, say
from satpipe.jobs.options.own_classes import OWN_FILE, LearnOptions
from satpipe.sat.printable import counted

group = click.Group("Own classes")


@group.command()
@click.argument("labels", metavar="LABELS")
@click.option("-o", "--out", "target", type=FILE, default=OWN_FILE, show_default=True, help="File of the classes.")
@options(LearnOptions)
def learn(*, labels: str, target: Path, **given: Any) -> int:
    """Learn your own classes from examples.

    LABELS is a folder with a sub-folder of recordings for each class (`background`: none of the classes), or
    labelled stretches in any format that `evaluate --strong` reads. The table shows how well each class is recognised
    in recordings that were not used to learn it.
    """
    from satpipe.jobs import own_classes
    from satpipe.reports import own_classes as pages
    from satpipe.sat.own_classes import table_name

    table_name(target)  # an error before the work, not after it
    learned = own_classes.learn(labels, **given)
    own_classes.write(learned, target)
    for note in learned.notes:
        log(f"note: {note}")
    say(*pages.table(learned.figures).markdown().split("\n"))
    count = len(learned.classes.labels)
    number = counted(count, "class", "classes")
    log(f"{target}: {number}; score recordings with `satpipe classify OUT --own-classes {target}`")
    return 0


@group.command()
@OUT
@click.option("--own-classes", "path", type=FILE, required=True, help="File of the classes, from `satpipe learn`.")
def classify(*, out: str, path: Path) -> int:
    """Score tagged recordings for your own classes.

    Writes the table own/NAME in OUT, where NAME is the name of the file without its ending. OUT must have embeddings
    (`tag --embeddings`); no audio is read. A table of that name is replaced.
    """
    from satpipe.jobs.own_classes.classify import classify as scored

    say(scored(out, path))
    return 0
