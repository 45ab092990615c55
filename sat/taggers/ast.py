"""AST (Gong, Chung, Glass, Interspeech 2021) with its log-mel front end, from Hugging Face's transformers.

It computes the tokens of 10.24 s at every delay: the front end pads the log-mel of a shorter segment with zeros.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.labels import find
from satpipe.sat.model.config import CLASSES
from satpipe.sat.taggers.huggingface import transformers
from satpipe.sat.taggers.interface import Tagger
from torch import Tensor


class AST(Tagger):
    """An AST of any size; its weights are a folder that `save_pretrained` wrote."""

    needs_weights = True
    packages = ("transformers",)
    weights_example = "FOLDER, or ast:hf://MIT/ast-finetuned-audioset-10-10-0.4593"
    model: Any

    def __init__(self, weights: Path | None) -> None:
        library = transformers("AST")
        network, front_end = library.ASTForAudioClassification, library.ASTFeatureExtractor
        with warnings.catch_warnings(action="ignore"):  # some of Kaldi's filters are narrower than an FFT bin
            if weights is None:
                self.model = network(library.ASTConfig(num_labels=CLASSES)).eval()
                self._front_end = front_end()
            else:
                self.model = _read(network, weights)
                configured = (weights / "preprocessor_config.json").is_file()
                self._front_end = front_end.from_pretrained(weights) if configured else front_end()
                names = self.model.config.id2label
                self.mids = [find(names[number]).mid for number in range(len(names))]
        self.rate_hz = self._front_end.sampling_rate

    def features(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples -> [B, 1024, 128], padded with zeros or truncated."""
        inputs = self._front_end(list(waveforms.numpy()), sampling_rate=self.rate_hz, return_tensors="pt")
        return inputs["input_values"]  # type: ignore[no-any-return]

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [B, 1024, 128] -> scores [B, outputs]."""
        return self.forward_and_embed(features)[0]

    def forward_and_embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Also return the mean of the two class tokens, which the classifier reads: [B, D]."""
        pooled = self.model.audio_spectrogram_transformer(input_values=features).pooler_output
        return torch.sigmoid(self.model.classifier(pooled)), pooled

    @property
    def embedding_size(self) -> int:
        """Width of the transformer."""
        return int(self.model.config.hidden_size)

    def tokens(self, samples: int) -> int:
        """Return the number of overlapping patches in the padded log-mel."""
        config = self.model.config
        bands = (config.num_mel_bins - config.patch_size) // config.frequency_stride + 1
        return bands * ((config.max_length - config.patch_size) // config.time_stride + 1)  # type: ignore[no-any-return]


def _read(network: Any, folder: Path) -> Any:
    try:
        model, report = network.from_pretrained(folder, local_files_only=True, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{folder} must be a folder with an AST's config.json and weights: {reason}") from error
    wrong = sorted(report["missing_keys"]) + sorted(str(key) for key in report["mismatched_keys"])
    if wrong:  # transformers would continue with random weights
        raise CheckpointError(
            f"{folder} does not fit its config.json: {', '.join(wrong[:4])} missing or of another shape"
        )
    return model.eval()
