"""The errors that satpipe raises deliberately.

    SatpipeError
    ├── ConfigError        an invalid option or model name, or a combination that cannot work
    ├── LabelError         a label that is unknown, or that the model has no output for
    ├── CheckpointError    a weights file that is missing, unreadable, or for another model
    ├── DownloadError      a file that could not be downloaded
    ├── AudioError         a recording that cannot be read, or not to its end
    ├── TruthError         ground truth that cannot be read, or that does not match the recordings
    ├── TrainingError      a training run that cannot continue
    └── OutputError        an output that cannot be read or written, or a folder that contains other files
        └── DamageError    a table that is damaged, incomplete, or not where it belongs

Library code raises them. The command line prints `TypeName: message` and exits. Each argument of an error is a line of
its message.
"""

from satpipe.sat.printable import printable_lines


class SatpipeError(Exception):
    """Base class of all errors that are addressed to the user."""

    def __str__(self) -> str:
        """Return the message, in which names are safe to print."""
        return printable_lines(self.args)


class ConfigError(SatpipeError):
    """An invalid option or model name, or a combination that cannot work."""


class LabelError(SatpipeError):
    """A label that is unknown, or that the model has no output for."""


class CheckpointError(SatpipeError):
    """A weights file that is missing, unreadable, or for another model."""


class DownloadError(SatpipeError):
    """A file that could not be downloaded completely."""


class AudioError(SatpipeError):
    """A recording that cannot be read, or not to its end.

    Attributes:
        status: The `status` of the recording in the table of recordings.
    """

    def __init__(self, message: str, status: str = "unreadable") -> None:
        super().__init__(message)
        self.status = status


class TruthError(SatpipeError):
    """Ground truth that cannot be read, or that does not match the recordings."""


class OutputError(SatpipeError):
    """An output that cannot be read or written, or a folder that contains other files."""


class DamageError(OutputError):
    """A table that is damaged, incomplete, or not where it belongs."""


class TrainingError(SatpipeError):
    """A training run that cannot continue: NaN in the loss, too little memory, or lost workers."""


def install(extra: str) -> str:
    """Return the end of a message: the command that installs an extra of satpipe."""
    from importlib.metadata import version

    wheel = f"satpipe-{version('satpipe')}-py3-none-any.whl"
    return f"install the extra {extra}: pip install '.[{extra}]' in the checkout, or pip install '{wheel}[{extra}]'"
