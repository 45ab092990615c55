"""Checks of pictures."""

import io
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
from matplotlib.image import imread

SVG = "{http://www.w3.org/2000/svg}"


def pixels(path: Path) -> npt.NDArray[Any]:
    """Return the pixels of a PNG, after checking that it is complete and shows something on white."""
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    found: npt.NDArray[Any] = imread(io.BytesIO(content))[..., :3]
    dark = (found < 0.5).any(axis=-1).mean()
    assert 0.001 < dark < 0.9
    assert (found[0] == 1).all()  # nothing is cut off at the upper edge
    assert (found[:, 0] == 1).all()
    return found


def texts(path: Path) -> list[str]:
    """Return the texts in an SVG, after checking that it is well-formed."""
    root = ElementTree.parse(path).getroot()
    assert root.tag == f"{SVG}svg"
    return ["".join(element.itertext()) for element in root.iter(f"{SVG}text")]


def width_and_height_in(path: Path) -> npt.NDArray[np.float64]:
    """Return the width and height of an SVG in inches."""
    root = ElementTree.parse(path).getroot()
    return np.array([float(root.attrib[name].removesuffix("pt")) / 72 for name in ("width", "height")])
