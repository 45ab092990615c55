"""Hugging Face's transformers, imported only when a tagger needs it."""

from importlib import import_module
from types import ModuleType

from satpipe.sat.errors import ConfigError, install


def transformers(tagger: str) -> ModuleType:
    """Import and return the package, with its messages and progress bars switched off.

    Raises:
        ConfigError: The package is not installed.
    """
    try:
        package = import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"{tagger} needs transformers; {install('taggers')}") from error
    package.logging.set_verbosity_error()
    package.logging.disable_progress_bar()
    return package
