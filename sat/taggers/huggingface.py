"""Hugging Face's transformers, imported when a tagger needs it."""

from importlib import import_module
from types import ModuleType

from satpipe.sat.errors import ConfigError

EXTRA = "pip install 'satpipe[peers]'"


def transformers(tagger: str) -> ModuleType:
    """Return the package, told to keep quiet.

    Raises:
        ConfigError: It is not installed.
    """
    try:
        package = import_module("transformers")
    except ImportError as error:
        raise ConfigError(f"{tagger} needs transformers: {EXTRA}") from error
    package.logging.set_verbosity_error()
    package.logging.disable_progress_bar()
    return package
