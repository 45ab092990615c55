"""Open a live source by name."""

from satpipe.pipeline.live.source import DEVICE, STDIN, LiveSource, SourceOptions
from satpipe.pipeline.live.stdin_and_files import GrowingFile, Pipe
from satpipe.pipeline.storage import is_remote
from satpipe.sat.errors import ConfigError


def open_source(name: str, options: SourceOptions) -> LiveSource:
    """Open a source: `-`, `device:NAME`, a URL or a path.

    Raises:
        ConfigError: There is none such, or it takes an extra that is not installed.
        AudioError: There is no sound in it that can be read.
    """
    if name.startswith(DEVICE):
        from satpipe.pipeline.live.device import Device

        return Device(name, options)
    if is_remote(name):
        try:
            from satpipe.pipeline.live.url import Url
        except ImportError as error:
            raise ConfigError(f"{name} takes an extra: pip install 'satpipe[ffmpeg]'") from error
        return Url(name, options)
    return Pipe(options) if name == STDIN else GrowingFile(name, options)
