"""Every error satpipe raises on purpose.

    SatpipeError
    ├── ConfigError        an option, a model name or a combination of them that cannot work
    ├── LabelError         a label that is not in the list it was looked up in
    ├── CheckpointError    a file of weights that is not what it should be
    ├── DownloadError      a checkpoint that could not be fetched
    ├── AudioError         a recording that cannot be read, or not to its end
    ├── TruthError         true labels that cannot be read, or not be joined to recordings
    ├── TrainingError      a training run that cannot go on
    └── OutputError        an output folder that cannot be used, or tables in it that are not ours

Library code raises them; the command line prints `TypeName: message` and exits.
"""


class SatpipeError(Exception):
    """Base of every error that is meant for the person at the keyboard."""


class ConfigError(SatpipeError):
    """An option, a model name or a combination of them that cannot work."""


class LabelError(SatpipeError):
    """A label that is not in the list it was looked up in."""


class CheckpointError(SatpipeError):
    """A file of weights that is missing, unreadable or of another model."""


class DownloadError(SatpipeError):
    """A checkpoint that could not be fetched whole."""


class AudioError(SatpipeError):
    """A recording that cannot be read, or not to its end.

    Attributes:
        status: The `status` its row in the recordings table gets.
    """

    def __init__(self, message: str, status: str = "unreadable") -> None:
        super().__init__(message)
        self.status = status


class TruthError(SatpipeError):
    """True labels that cannot be read, or not be joined to recordings."""


class OutputError(SatpipeError):
    """An output folder that cannot be used, or tables in it that are not ours."""


class TrainingError(SatpipeError):
    """A training run that cannot go on: numbers that are none, too little memory, workers that are lost for good."""
