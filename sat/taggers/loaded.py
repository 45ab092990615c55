"""Taggers whose weights are loaded, and how they read a recording: all that planning a run needs, without torch."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import PATCH_SAMPLES, SAMPLE_RATE_HZ, ChunkConfig, Combine, Cut, check_grids

if TYPE_CHECKING:
    import torch
    from satpipe.sat.taggers.interface import Tagger

SHORTEST_MS = 1000 * PATCH_SAMPLES // SAMPLE_RATE_HZ  # as for SAT


@dataclass(frozen=True)
class ExternalConfig:
    """Sampling rate, chunk length and grids of a tagger other than SAT; the counterpart of `ModelConfig`."""

    name: str
    rate_hz: int
    """Sampling rate of the input."""
    delay_ms: int
    """Length of a chunk."""
    longest_ms: int
    """Maximum length of a chunk."""
    shortest_ms: int = SHORTEST_MS
    """Minimum length of a chunk; shorter ones are padded with silence."""
    warmup_chunks: int = 0
    """Number of earlier chunks of a grid on which a score depends; 0 if each chunk stands alone."""
    grids: int = 1
    """Number of grids on which a recording is read (`satpipe.sat.model.grids`)."""
    combine: Combine = "geometric"
    """Method of combining the scores of several grids."""

    @property
    def script_chunk_s(self) -> float:
        """The delay in seconds."""
        return self.delay_ms / 1000

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk, counted at 16 kHz."""
        return self.delay_ms * SAMPLE_RATE_HZ // 1000

    @property
    def streaming(self) -> bool:
        """True if something is carried from chunk to chunk."""
        return self.warmup_chunks > 0

    def without_memory(self) -> "ExternalConfig":
        """Return the configuration in which each chunk stands alone."""
        return replace(self, warmup_chunks=0)

    def with_delay(self, delay_s: float) -> "ExternalConfig":
        """Return the configuration for reading `delay_s` seconds per chunk.

        Raises:
            ConfigError: The delay is out of range, or not a whole number of milliseconds and samples.
        """
        if not self.shortest_ms <= 1000 * delay_s <= self.longest_ms:
            raise ConfigError(
                f"the delay of {self.name} must be {self.shortest_ms / 1000:g} s to {self.longest_ms / 1000:g} s, "
                f"not {delay_s:g} s"
            )
        delay_ms = round(1000 * delay_s)
        if abs(delay_ms - 1000 * delay_s) > 1e-6 or delay_ms * self.rate_hz % 1000:
            raise ConfigError(
                f"the delay of {self.name} must be whole milliseconds and whole samples at {self.rate_hz:,} Hz, "
                f"not {delay_s:g} s"
            )
        return replace(self, delay_ms=delay_ms)

    def with_grids(self, grids: int, combine: Combine = "geometric") -> "ExternalConfig":
        """Return the configuration for reading a recording on so many grids.

        Raises:
            ConfigError: The hop from one grid to the next is too short, or not a whole number of milliseconds and
                samples.
        """
        allowed = [
            number
            for number in range(1, self.delay_ms // SHORTEST_MS + 1)
            if self.delay_ms % number == 0 and self.delay_ms // number * self.rate_hz % 1000 == 0
        ]
        check_grids(self, grids, allowed, f"the {self.delay_ms} ms")
        return replace(self, grids=grids, combine=combine)


@dataclass(frozen=True, kw_only=True)
class LoadedTagger(ABC):
    """A tagger whose weights are loaded, but which is not on a device yet; workers receive it in this form.

    Attributes:
        config: How the tagger reads a recording.
        sha256: Of the weights; for a tagger without weights, of its class name.
        source: Description of where the weights came from.
        metadata: Metadata in the header of the weights' file, or versions of packages.
    """

    config: ChunkConfig
    sha256: str
    source: str
    metadata: dict[str, str]

    @property
    @abstractmethod
    def has_memory(self) -> bool:
        """True if the tagger can carry something from chunk to chunk, even where `config` switches it off."""

    @property
    def has_network(self) -> bool:
        """True if the tagger has a network, which computes in any precision; one without only computes in fp32."""
        return True

    def tagger(
        self,
        cut: Cut = "gapless",
        device: "torch.device | None" = None,
        precision: str = "fp32",
        batch_chunks: int | None = None,
        *,
        embeddings: bool = False,
    ) -> "Tagger":
        """Return the tagger, ready to tag.

        Args:
            cut: Chunking mode; taggers that read waveforms have only one.
            device: Where the model runs; by default the processor.
            precision: One of `satpipe.sat.model.precision.PRECISIONS`.
            batch_chunks: Chunks per batch; by default the number that suits the tagger and the device.
            embeddings: Also give the embedding of each chunk, after its scores (`satpipe.sat.model.outputs`).

        Raises:
            ConfigError: The tagger or the device does not support that precision, or the tagger has no embeddings.
        """
        if embeddings:
            self.check_embeddings()
        return self._prepared(cut, device, precision, batch_chunks, embeddings=embeddings)

    def check_embeddings(self) -> None:
        """Check that the tagger has embeddings.

        Raises:
            ConfigError: It has none.
        """
        if not self.embedding_size:
            raise ConfigError(f"{self.config.name} has no embeddings; SAT, AST, BEATs, EfficientAT and HTS-AT have")

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """Number of values of an embedding; 0: the tagger has none."""

    @abstractmethod
    def _prepared(
        self, cut: Cut, device: "torch.device | None", precision: str, batch_chunks: int | None, *, embeddings: bool
    ) -> "Tagger": ...

    def adapted(
        self, delay_s: float | None = None, *, memory: bool = True, grids: int = 1, combine: Combine = "geometric"
    ) -> Self:
        """Return the same weights with another delay in seconds, without memory, or on several grids.

        Raises:
            ConfigError: The model does not allow that delay or that number of grids.
        """
        if grids > 1 and delay_s is None and not self.has_memory:
            raise ConfigError(
                f"{self.config.name} reads {self.config.script_chunk_s:g} s at once: --grids also needs --delay-s, "
                "such as --delay-s 2"
            )
        config = (self.config if delay_s is None else self.config.with_delay(delay_s)).with_grids(grids, combine)
        return replace(self, config=config if memory else config.without_memory())
