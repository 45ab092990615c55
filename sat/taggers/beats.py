"""BEATs (Chen et al., ICML 2023, arXiv 2212.09058), written from the papers for the published fine-tuned weights.

A transformer over 16x16 patches of Kaldi log-mel, in order of time. The layers normalise after the residual, which is
scaled as in DeepNet (Wang et al., arXiv 2203.00555). Positions come from a convolution (wav2vec 2.0) and from a
relative attention bias in buckets, as in T5, which is gated by the query (WavLM, Chen et al., arXiv 2110.13900). There
is no padding: a short segment has few tokens, and frames past the last whole patch are ignored.
"""

from math import log
from pathlib import Path

import torch
from satpipe.sat.errors import CheckpointError
from satpipe.sat.model.config import CLASSES
from satpipe.sat.taggers.interface import Tagger
from satpipe.sat.taggers.kaldi import HOP_SAMPLES, MEL_BANDS, WINDOW_SAMPLES, LogMel
from satpipe.sat.tensor_files import read_tensors
from torch import Tensor, nn
from torch.nn import functional as F

PATCH = 16
BUCKETS = 320
FARTHEST_TOKENS = 800
MEAN, TWO_STD = 15.41663, 2 * 6.55582  # of AudioSet's log-mel, as the published models were trained
INT16 = 2.0**15
_POSITIONS = "encoder.relative_attention_bias.weight"
_WIDTH, _HEADS, _LAYERS, _EMBEDDING = 768, 12, 12, 512  # of the published models


class BEATs(Tagger):
    """A fine-tuned BEATs of any size; its weights are a published file, which lists the classes."""

    shortest_ms = 175  # one patch
    needs_weights = True
    weights_example = "BEATs_iter3_plus_AS2M_finetuned_on_AS2M_cpt2.pt"
    model: "Network"

    def __init__(self, weights: Path | None) -> None:
        self._log_mel = LogMel()
        if weights is None:
            self.model = Network(_WIDTH, _HEADS, _LAYERS, _EMBEDDING, CLASSES).eval()
        else:
            self.model, self.mids = _load(weights)

    def features(self, waveforms: Tensor) -> Tensor:
        """Shape: [B, n] samples at 16 kHz -> [B, F, 128]."""
        return (self._log_mel(waveforms * INT16) - MEAN) / TWO_STD

    def forward(self, features: Tensor) -> Tensor:
        """Shape: [B, F, 128] -> scores [B, outputs]."""
        return self.forward_and_embed(features)[0]

    def forward_and_embed(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Also return the mean of the tokens, which has the mean logits of the tokens: [B, D]."""
        pooled = self.model.embeddings(features)
        return torch.sigmoid(self.model.predictor(pooled)), pooled

    @property
    def embedding_size(self) -> int:
        """Width of the transformer."""
        return self.model.predictor.in_features

    def tokens(self, samples: int) -> int:
        """Return the number of whole patches of a segment."""
        return ((samples - WINDOW_SAMPLES) // HOP_SAMPLES + 1) // PATCH * (MEL_BANDS // PATCH)


class Network(nn.Module):
    """The transformer and its classifier, with the published tensor names."""

    def __init__(self, width: int, heads: int, layers: int, embedding: int, classes: int) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(1, embedding, PATCH, PATCH, bias=False)
        self.layer_norm = nn.LayerNorm(embedding)
        self.post_extract_proj = nn.Linear(embedding, width)
        self.encoder = Encoder(width, heads, layers)
        self.predictor = nn.Linear(width, classes)

    def forward(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, F, 128] -> logits [B, classes]."""
        return self.predictor(self.embeddings(log_mel))  # type: ignore[no-any-return]

    def embeddings(self, log_mel: Tensor) -> Tensor:
        """Shape: [B, F, 128] -> mean of the tokens [B, D]."""
        x = self.patch_embedding(log_mel[:, None]).flatten(2).transpose(1, 2)  # [B, T, E], bands within time
        return self.encoder(self.post_extract_proj(self.layer_norm(x))).mean(1)  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """Layers that share one table of relative positions."""

    def __init__(self, width: int, heads: int, layers: int) -> None:
        super().__init__()
        self.pos_conv = nn.Conv1d(width, width, 128, padding=64, groups=16)
        self.layer_norm = nn.LayerNorm(width)
        self.relative_attention_bias = nn.Embedding(BUCKETS, heads)
        self.layers = nn.ModuleList(Layer(width, heads, (2 * layers) ** 0.25) for _ in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        """Shape: [B, T, D] -> [B, T, D]."""
        positions = F.gelu(self.pos_conv(x.transpose(1, 2))[..., :-1]).transpose(1, 2)
        x = self.layer_norm(x + positions)
        bias = self.relative_attention_bias(buckets(x.shape[1]).to(x.device)).permute(2, 0, 1)  # [H, T, T]
        for layer in self.layers:
            x = layer(x, bias)
        return x


class Layer(nn.Module):
    """Attention and perceptron, each normalised after its residual."""

    def __init__(self, width: int, heads: int, alpha: float) -> None:
        super().__init__()
        self.self_attn = Attention(width, heads)
        self.self_attn_layer_norm = nn.LayerNorm(width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.final_layer_norm = nn.LayerNorm(width)
        self._alpha = alpha

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Shape: [B, T, D] and [H, T, T] -> [B, T, D]."""
        x = self.self_attn_layer_norm(self._alpha * x + self.self_attn(x, bias))
        return self.final_layer_norm(self._alpha * x + self.fc2(F.gelu(self.fc1(x))))  # type: ignore[no-any-return]


class Attention(nn.Module):
    """Attention whose relative bias is gated by the query."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))
        self.out_proj = nn.Linear(width, width)
        self.grep_linear = nn.Linear(width // heads, 8)
        self.grep_a = nn.Parameter(torch.ones(1, heads, 1, 1))
        self._heads = heads

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        """Shape: [B, T, D] and [H, T, T] -> [B, T, D]."""
        q, k, v = (
            projection(x).unflatten(-1, (self._heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        update, reset = self.grep_linear(q).unflatten(-1, (2, 4)).sum(-1).sigmoid().split(1, dim=-1)  # [B, H, T, 1]
        gate = update * (reset * self.grep_a - 1) + 2
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=gate * bias)
        return self.out_proj(x.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


def buckets(tokens: int) -> Tensor:
    """Return the bucket of each pair of query and key: one for each short distance, wider ones for long distances.

    Shape:
        [T, T]
    """
    half, near = BUCKETS // 2, BUCKETS // 4
    distance = torch.arange(tokens)[None, :] - torch.arange(tokens)[:, None]
    size = distance.abs()
    far = near + (size.clamp_min(1) / near).log() / log(FARTHEST_TOKENS / near) * (half - near)
    bucket = torch.where(size < near, size, far.long().clamp_max(half - 1))
    return bucket + half * (distance > 0)


def _load(path: Path) -> tuple[Network, list[str]]:
    """Read a published file: the network and the mids of its outputs."""
    state = read_tensors(path)
    try:
        whole = torch.load(path, map_location="meta", weights_only=True)
        mids = [whole["label_dict"][number] for number in range(len(whole["label_dict"]))]
    except KeyError as error:
        raise CheckpointError(
            f"{path} lists no classes: it must be a fine-tuned BEATs, not a pretrained one"
        ) from error
    try:
        width, embedding = state["post_extract_proj.weight"].shape
        heads = state["encoder.layers.0.self_attn.grep_a"].shape[1]
        layers = sum(name.endswith("self_attn.grep_a") for name in state)
        network = Network(width, heads, layers, embedding, len(mids))
        scale, direction = state["encoder.pos_conv.0.weight_g"], state["encoder.pos_conv.0.weight_v"]
        state["encoder.pos_conv.weight"] = direction * (scale / direction.norm(dim=(0, 1), keepdim=True))
        state["encoder.pos_conv.bias"] = state["encoder.pos_conv.0.bias"]
        state[_POSITIONS] = state["encoder.layers.0.self_attn.relative_attention_bias.weight"]
        network.load_state_dict({name: state[name] for name in network.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(f"{path} is not a BEATs network: {error}") from error
    return network.eval(), mids
