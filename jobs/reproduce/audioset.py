"""AudioSet as `satpipe reproduce` reads it.

DIR/balanced_train_segments.csv     AudioSet's lists of clips; at least one whose name ends in train_segments.csv
DIR/unbalanced_train_segments.csv
DIR/train/                          audio of these clips, in any folders, named by YouTube id
DIR/eval/                           audio of the evaluation set
DIR/eval_segments.csv               its list; by default the one that comes with satpipe
DIR/audioset_eval_strong.tsv        its strong labels, for Table 3; by default as for `satpipe evaluate --strong`
"""

from dataclasses import dataclass
from pathlib import Path

from satpipe.jobs.ground_truth.audioset import STRONG, WEAK, strong_labels
from satpipe.sat.errors import TruthError

TRAIN, EVAL, EVAL_SEGMENTS = "train", "eval", "eval_segments.csv"
TRAIN_SEGMENTS = "*train_segments.csv"


@dataclass(frozen=True)
class AudioSet:
    """The folder."""

    folder: Path

    @property
    def train_audio(self) -> Path:
        """Folder of the training clips."""
        return self.folder / TRAIN

    @property
    def eval_audio(self) -> Path:
        """Folder of the evaluation clips."""
        return self.folder / EVAL

    @property
    def train_segments(self) -> list[Path]:
        """Lists of the training clips: those that are there, else the one that should be."""
        return sorted(self.folder.glob(TRAIN_SEGMENTS)) or [self.folder / "unbalanced_train_segments.csv"]

    @property
    def eval_segments(self) -> Path:
        """List of the evaluation clips."""
        path = self.folder / EVAL_SEGMENTS
        return path if path.is_file() else WEAK

    @property
    def eval_strong(self) -> Path | None:
        """Strong labels of the evaluation clips; None: as satpipe finds them."""
        path = self.folder / STRONG
        return path if path.is_file() else None

    def missing(self, *, training: bool, strong: bool) -> list[str]:
        """Return what the folder lacks, one line each.

        Args:
            training: Models are trained.
            strong: Strong labels are needed.
        """
        found = []
        if training and not self.train_segments[0].is_file():
            found.append(f"{self.train_segments[0]}, AudioSet's list of training clips")
        for folder, what in ((self.train_audio, "training"), (self.eval_audio, "evaluation")):
            if (training or folder == self.eval_audio) and not folder.is_dir():
                found.append(f"{folder}, the audio of the {what} clips")
        if strong and not self.eval_strong:
            try:
                strong_labels()
            except TruthError:
                found.append(f"{self.folder / STRONG}, the strong labels; `satpipe labels pull` downloads them")
        return found
