"""Audio files in the containers that FFmpeg reads, encoded by PyAV."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from audio import Samples

LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 6: "5.1", 8: "7.1", 16: "hexadecagonal"}
FRAMES_A_SECOND = 10


def encode(
    path: Path, sound: Samples, rate_hz: int, container: str, codec: str = "", video: str = "", **options: str
) -> Path:
    """Write samples [n] or [n, channels]; without `codec` there is no audio stream; `video` adds black pictures."""
    sound = sound.reshape(len(sound), -1)
    with av.open(path, "w", format=container, options=options) as file:
        pictures = _pictures(file, video) if video else None
        stream = file.add_stream(codec, rate_hz, layout=LAYOUTS[sound.shape[1]]) if codec else None
        if pictures:
            for _ in range(FRAMES_A_SECOND * len(sound) // rate_hz):
                black = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), "rgb24")
                file.mux(pictures.encode(black))
            file.mux(pictures.encode(None))
        if stream:
            assert isinstance(stream, av.AudioStream)
            stream.bit_rate = 96_000 * sound.shape[1]
            piece = av.AudioFrame.from_ndarray(sound.reshape(1, -1), "flt", stream.layout.name)
            piece.sample_rate, piece.pts, piece.time_base = rate_hz, 0, Fraction(1, rate_hz)
            file.mux(stream.encode(piece))
            file.mux(stream.encode(None))
    return path


def _pictures(file: av.container.OutputContainer, codec: str) -> av.VideoStream:
    stream = file.add_stream(codec, FRAMES_A_SECOND)
    assert isinstance(stream, av.VideoStream)
    stream.width = stream.height = 64
    stream.pix_fmt = "yuv420p"
    return stream
