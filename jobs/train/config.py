"""Settings of `satpipe train`: a YAML file and `--set key=value`, checked before anything starts."""

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator
from satpipe.sat.errors import ConfigError
from satpipe.sat.model.config import CONFIGS, DEPTH, get_config, own_config

Stage = Literal["mae", "full", "sat"]
STAGES: tuple[Stage, ...] = get_args(Stage)
CONFIG_FOLDER = Path(__file__).parent / "recipes"
Count = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, lt=1)]


class _Keys(BaseModel):
    """Keys of a YAML table; others are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _plain(cls, value: Any, info: ValidationInfo) -> Any:
        """Convert YAML's values strictly: true is not a number, and every scalar is a valid text."""
        kind = cls.model_fields[info.field_name or ""].annotation
        if kind is str:
            return "" if value is None else str(value)
        if kind in (bool, int, float) and isinstance(value, bool) != (kind is bool):
            raise ValueError("true or false" if kind is bool else "a number")
        return value


class OwnArch(_Keys):
    """A model's configuration of your own, under the key `arch`."""

    width: Count
    """Channels of a token."""
    heads: Count
    """Attention heads, which must divide `width`."""
    depth: Count = DEPTH
    """Number of blocks."""
    chunk_s: Annotated[float, Field(gt=0)] | None = None
    """Nominal delay in seconds: by default 2 in stage sat, whose memory is as long, and 10 in the other stages."""
    class_token: bool = False
    """Compute scores from a class token instead of the mean over all tokens."""


class TrainConfig(_Keys):
    """Everything a run depends on except the data itself; each field is a key of the YAML files."""

    stage: Stage
    """mae, full or sat."""
    arch: str
    """Name of the model's configuration; or a table of your own with the keys of `OwnArch`, which is then kept as the
    name that states it, such as SAT_w96_h3_d12_2s."""
    data: str = ""
    """Folder of the training set (`satpipe prepare`), or several, separated by commas."""
    labels: str = ""
    """Folder of the teacher's labels (`satpipe psl`). Stage sat requires them; stage full uses them instead of the
    labels of the training set."""
    validation: str = ""
    """Folder of the training set to validate on; no validation if empty."""
    validation_labels: str = ""
    """Folder of the teacher's labels of that set; if empty, the set's own labels are used."""
    init: str = ""
    """Checkpoint to start from: the export of an earlier stage, or a model by name; random weights if empty."""

    epochs: Count
    """Epochs of the whole run."""
    clips_per_epoch: int = 0
    """Clips (or segments, or views) per epoch; 0: all."""
    batch: Count = 32
    """Clips per update, over all workers; `workers` times `accumulate` must divide it."""
    accumulate: Count = 1
    """Number of parts in which each worker processes its share of a batch; more parts need less memory."""
    workers: Count = 1
    """Processes that train, each on its own share of a batch."""
    threads: Count = 1
    """Processors per worker."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """cpu, cuda, or auto for cuda if there is a GPU."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Precision of matrix products: bf16 or fp32."""
    seed: int = 0
    """Random seed."""

    optimizer: Literal["adamw", "adam8bit", "adamw8bit"] = "adamw"
    """adamw; or adam8bit or adamw8bit, whose state takes a quarter of the memory (bitsandbytes)."""
    lr: Annotated[float, Field(gt=0)]
    """Highest learning rate."""
    lr_end: float = 0.0
    """Learning rate at the end."""
    warmup_epochs: float = 0.0
    """Epochs over which the learning rate rises linearly from 0 to `lr`."""
    schedule: Literal["cosine", "flat"] = "cosine"
    """cosine: half a cosine from `lr` to `lr_end` after the warm-up; flat: `lr` until the last `decay_epochs`, then
    linear to `lr_end`."""
    cosine_epochs: float = 0.0
    """Length of the half cosine; the end of the run cuts off a longer one. 0: to the end of the run."""
    decay_epochs: float = 0.0
    """Length of the decay of the flat schedule."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of Adam's running means of gradients and of their squares."""
    weight_decay: float = 0.0
    """Weight decay: decoupled from the gradient in adamw and adamw8bit, part of it in adam8bit."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; 0: no clipping."""
    ema: Share = 0.0
    """Decay of the running average of the weights that is validated and exported; 0: no average."""
    input_norm: Literal["batch", "fixed"] = "batch"
    """Statistics of the mel bands. batch: learned as in any batch-norm; fixed: computed once from the data."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.01
    """Share of a batch in the running statistics of the mel bands, for `input_norm: batch`."""
    initialisation: Literal["normal", "xavier"] = "normal"
    """Random initial weights. normal: standard deviation 0.02, biases 0; xavier: uniform by a layer's size (Glorot and
    Bengio), with scores that begin near 0.01."""

    balance: float = 0.0
    """How strongly clips with rare labels are favoured: exponent of a label's inverse frequency; 0: not at all."""
    replacement: bool = False
    """Draw clips with replacement. With `balance`, this is also done if an epoch is not smaller than the set."""
    frequency_floor: float = 1.0
    """Added to a label's frequency, so that the rarest labels do not outweigh all others."""
    shift: bool = False
    """Rotate waveforms in time by a random length."""
    polarity: bool = False
    """Invert the polarity of half of the waveforms."""
    gain_db: float = 0.0
    """Random gain: maximum change in dB of waveforms, standard deviation in dB of views."""
    mixup_alpha: float = 0.0
    """Parameter of mixup's beta distribution; 0: no mixup."""
    mask_frames: int = 0
    """Width of the random mask in time."""
    mask_bands: int = 0
    """Width of the random mask in frequency."""
    mask_width: Literal["fixed", "uniform"] = "fixed"
    """fixed: masks have this width; uniform: it is their maximum."""
    patch_out: Share = 0.0
    """Share of the time and frequency positions left out in stage full."""
    drop_path: Share = 0.0
    """Probability that a clip skips the attention or, independently, the perceptron of the last block in stage full; it
    skips those of earlier blocks less often."""
    decoder_depth: int = 8
    """Blocks of the MAE's decoder."""
    mae_class_token: bool = True
    """Train the MAE with a class token, also for models that have none; it is not exported for these."""

    teacher: str = ""
    """Stage sat: EfficientAT's weights (or a SAT model) that label augmented and mixed views during training. `labels`
    then only determine how often each class is drawn."""
    sequence_chunks: Annotated[int, Field(ge=2)] = 2
    """Stage sat: consecutive chunks of a crop, segment or view; the paper has two. The memory of each is the chunk
    before."""
    memory_gradient: bool = False
    """Let gradients flow through the memory into the chunk before; in the paper, none do."""
    sequence_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the loss of the mean score over a sequence's chunks, against the teacher's scores of the whole sequence
    (the paper's only loss)."""
    chunk_weight: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the loss of each chunk's score, against the teacher's scores of that chunk and its context."""
    label_context_chunks: Annotated[int, Field(ge=0)] = 1
    """Number of chunks before a chunk, as far as the sequence has them, that the teacher hears for the chunk's label
    (`satpipe psl --context-chunks`). A memory of one chunk per block holds at least that one."""
    reuse: Count = 1
    """Number of times that each view is used within its epoch, with a new mask and gain each time."""
    mix: Annotated[float, Field(ge=0, le=1)] = 0.5
    """Share of the views that mix two sounds."""
    join: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the views in which a clip begins and ends anywhere, between other clips or silence, as sounds do in a
    long recording."""

    validate_every: Count = 1
    """Epochs between validations."""
    checkpoint_steps: int = 0
    """Updates between checkpoints within an epoch; 0: only at the end of each epoch."""
    average_best: Count = 1
    """Number of best checkpoints whose weights are averaged for the export; 1: the last one is exported. The best have
    the highest mAP on the validation set, in stage mae the lowest loss."""
    half: bool = False
    """Export in half precision."""
    max_failures: int = 3
    """Number of times that lost workers are replaced before the run ends with an error."""
    log_steps: Count = 50
    """Updates between two lines of metrics."""

    @model_validator(mode="before")
    @classmethod
    def _named(cls, given: Any) -> Any:
        """Replace a table under `arch` by the name of that configuration."""
        arch = given.get("arch")
        if not isinstance(arch, Mapping):
            return given
        try:
            own = OwnArch(**{str(key): value for key, value in arch.items()})
            config = own_config(streaming=given.get("stage") == "sat", **own.model_dump())
        except ValidationError as error:
            raise ConfigError(f"arch: {_problems(error, OwnArch)}") from None
        except ConfigError as error:
            raise ConfigError(f"arch: {error}") from None
        return {**given, "arch": config.name}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        streaming = self.stage == "sat"
        if get_config(self.arch).streaming != streaming:
            kind = "streaming" if streaming else "full-context"
            names = ", ".join(name for name, other in CONFIGS.items() if other.streaming == streaming)
            raise ConfigError(f"arch must be a {kind} model for stage {self.stage} ({names}), not {self.arch!r}")
        if self.warmup_epochs + self.decay_epochs > self.epochs:
            raise ConfigError(f"warmup_epochs and decay_epochs must add up to at most the {self.epochs} epochs")
        if self.batch % (self.workers * self.accumulate):
            raise ConfigError(
                f"batch must be a multiple of workers times accumulate, {self.workers} x {self.accumulate}, not "
                f"{self.batch}"
            )
        if self.average_best > 1 and not self.validation:
            raise ConfigError(
                f"average_best={self.average_best} ranks checkpoints on a validation set: add --set validation=FOLDER, "
                "or --set average_best=1"
            )
        if not self.data:
            raise ConfigError("data must name the folder of a training set, as in --set data=FOLDER")
        if not self.sequence_weight + self.chunk_weight:
            raise ConfigError("sequence_weight and chunk_weight must not both be 0")
        if self.shift and self.chunk_weight:
            raise ConfigError("shift must be false with chunk_weight: a chunk's label does not move with the sound")
        if streaming and not self.labels:
            raise ConfigError("labels must name the folder of a teacher's labels (`satpipe psl`) for stage sat")
        return self

    @property
    def step_batch(self) -> int:
        """Clips that a worker processes at once."""
        return self.batch // (self.workers * self.accumulate)


def load_config(stage: str, config: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """Read and check a configuration.

    Args:
        stage: One of `STAGES`.
        config: A YAML file, or the name of a configuration that comes with satpipe.
        overrides: key=value texts that replace keys of the file.

    Raises:
        ConfigError: The file does not exist, a key is unknown (the message suggests a similar one), or a value is not
            allowed.
    """
    path = _find(config)
    given = _read(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise ConfigError(f"--set must be key=value, not {override!r}")
        given[key.strip()] = yaml.safe_load(value) if value else ""
    if given.setdefault("stage", stage) != stage:
        raise ConfigError(f"{path} is for stage {given['stage']}, not {stage}")
    try:
        return TrainConfig(**given)
    except ValidationError as error:
        raise ConfigError(f"{path}: {_problems(error, TrainConfig)}") from None
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _find(config: str) -> Path:
    path = Path(config)
    if not path.is_file():
        path = CONFIG_FOLDER / f"{config.removesuffix('.yaml')}.yaml"
    if not path.is_file():
        names = sorted(file.stem for file in CONFIG_FOLDER.glob("*.yaml"))
        hint = _nearest(config, names) or f"satpipe comes with {', '.join(names)}"
        raise ConfigError(f"configuration {config} not found; {hint}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        given = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not readable YAML:", *str(error).splitlines()) from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} is not a table of keys and values")
    return {str(key): value for key, value in given.items()}


def _problems(error: ValidationError, of: type[BaseModel]) -> str:
    """Return a message with each wrong key of a model and its allowed values."""
    found = error.errors()
    wrong = [each for each in found if each["type"] != "missing" or len(each["loc"]) > 1]
    missing = [str(each["loc"][0]) for each in found if each not in wrong]
    if missing and not any(each["type"] == "extra_forbidden" for each in wrong):  # perhaps the missing one, misspelt
        return f"keys missing: {', '.join(missing)}"
    return "; ".join(_problem(str(each["loc"][0]), each, of) for each in wrong)


def _problem(key: str, problem: Mapping[str, Any], of: type[BaseModel]) -> str:
    if problem["type"] == "extra_forbidden":
        hint = _nearest(key, of.model_fields)
        return f"unknown key '{key}'" + (f"; {hint}" if hint else "")
    allowed = "two numbers" if key == "betas" else re.sub(r", (unable|got) .*|^\D* error, ", "", problem["msg"])
    return f"{key} must be {allowed.removeprefix('Input should be ')}, not {problem['input']!r}"


def _nearest(name: str, names: Any) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.3)
    return f"did you mean {near[0]}?" if near else ""
