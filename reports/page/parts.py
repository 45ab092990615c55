"""What pages have in common: the files in this folder, the data in the page, and a policy that forbids all requests."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib.metadata import version
from importlib.resources import files
from string import Template
from typing import Any


def filled(template: str, styles: Sequence[str], scripts: Sequence[str], **content: str) -> str:
    """Return a page made from files in this folder.

    Args:
        template: An HTML file with the placeholders policy, generator, style and script, and those of `content`.
        styles: CSS files.
        scripts: JavaScript files, which become one module, in this order.
        content: Other texts for placeholders, as HTML.
    """
    style, script = "".join(map(_file, styles)), "\n".join(map(_file, scripts))
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; media-src blob:; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_file(template)).substitute(
        policy=policy, generator=f"satpipe {version('satpipe')}", style=style, script=script, **content
    )


def json_text(value: Any) -> str:
    """Return JSON that cannot close the HTML element around it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def sounds_text(sounds: Iterable[bytes]) -> str:
    """Return the content of the element `sounds`."""
    return json_text([base64.b64encode(sound).decode() for sound in sounds])


def terms(pairs: Iterable[tuple[str, str]]) -> str:
    """Return the content of a list of terms and values."""
    return "\n".join(f"<div><dt>{escape(term)}</dt><dd>{escape(value)}</dd></div>" for term, value in pairs)


def _file(name: str) -> str:
    return files("satpipe.reports.page").joinpath(name).read_text("utf-8")


def _hash(content: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}"
