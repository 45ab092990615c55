"""A user's own classes: linear classifiers over embeddings, and the file that holds them.

An embedding is normalised (mean 0, variance 1, as by a LayerNorm without parameters); the score of a class is the
logistic function of its product with the class's weights. Its row in a table has the `mid` `own/NAME`.

The file is a safetensors file with the tensors `weight` [K, D] and `bias` [K] and, in its metadata, one entry: `card`,
JSON with the attributes of `OwnClasses` that are not tensors. The same content always gives the same bytes.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save
from satpipe.sat.errors import CheckpointError, ConfigError

PREFIX = "own/"
"""Beginning of the `mid` of an own class."""
SUFFIX = ".safetensors"
FORMAT = 1
_NORM_EPS = 1e-5
_NAME = re.compile(r"[\w][\w.+-]{0,99}")
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class OwnClasses:
    """Classes learned from a user's examples."""

    labels: tuple[str, ...]
    """Names, [K]."""
    thresholds: tuple[float, ...]
    """Minimum score of a detection of each class, [K]."""
    model_sha256: str
    """Of the weights of the model that made the embeddings."""
    model: str
    """Its name, for messages."""
    chunk_s: float
    """Seconds from the start of a chunk to the start of the next."""
    weight: Floats
    """[K, D]."""
    bias: Floats
    """[K]."""
    card: dict[str, Any] = field(default_factory=dict)
    """How the classes were learned, and how well each is recognised."""
    sha256: str = ""
    """Of the file; "" before it is written."""

    @property
    def mids(self) -> tuple[str, ...]:
        """Identifiers in tables, [K]."""
        return tuple(PREFIX + label for label in self.labels)

    def scores(self, embeddings: npt.NDArray[Any]) -> Floats:
        """Return scores from 0 to 1.

        Shape:
            [n, D] -> [n, K]
        """
        logits = normalised(embeddings) @ self.weight.T + self.bias
        scores: Floats = (1 / (1 + np.exp(-logits))).astype(np.float32)
        return scores

    def check_model(self, sha256: str, model: str, where: object) -> None:
        """Make sure that embeddings are of the model that the classes were learned with.

        Args:
            sha256: Of the weights of the model of the embeddings.
            model: Its name.
            where: The file of the classes, for the message.

        Raises:
            ConfigError: They are of another model; the message names both.
        """
        if (sha256, model) != (self.model_sha256, self.model):  # two models may have the same weights
            raise ConfigError(
                f"{where} was learned with the model {self.model} (sha256 {self.model_sha256[:12]}...), but these "
                f"recordings are tagged with {model} ({sha256[:12]}...): learn the classes again with --model {model}"
            )


def normalised(embeddings: npt.NDArray[Any]) -> Floats:
    """Return embeddings with mean 0 and variance 1 each.

    Shape:
        [n, D] -> [n, D]
    """
    rows = embeddings.astype(np.float32, copy=False)
    centred = rows - rows.mean(1, keepdims=True)
    return centred / np.sqrt(np.square(centred).mean(1, keepdims=True) + _NORM_EPS)  # type: ignore[no-any-return]


def table_name(path: str | Path) -> str:
    """Return the name of the table of a file's classes: its stem.

    Raises:
        ConfigError: It has characters other than letters, digits and _ . + -, or is too long, or its file does not end
            in .safetensors.
    """
    name = Path(path).name.removesuffix(SUFFIX)
    if Path(path).suffix != SUFFIX:
        raise ConfigError(f"the name of a file of own classes must end in {SUFFIX}, not {path}")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"the name of {path} becomes that of a table: it must have at most 100 letters, digits "
            "and characters _ . + -, and must not begin with one of the last three"
        )
    return name


def to_bytes(classes: OwnClasses) -> bytes:
    """Return the content of a file."""
    about = {
        "format": FORMAT,
        **{
            name: getattr(classes, name)
            for name in ("labels", "thresholds", "model_sha256", "model", "chunk_s", "card")
        },
    }
    tensors = {"weight": np.ascontiguousarray(classes.weight), "bias": np.ascontiguousarray(classes.bias)}
    # One entry, since safetensors writes several in an order that differs from process to process.
    return save(tensors, {"card": json.dumps(about, ensure_ascii=False, sort_keys=True)})


def read_own_classes(path: str | Path) -> OwnClasses:
    """Read a file of own classes.

    Raises:
        CheckpointError: The file is missing, damaged or of another kind; the message names it.
    """
    try:
        return parse(Path(path).read_bytes(), path)
    except OSError as error:
        raise CheckpointError(
            f"the file of own classes {path} cannot be read: {error.strerror}; `satpipe learn` writes one"
        ) from error


def parse(content: bytes, path: object) -> OwnClasses:
    """Return the classes of a file, given its content.

    Raises:
        CheckpointError: It is damaged or of another kind; the message names it.
    """
    try:
        tensors = {name: tensor.astype(np.float32) for name, tensor in load(content).items()}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])  # its length, then JSON
        about = json.loads(header["__metadata__"]["card"])
        made = OwnClasses(
            labels=tuple(map(str, about["labels"])),
            thresholds=tuple(map(float, about["thresholds"])),
            model_sha256=str(about["model_sha256"]),
            model=str(about["model"]),
            chunk_s=float(about["chunk_s"]),
            weight=tensors["weight"],
            bias=tensors["bias"],
            card=dict(about["card"]),
            sha256=hashlib.sha256(content).hexdigest(),
        )
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} is not a file of own classes: {type(error).__name__}: {error}") from error
    if about["format"] != FORMAT:
        raise CheckpointError(f"{path} has the format {about['format']}: this version of satpipe reads {FORMAT}")
    count = len(made.labels)
    whole = made.weight.ndim == 2 and len(made.weight) == len(made.thresholds) == count and made.bias.shape == (count,)
    numbers = np.isfinite(made.weight).all() and np.isfinite(made.bias).all()
    if not count or not whole or not numbers or len(set(made.labels)) < count:
        raise CheckpointError(f"{path} is damaged: its weights, labels and thresholds do not belong together")
    return made
