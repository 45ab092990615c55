"""Tables of text, as Markdown, HTML, LaTeX and CSV."""

import csv
import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from html import escape

from satpipe.sat.printable import printable

_MARKDOWN = re.compile(r"[\\`*\[\]<|]|(?<![^\W_])_|_(?![^\W_])")  # an underscore within a word needs no escape
_LATEX = str.maketrans(
    {
        **{character: f"\\{character}" for character in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\n": " ",
    }
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1a1a1a}"
    "table{border-collapse:collapse;margin:1rem 0}caption{text-align:left;font-weight:600;padding:.5rem 0}"
    "th,td{padding:.25rem .75rem;text-align:right;font-variant-numeric:tabular-nums}"
    "thead{border-top:2px solid;border-bottom:1px solid}tbody{border-bottom:2px solid}.text{text-align:left}"
)


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Title.
        columns: Column heads.
        rows: Cells of each row.
        note: Text below the table.
        text_columns: Number of columns from the left with text, aligned left; the others are numbers.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    text_columns: int = 1

    def markdown(self) -> str:
        """Return the table as Markdown."""
        lines = [_row(self.columns), "|" + "|".join(["---"] * self.text_columns + ["---:"] * self._numbers) + "|"]
        lines += [_row(row) for row in self.rows]
        parts = (f"**{_plain(self.title)}**", "\n".join(lines), _plain(self.note))
        return "\n\n".join(part for part in parts if part)

    def csv(self) -> str:
        """Return the columns and rows as CSV."""
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([self.columns, *self.rows])
        return text.getvalue()

    def html(self) -> str:
        """Return the table and its note as HTML elements."""
        rows = "\n".join(f"<tr>{self._cells(row, 'td')}</tr>" for row in self.rows)
        note = f"\n<p>{escape(self.note)}</p>" if self.note else ""
        return (
            f"<table>\n<caption>{escape(self.title)}</caption>\n<thead>\n<tr>{self._cells(self.columns, 'th')}</tr>\n"
            f"</thead>\n<tbody>\n{rows}\n</tbody>\n</table>{note}"
        )

    def latex(self) -> str:
        """Return the table as a floating LaTeX table that uses the package booktabs."""
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{self.title.translate(_LATEX)}}}",
            rf"\begin{{tabular}}{{{'l' * self.text_columns}{'r' * self._numbers}}}",
            r"\toprule",
            _latex_row(self.columns),
            r"\midrule",
            *(_latex_row(row) for row in self.rows),
            r"\bottomrule",
            r"\end{tabular}",
            *([rf"\par\smallskip\footnotesize {self.note.translate(_LATEX)}"] if self.note else []),
            r"\end{table}",
        ]
        return "\n".join(lines)

    @property
    def _numbers(self) -> int:
        return len(self.columns) - self.text_columns

    def _cells(self, cells: Iterable[str], element: str) -> str:
        scope = ' scope="col"' if element == "th" else ""
        kinds = [' class="text"' if place < self.text_columns else "" for place in range(len(self.columns))]
        return "".join(
            f"<{element}{scope}{kind}>{escape(cell)}</{element}>" for kind, cell in zip(kinds, cells, strict=True)
        )


def html_page(title: str, tables: Iterable[Table]) -> str:
    """Return tables as one self-contained HTML page."""
    body = "\n".join(table.html() for table in tables)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def latex_input(tables: Iterable[Table]) -> str:
    """Return tables as the content of a LaTeX file that a document can include."""
    return "% \\usepackage{booktabs}\n\n" + "\n\n".join(table.latex() for table in tables) + "\n"


def markdown_text(tables: Iterable[Table]) -> str:
    """Return tables as Markdown, one below the other."""
    return "\n\n".join(table.markdown() for table in tables) + "\n"


def _row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(_plain(cell) for cell in cells) + " |"


def _plain(text: str) -> str:
    """Return text with Markdown's special characters escaped."""
    return _MARKDOWN.sub(r"\\\g<0>", printable(text.replace("\n", " ")))


def _latex_row(cells: Iterable[str]) -> str:
    return " & ".join(cell.translate(_LATEX) for cell in cells) + r" \\"
