"""Open a live source by name."""

from satpipe.pipeline.live.device import DEVICE, Device
from satpipe.pipeline.live.source import LiveSource, SourceOptions
from satpipe.pipeline.live.stdin_and_files import STDIN, GrowingFile, Pipe
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import ConfigError, install


def open_source(name: str, options: SourceOptions) -> LiveSource:
    """Open a source: `-` for standard input, `device:NAME`, a URL or a path.

    Raises:
        ConfigError: The source does not exist, or needs an extra that is not installed.
        AudioError: The source has no audio that can be read.
    """
    if name == STDIN:
        return Pipe(options)
    if name.startswith(DEVICE):
        return Device(name, options)
    if not is_remote(name):
        return GrowingFile(name, options)
    try:
        from satpipe.pipeline.live.url import Url
    except ImportError as error:
        raise ConfigError(f"to listen to {name}, {install('ffmpeg')}") from error
    return Url(name, options)
