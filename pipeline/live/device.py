"""Live audio from a device of this machine, through PortAudio: sounddevice, the extra `device`."""

from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import Any

from satpipe.pipeline.live.source import Gap, SourceOptions
from satpipe.pipeline.recordings.resample import Samples
from satpipe.sat.errors import AudioError, ConfigError, install

DEVICE = "device:"


class Device:
    """A microphone or another input: `device:`, or `device:` and its number or a part of its name."""

    live = True

    def __init__(self, name: str, options: SourceOptions) -> None:
        """Find the device.

        Raises:
            ConfigError: The device does not exist, or the extra or PortAudio is not installed.
        """
        self.name = name
        self._idle_s, self._closed = options.idle_s, False
        self._sounddevice = _sounddevice(name)
        wanted = name.removeprefix(DEVICE)
        self._device = int(wanted) if wanted.isdecimal() else wanted or None
        try:
            known = self._sounddevice.query_devices(self._device, "input")
        except (ValueError, self._sounddevice.PortAudioError) as error:
            raise ConfigError(f"{name}: {error}; available: {self._names()}") from error
        self.rate_hz = options.rate_hz or round(known["default_samplerate"])
        self.channels = options.channels or 1

    def _names(self) -> str:
        inputs = [known["name"] for known in self._sounddevice.query_devices() if known["max_input_channels"]]
        return ", ".join(f"'{DEVICE}{name}'" for name in inputs) or "no devices"

    def blocks(self) -> Iterator[Samples | Gap]:
        """Yield recorded samples, and gaps where the device reports lost ones."""
        arrived: SimpleQueue[tuple[Samples, float, bool] | None] = SimpleQueue()

        def callback(samples: Samples, _: int, times: Any, status: Any) -> None:  # PortAudio's thread: must not wait
            arrived.put((samples.copy(), times.inputBufferAdcTime, bool(status.input_overflow)))

        try:
            stream = self._sounddevice.InputStream(
                samplerate=self.rate_hz,
                channels=self.channels,
                device=self._device,
                dtype="float32",
                latency="low",
                callback=callback,
                finished_callback=lambda: arrived.put(None),
            )
        except self._sounddevice.PortAudioError as error:
            raise AudioError(f"{self.name}: {error}") from error
        expected_s: float | None = None
        with stream:
            while not self._closed:
                try:
                    block = arrived.get(timeout=self._idle_s)
                except Empty:
                    block = None
                if block is None:
                    raise AudioError(f"{self.name}: the device has stopped delivering audio")
                samples, begun_s, overflow = block
                if overflow:
                    missed_s = max(0.0, begun_s - expected_s) if expected_s is not None else 0.0
                    yield Gap(round(missed_s * self.rate_hz), "the device lost samples: overflow")
                expected_s = begun_s + len(samples) / self.rate_hz
                yield samples

    def close(self) -> None:
        """Stop recording."""
        self._closed = True


def _sounddevice(name: str) -> Any:
    try:
        import sounddevice
    except ImportError as error:
        raise ConfigError(f"to listen to {name}, {install('device')}") from error
    except OSError as error:  # on Linux, where the wheel does not include PortAudio
        raise ConfigError(f"{name} needs PortAudio, for example `apt install libportaudio2`: {error}") from error
    return sounddevice
