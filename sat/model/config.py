"""The nine published configurations, by name (paper sections 3 and 4.3, Tables 1 and 2), and those of one's own."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, ClassVar, Literal, Protocol, Self, get_args

from satpipe.sat.errors import ConfigError

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160  # 10 ms, so 100 frames a second
WINDOW_SAMPLES = 512  # 32 ms, also the length of the FFT
CENTRE_SAMPLES = WINDOW_SAMPLES // 2  # frame k is centred on sample 160 k
MEL_BANDS = 64
PATCH_FRAMES = 16
PATCH_BANDS = 16
PATCH_SAMPLES = PATCH_FRAMES * HOP_SAMPLES
FREQUENCY_PATCHES = MEL_BANDS // PATCH_BANDS
CLASSES = 527
DEPTH = 12
MIN_ROWS = 8
"""Minimum rows of a product of matrices.

CPU libraries multiply fewer rows (up to three, as far as we have seen) by another kernel, with other rounding: a score
would depend on the size of its batch.
"""
BUNDLED = "bundled"  # name of the model that ships with satpipe
BUNDLED_SOURCE = "bundled with satpipe"

Cut = Literal["gapless", "script"]
"""How a recording is cut into chunks (the chunking mode).

gapless: one log-mel stream, cut every `chunk_frames` frames; every sample is used. This is how the models were trained.
script: the nominal delay of waveform per chunk, each with its own spectrogram whose last frames are not used, and a
memory, if the model has one, warmed up with digital silence. This is what the published inference script does.
"""
CUTS: tuple[Cut, ...] = get_args(Cut)

AUTO = "auto"
Precision = Literal["fp32", "bf16", "fp16", "auto"]
"""Number format of a model; `auto`: the fastest (`satpipe.sat.taggers.fastest`)."""

Combine = Literal["geometric", "sharp"]
"""How a score is made of those of the chunks, one of each grid, that cover a stretch (`satpipe.sat.model.grids`).

geometric: their geometric mean. sharp: the root of that mean times their minimum.
"""


class ChunkConfig(Protocol):
    """The properties of a tagger on which chunking and the tables depend: a `ModelConfig` or an `ExternalConfig`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def name(self) -> str:
        """Name of the configuration."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the input."""

    @property
    def script_chunk_s(self) -> float:
        """The nominal delay in seconds."""

    @property
    def chunk_samples(self) -> int:
        """Samples of a whole chunk, counted at 16 kHz."""

    @property
    def streaming(self) -> bool:
        """True if something is carried from chunk to chunk."""

    @property
    def warmup_chunks(self) -> int:
        """Chunks of a grid to read before a chunk so that its scores equal those of a pass from the start."""

    @property
    def grids(self) -> int:
        """Number of grids on which a recording is read, each a fraction of a chunk later than the one before."""

    @property
    def combine(self) -> Combine:
        """Method of combining the scores of several grids."""

    def with_delay(self, delay_s: float) -> Self:
        """Return the configuration for reading `delay_s` seconds per chunk; ConfigError if it cannot."""

    def with_grids(self, grids: int, combine: Combine = "geometric") -> Self:
        """Return the configuration for reading a recording on so many grids; ConfigError if it cannot."""

    def without_memory(self) -> Self:
        """Return the configuration in which each chunk stands alone."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of one model."""

    name: str
    width: int
    """Channels of a token."""
    heads: int
    chunk_frames: int
    """Log-mel frames per chunk; a full-context model needs a time position for each patch of them."""
    memory_tokens: int
    """Past tokens that each block attends to; 0 for a full-context model, or if each chunk stands alone."""
    time_positions: int
    """Entries of the time-position table: first those of the chunk, then those of the memory."""
    class_token: bool
    """True if scores are computed from a class token instead of the mean over all tokens."""
    script_chunk_s: float
    """The nominal delay: seconds of waveform that the published inference script reads per chunk."""

    depth: int = DEPTH
    classes: int = CLASSES
    grids: int = 1
    """Number of grids on which a recording is read (`satpipe.sat.model.grids`)."""
    combine: Combine = "geometric"
    """Method of combining the scores of several grids."""

    @property
    def rate_hz(self) -> int:
        """Sampling rate of the input."""
        return SAMPLE_RATE_HZ

    @property
    def streaming(self) -> bool:
        """True if the model carries memory from chunk to chunk."""
        return self.memory_tokens > 0

    @property
    def parameters(self) -> int:
        """Number of the network's parameters, without building it."""
        width = self.width
        norm = 2 * width
        block = 2 * norm + (12 * width + 9) * width  # 4 products of vectors by matrices: to and from attention and MLP
        patches = (PATCH_BANDS * PATCH_FRAMES + 1) * width
        positions = (self.time_positions + FREQUENCY_PATCHES + 2 * self.class_token) * width
        head = 2 * norm + (width + 1) * self.classes
        return 2 * MEL_BANDS + patches + positions + self.depth * block + head

    @property
    def chunk_samples(self) -> int:
        """Samples of a whole chunk, counted at 16 kHz."""
        return self.chunk_frames * HOP_SAMPLES

    @property
    def chunk_tokens(self) -> int:
        """Tokens of a whole chunk, including the class token."""
        return self.chunk_frames // PATCH_FRAMES * FREQUENCY_PATCHES + self.class_token

    @property
    def memory_chunks(self) -> int:
        """Chunks that the memory of one block spans."""
        return -(-self.memory_tokens // self.chunk_tokens)

    @property
    def warmup_chunks(self) -> int:
        """Chunks of a grid to read before a chunk so that its scores equal those of a pass from the start."""
        return self.depth * self.memory_chunks

    def without_memory(self) -> "ModelConfig":
        """Return the configuration in which each chunk stands alone."""
        return replace(self, memory_tokens=0)

    def with_delay(self, delay_s: float) -> "ModelConfig":
        """Return the configuration for reading `delay_s` seconds per chunk; gapless, the whole patches within it.

        Raises:
            ConfigError: A streaming model has another delay, or a full-context model has too few time positions.
        """
        if delay_s == self.script_chunk_s:
            return self
        if self.streaming:
            raise ConfigError(
                f"{self.name} has a delay of {self.script_chunk_s:g} s, for which its memory was trained: "
                f"a delay of {delay_s:g} s needs a full-context model"
            )
        shortest_s, longest_s = (patches * PATCH_SAMPLES / SAMPLE_RATE_HZ for patches in (1, self.time_positions))
        if not shortest_s <= delay_s <= longest_s:
            raise ConfigError(
                f"the delay of {self.name} must be {shortest_s:g} s to {longest_s:g} s, not {delay_s:g} s"
            )
        patches = round(delay_s * SAMPLE_RATE_HZ) // PATCH_SAMPLES
        return replace(self, chunk_frames=patches * PATCH_FRAMES, script_chunk_s=delay_s)

    def with_grids(self, grids: int, combine: Combine = "geometric") -> "ModelConfig":
        """Return the configuration for reading a recording on so many grids.

        Raises:
            ConfigError: The hop from one grid to the next is not a whole number of patches.
        """
        patches, rest = divmod(self.chunk_frames, PATCH_FRAMES)
        if rest and grids > 1:
            raise ConfigError(
                f"--grids needs chunks of whole patches of {PATCH_FRAMES} frames; those of {self.name} have "
                f"{self.chunk_frames} frames"
            )
        allowed = [number for number in range(1, patches + 1) if patches % number == 0]
        check_grids(self, grids, allowed, f"the {patches} patches")
        return replace(self, grids=grids, combine=combine)


def check_grids(config: ChunkConfig, grids: int, allowed: Sequence[int], divided: str) -> None:
    """Raise ConfigError if a number of grids is not allowed; the message lists those that are."""
    if grids != 1 and grids not in allowed:
        *most, last = map(str, allowed)
        numbers = f"{', '.join(most)} or {last}" if most else last
        raise ConfigError(f"--grids must divide {divided} of a chunk of {config.name}: {numbers}, not {grids}")


def grids_text(grids: int, combine: str) -> str:
    """Return the end of a description of a model: "" for one grid."""
    return f", {grids} grids{'' if combine == 'geometric' else f' ({combine})'}" if grids > 1 else ""


def _streaming(name: str, width: int, heads: int, seconds: int, *, class_token: bool) -> ModelConfig:
    chunk_frames = 96 * seconds
    # The published SAT_S_1s is declared with the chunk and memory of its 2 s sibling although it reads 1 s.
    memory_frames = 192 if name == "SAT_S_1s" else chunk_frames
    return ModelConfig(
        name=name,
        width=width,
        heads=heads,
        chunk_frames=chunk_frames,
        memory_tokens=memory_frames // PATCH_FRAMES * FREQUENCY_PATCHES,
        time_positions=2 * memory_frames // PATCH_FRAMES,
        class_token=class_token,
        script_chunk_s=seconds,
    )


def _full_context(name: str, width: int, heads: int, *, class_token: bool) -> ModelConfig:
    return ModelConfig(
        name=name,
        width=width,
        heads=heads,
        chunk_frames=63 * PATCH_FRAMES,  # 1012 frames hold 63 whole patches
        memory_tokens=0,
        time_positions=63,
        class_token=class_token,
        script_chunk_s=10,
    )


CONFIGS = {
    config.name: config
    for config in (
        _streaming("SAT_T_2s", 192, 3, 2, class_token=False),
        _streaming("SAT_S_2s", 384, 6, 2, class_token=True),
        _streaming("SAT_B_2s", 768, 12, 2, class_token=False),
        _streaming("SAT_T_1s", 192, 3, 1, class_token=False),
        _streaming("SAT_S_1s", 384, 6, 1, class_token=True),
        _streaming("SAT_B_1s", 768, 12, 1, class_token=False),
        _full_context("audiotransformer_tiny", 192, 3, class_token=False),
        _full_context("audiotransformer_small", 384, 6, class_token=True),
        _full_context("audiotransformer_base", 768, 12, class_token=False),
    )
}


_OWN = re.compile(
    r"(?P<kind>SAT|audiotransformer)_w(?P<width>\d{1,4})_h(?P<heads>\d{1,3})_d(?P<depth>\d{1,3})"
    r"_(?P<chunk_s>\d{1,3}(\.\d{1,3})?)s(?P<class_token>_cls)?"
)


def own_config(
    *, streaming: bool, width: int, heads: int, depth: int = DEPTH, chunk_s: float | None = None,
    class_token: bool = False,
) -> ModelConfig:  # fmt: skip
    """Return a configuration that is not one of the published ones; its name states all of it.

    >>> own_config(streaming=True, width=96, heads=3).name
    'SAT_w96_h3_d12_2s'

    Args:
        streaming: True for a model with a memory as long as a chunk, False for a full-context model.
        width: Channels of a token.
        heads: Attention heads, which must divide `width`.
        depth: Number of blocks.
        chunk_s: The nominal delay in seconds; by default 2 for a streaming model, and 10, the longest chunk, for a
            full-context model.
        class_token: True to compute scores from a class token instead of the mean over all tokens.

    Raises:
        ConfigError: A value is not allowed.
    """
    chunk_s = (2.0 if streaming else 10.0) if chunk_s is None else chunk_s
    for name, value, most in (("width", width, 9999), ("heads", heads, 999), ("depth", depth, 999)):
        if not 1 <= value <= most:
            raise ConfigError(f"{name} must be from 1 to {most}, not {value}")
    if width % heads:
        raise ConfigError(f"width must be a multiple of heads, {heads}, not {width}")
    patch_s = PATCH_SAMPLES / SAMPLE_RATE_HZ
    if not patch_s <= chunk_s < 1000 or round(chunk_s, 3) != chunk_s:
        raise ConfigError(f"chunk_s must be from {patch_s:g} to 999 seconds, in milliseconds, not {chunk_s:g}")
    # As in the published models: the whole patches of a streaming chunk, and a patch for the rest of a full context.
    patches = math.floor(chunk_s / patch_s + 1e-6) if streaming else math.ceil(chunk_s / patch_s - 1e-6)
    kind, token = "SAT" if streaming else "audiotransformer", "_cls" if class_token else ""
    return ModelConfig(
        name=f"{kind}_w{width}_h{heads}_d{depth}_{_seconds(chunk_s)}s{token}",
        width=width,
        heads=heads,
        depth=depth,
        chunk_frames=patches * PATCH_FRAMES,
        memory_tokens=patches * FREQUENCY_PATCHES if streaming else 0,
        time_positions=patches * (1 + streaming),
        class_token=class_token,
        script_chunk_s=chunk_s,
    )


def _seconds(chunk_s: float) -> str:
    return f"{chunk_s:.3f}".rstrip("0").rstrip(".")


def find_config(name: str) -> ModelConfig | None:
    """Return the configuration called `name`, a published one or one of `own_config`; None if there is none."""
    if name in CONFIGS:
        return CONFIGS[name]
    found = _OWN.fullmatch(name)
    if not found:
        return None
    sizes = {key: int(found[key]) for key in ("width", "heads", "depth")}
    try:
        config = own_config(
            streaming=found["kind"] == "SAT", chunk_s=float(found["chunk_s"]), class_token=bool(found["class_token"]),
            **sizes,
        )  # fmt: skip
    except ConfigError:
        return None
    return config if config.name == name else None


def get_config(name: str) -> ModelConfig:
    """Return the configuration called `name`, a published one or one of `own_config`.

    Raises:
        ConfigError: The name is unknown; the message suggests similar ones.
    """
    config = find_config(name)
    if config is None:
        raise not_found("configuration", name, CONFIGS)
    return config


def not_found(what: str, name: str, known: Iterable[str]) -> ConfigError:
    """Return the error for an unknown name; its message suggests similar ones."""
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.4) or names
    return ConfigError(f"{what} '{name}' not found; did you mean {', '.join(near)}?")
