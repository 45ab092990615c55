"""Settings of `satpipe train`: a YAML file, `--set key=value` over it, checked before anything starts."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CONFIGS, get_config

STAGES = ("mae", "full", "sat")
CONFIG_FOLDER = Path(__file__).parent / "recipes"
CHOICES = {
    "stage": STAGES,
    "optimizer": ("adamw", "adam8bit"),
    "precision": ("fp32", "bf16"),
    "schedule": ("cosine", "flat"),
    "input_norm": ("batch", "fixed"),
    "device": ("auto", "cpu", "cuda"),
}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything a run depends on besides the data itself; each field is a key of the YAML files."""

    stage: str
    """mae, full or sat."""
    arch: str
    """Name of the model's configuration."""
    data: str = ""
    """Folder of the training set (`satpipe prepare`), or several, separated by commas."""
    labels: str = ""
    """Folder of the teacher's labels (`satpipe psl`); stage sat needs them, stage full takes them for the set's own."""
    validation: str = ""
    """Folder of the training set to validate on; none if empty."""
    validation_labels: str = ""
    """Folder of the teacher's labels of that set; without it the set's own labels count."""
    init: str = ""
    """Checkpoint to start from: the export of an earlier stage; random weights if empty."""

    epochs: int
    """Epochs of the whole run."""
    clips_per_epoch: int = 0
    """Clips (or pieces, or views) that are an epoch; all there are if 0."""
    batch: int = 32
    """Clips of a step and worker."""
    accumulate: int = 1
    """Steps whose gradients make one update."""
    workers: int = 1
    """Processes that train, each on its own part of a batch."""
    threads: int = 1
    """Processors of one worker."""
    device: str = "auto"
    """cpu, cuda, or cuda where there is one."""
    precision: str = "bf16"
    """What matrices are multiplied in: bf16 or fp32."""
    seed: int = 0

    optimizer: str = "adamw"
    """adamw, or adam8bit (bitsandbytes)."""
    lr: float
    """Highest learning rate."""
    lr_end: float = 0.0
    """Learning rate at the end."""
    warmup_epochs: float = 0.0
    schedule: str = "cosine"
    """cosine: half a cycle from the warm-up to the end; flat: at `lr` until the last `decay_epochs`, then linear."""
    decay_epochs: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    """Longest gradient; not clipped if 0."""
    ema: float = 0.0
    """Decay of the running average of the weights that is validated and exported; none if 0."""
    input_norm: str = "batch"
    """batch: statistics of the mel bands are learned as in any batch-norm; fixed: taken once from the data."""

    balance: float = 0.0
    """Exponent of the label frequency by which clips are drawn; 0 draws all alike."""
    frequency_floor: float = 1.0
    """Added to a label's frequency, so that the rarest do not outweigh all others."""
    shift: bool = False
    polarity: bool = False
    gain_db: float = 0.0
    mixup_alpha: float = 0.0
    mask_frames: int = 0
    mask_bands: int = 0
    patch_out: float = 0.0
    drop_path: float = 0.0
    decoder_depth: int = 8
    """Blocks of the MAE's decoder."""

    teacher: str = ""
    """Stage sat: EfficientAT weights (or a model of ours) that label augmented and mixed views while it trains,
    instead of `labels`, which then only say how often each class is drawn."""
    reuse: int = 1
    """How often each view is used within its epoch, each time masked and amplified anew."""
    mix: float = 0.5
    """Share of the views that are two sounds."""

    validate_every: int = 1
    """Epochs between validations."""
    checkpoint_steps: int = 0
    """Updates between checkpoints, besides the one at the end of each epoch; 0: none between."""
    average_best: int = 1
    """How many of the best checkpoints are averaged into the export; 1: the last one is exported."""
    half: bool = False
    """Export in half precision."""
    max_failures: int = 3
    """How often a lost worker is replaced before the run gives up."""
    log_steps: int = 50


def load_config(stage: str, config: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a configuration.

    Args:
        stage: mae, full or sat.
        config: A YAML file, or the name of one that comes with satpipe.
        overrides: key=value texts that replace what the file says.

    Raises:
        ConfigError: No such file, unknown key (the nearest one is named), or a value that cannot be.
    """
    path = Path(config)
    if not path.is_file():
        path = CONFIG_FOLDER / f"{config.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in CONFIG_FOLDER.glob("*.yaml"))
        near = get_close_matches(config, names, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]}?" if near else f"those that come with satpipe are {', '.join(names)}"
        raise ConfigError(f"there is no configuration {config}; {hint}")
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML: {error}") from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} is not a table of keys and values")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set {override}: it takes key=value")
        given[key.strip()] = yaml.safe_load(value) if value else ""
    given.setdefault("stage", stage)
    types = get_type_hints(TrainConfig)
    values = {key: _value(str(key), value, types) for key, value in given.items()}
    lacking = [
        field.name
        for field in dataclasses.fields(TrainConfig)
        if field.default is dataclasses.MISSING and field.name not in values
    ]
    if lacking:
        raise ConfigError(f"{path} does not say {', '.join(lacking)}")
    settings = TrainConfig(**values)
    if settings.stage != stage:
        raise ConfigError(f"{path} is for stage {settings.stage}, not {stage}")
    _check(settings)
    return settings


def _value(key: str, value: Any, types: dict[str, Any]) -> Any:
    if key not in types:
        near = get_close_matches(key, types, n=1, cutoff=0.3)
        raise ConfigError(f"there is no key '{key}'" + (f"; did you mean '{near[0]}'?" if near else ""))
    wanted = types[key]
    try:
        if wanted is bool:
            if not isinstance(value, bool):
                raise ValueError
            return value
        if wanted is int:
            if isinstance(value, bool) or int(value) != float(value):
                raise ValueError
            return int(value)
        if wanted is float:
            return float(value)  # YAML takes 5e-4 for a text
        if wanted is str:
            return "" if value is None else str(value)
        return tuple(float(part) for part in value)
    except (TypeError, ValueError):
        kind = "two numbers" if wanted not in (bool, int, float, str) else wanted.__name__
        raise ConfigError(f"{key} is {value!r}: it takes {kind}") from None


def _check(settings: TrainConfig) -> None:
    for key, choices in CHOICES.items():
        if getattr(settings, key) not in choices:
            raise ConfigError(f"{key} is '{getattr(settings, key)}': it takes {', '.join(choices)}")
    config = get_config(settings.arch)
    if config.streaming != (settings.stage == "sat"):
        kind = "streaming" if settings.stage == "sat" else "full-context"
        names = ", ".join(name for name, other in CONFIGS.items() if other.streaming == (settings.stage == "sat"))
        raise ConfigError(f"stage {settings.stage} trains {kind} models: {names}; {settings.arch} is none")
    for key in ("epochs", "batch", "accumulate", "workers", "threads", "reuse", "validate_every", "average_best"):
        if getattr(settings, key) < 1:
            raise ConfigError(f"{key} is {getattr(settings, key)}: it takes numbers from 1")
    for key in ("patch_out", "drop_path", "ema", "mix"):
        if not 0 <= getattr(settings, key) <= 1 or (key != "mix" and getattr(settings, key) == 1):
            raise ConfigError(f"{key} is {getattr(settings, key)}: it takes shares from 0 to under 1")
    if settings.lr <= 0:
        raise ConfigError(f"lr is {settings.lr}: it takes numbers above 0")
    if settings.warmup_epochs + settings.decay_epochs > settings.epochs:
        raise ConfigError(f"warm-up and decay take longer than the {settings.epochs} epochs there are")
    if not settings.data:
        raise ConfigError("data is empty: it takes the folder of a training set, as in --set data=FOLDER")
    if settings.stage == "sat" and not settings.labels:
        raise ConfigError("labels is empty: stage sat takes the folder of a teacher's labels (`satpipe psl`)")
