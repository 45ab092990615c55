"""AAC without headers in front of its frames, as FFmpeg writes it into WAV files, but does not read it.

Nothing in such a file states where a frame ends; its bytes give one frame more as soon as the last byte of it is among
them. Importing this module needs PyAV, the extra `ffmpeg`.
"""

from bisect import bisect_left
from collections.abc import Iterator

import av

WINDOW_BYTES = 2**15
_NO_PARSE = 0x20  # AVFMT_FLAG_NOPARSE: the parser would look for the headers
_CHANNEL_BYTES = 768  # maximum of a frame per channel: 6144 bits (ISO/IEC 14496-3)


def is_raw(stream: av.AudioStream) -> bool:
    """Return True if a stream of a WAV file has no headers in front of its frames: the file's header describes them."""
    return stream.codec_context.name == "aac" and bool(stream.codec_context.extradata)


def raw_frames(source: av.container.InputContainer, stream: av.AudioStream) -> Iterator[av.AudioFrame]:
    """Yield the frames of a stream from its start on.

    Raises:
        ValueError: A frame cannot be decoded.
    """
    source.flags |= _NO_PARSE
    source.seek(0)
    description = stream.codec_context.extradata
    most_bytes = _CHANNEL_BYTES * max(2, stream.codec_context.layout.nb_channels)
    decoder, pending = _decoder(description), b""
    for packet in source.demux(stream):
        pending += bytes(packet)
        if len(pending) < WINDOW_BYTES and packet.size:  # the last packet is empty
            continue
        count = _count(description, pending)
        least = max(0, len(pending) - 2 * most_bytes)
        ends = range(least, len(pending) + 1)
        end = least + bisect_left(ends, count, key=lambda end: _count(description, pending[:end]))
        yield from decoder.decode(av.Packet(pending[:end]))
        if len(pending) - end > most_bytes:
            raise ValueError("a frame of AAC cannot be decoded")
        pending = pending[end:]


def _decoder(description: bytes | None) -> av.AudioCodecContext:
    decoder = av.AudioCodecContext.create("aac", "r")
    decoder.extradata, decoder.thread_count = description, 1
    return decoder


def _count(description: bytes | None, content: bytes) -> int:
    """Return the number of frames that can be decoded from the start of some bytes."""
    try:
        return len(_decoder(description).decode(av.Packet(content)))
    except av.FFmpegError:
        return 0
