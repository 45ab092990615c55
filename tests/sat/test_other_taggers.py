"""AST, BEATs and HTS-AT: each against another implementation of its parts, and loaded from files as published."""

import pickle
import warnings
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_same_scores, outputs_of_noise
from rounding import tolerance
from satpipe.sat.errors import CheckpointError, LabelError
from satpipe.sat.labels import weak_labels
from satpipe.sat.taggers import kaldi
from satpipe.sat.taggers.beats import Attention, BEATs, Network, buckets
from satpipe.sat.taggers.cost import cost, noise_chunks
from satpipe.sat.taggers.interface import LoadedExternalTagger
from satpipe.sat.weights.registry import resolve
from torch import Tensor

transformers = pytest.importorskip("transformers", reason="install transformers: pip install -e '.[taggers]'")
audio_utils = transformers.audio_utils

pytestmark = pytest.mark.slow  # importing transformers takes seconds

MIDS = [label.mid for label in weak_labels()]
SHUFFLED = [int(place) for place in np.random.default_rng(0).permutation(527)]
SHUFFLED_BACK = np.argsort(SHUFFLED).tolist()


def noise(seconds: float, rate_hz: int = 16_000, pieces: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 0.2 * torch.randn(pieces, int(seconds * rate_hz), generator=generator)


def external(model: str) -> LoadedExternalTagger:
    loaded = resolve(model)
    assert isinstance(loaded, LoadedExternalTagger)
    return loaded


@pytest.fixture(scope="module")
def ast_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small AST whose outputs come in another order than AudioSet's."""
    torch.manual_seed(0)
    names = {number: weak_labels()[place].name for number, place in enumerate(SHUFFLED)}
    config = transformers.ASTConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48, max_length=256,
        id2label=names, label2id={name: number for number, name in names.items()}, initializer_range=0.5,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("ast")
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    with warnings.catch_warnings(action="ignore"):
        transformers.ASTFeatureExtractor(max_length=256).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("seconds", [0.1, 1.0, 4.0])
def test_ast_scores_are_those_of_its_own_front_end_and_network(ast_folder: Path, seconds: float) -> None:
    with warnings.catch_warnings(action="ignore"):
        front_end = transformers.ASTFeatureExtractor.from_pretrained(ast_folder)
    model = transformers.ASTForAudioClassification.from_pretrained(ast_folder).eval()
    waveforms = noise(seconds)
    padded = torch.nn.functional.pad(waveforms, (0, max(0, 2560 - waveforms.shape[1])))
    with torch.no_grad():
        inputs = front_end(list(padded.numpy()), sampling_rate=16_000, return_tensors="pt")
        theirs = model(**inputs).logits.sigmoid()
        exact = deepcopy(model).double()(inputs["input_values"].double()).logits.sigmoid()
    tagger = pickle.loads(pickle.dumps(external(f"ast:{ast_folder}"))).tagger()  # as it travels to a worker
    scores = tagger.scores(waveforms)
    assert theirs.std() > 0.01
    assert_same_scores(scores[:, SHUFFLED], exact, tolerance(theirs, exact))
    assert tagger.tokens(16_000) == 12 * 25
    if seconds == 4.0:
        tagger, scores, embeddings = outputs_of_noise(external(f"ast:{ast_folder}").adapted(1.0))
        assert_same_scores(model.classifier(embeddings).sigmoid()[:, SHUFFLED_BACK], scores, 1e-6)


def test_an_ast_that_is_not_whole_is_refused(ast_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint .*none not found"):
        resolve(f"ast:{tmp_path / 'none'}")
    with pytest.raises(CheckpointError, match="must be a folder with an AST's config.json"):
        resolve(f"ast:{tmp_path}")
    model = transformers.ASTForAudioClassification.from_pretrained(ast_folder)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "classifier.dense.bias"}
    model.save_pretrained(tmp_path / "less", state_dict=state)
    with pytest.raises(CheckpointError, match="classifier.dense.bias missing"):
        resolve(f"ast:{tmp_path / 'less'}")
    model.config.id2label = {number: f"LABEL_{number}" for number in range(527)}
    model.save_pretrained(tmp_path / "nameless")
    with pytest.raises(LabelError, match="LABEL_0"):
        resolve(f"ast:{tmp_path / 'nameless'}")


def beats_state(classes: int = 527) -> dict[str, Tensor]:
    """Tensors of a small BEATs, called as in the published files."""
    torch.manual_seed(2)
    network = Network(32, 2, 2, 16, classes)
    state = {name: 3 * tensor for name, tensor in network.state_dict().items()}
    weight = state.pop("encoder.pos_conv.weight")
    state["encoder.pos_conv.0.weight_v"] = 7 * weight
    state["encoder.pos_conv.0.weight_g"] = weight.norm(dim=(0, 1), keepdim=True)
    state["encoder.pos_conv.0.bias"] = state.pop("encoder.pos_conv.bias")
    positions = state.pop("encoder.relative_attention_bias.weight")
    for layer in range(2):
        state[f"encoder.layers.{layer}.self_attn.relative_attention_bias.weight"] = positions
    return state


def test_beats_is_read_from_a_published_file_with_its_classes(tmp_path: Path) -> None:
    state = beats_state()
    labels = {number: MIDS[place] for number, place in enumerate(SHUFFLED)}
    torch.save({"cfg": {"encoder_layers": 2}, "model": state, "label_dict": labels}, tmp_path / "beats.pt")
    tagger = pickle.loads(pickle.dumps(external(f"beats:{tmp_path / 'beats.pt'}"))).tagger()
    torch.manual_seed(2)
    network = Network(32, 2, 2, 16, 527).eval()
    network.load_state_dict({name: 3 * tensor for name, tensor in network.state_dict().items()})
    waveforms = noise(2.0)
    with torch.no_grad():
        expected = network(tagger.features(waveforms)).sigmoid()
        exact = deepcopy(network).double()(tagger.features(waveforms).double()).sigmoid()
    assert expected.std() > 0.01
    assert_same_scores(tagger.scores(waveforms)[:, SHUFFLED], exact, tolerance(expected, exact))
    assert tagger.scores(waveforms[:, :100]).shape == (2, 527)  # padded to one patch
    _, scores, embeddings = outputs_of_noise(external(f"beats:{tmp_path / 'beats.pt'}").adapted(1.0))
    assert_same_scores(network.predictor(embeddings).sigmoid()[:, SHUFFLED_BACK], scores, 1e-6)


@pytest.mark.parametrize(
    ("file", "error", "reason"),
    [
        ({"model": {}}, CheckpointError, "contains no state dict"),
        ({"model": beats_state()}, CheckpointError, "lists no classes: it must be a fine-tuned BEATs"),
        ({"model": beats_state(5), "label_dict": dict(enumerate(MIDS[:5]))}, LabelError, "5 outputs, /m/0"),
        (
            {"model": {"a": torch.ones(1)}, "label_dict": dict(enumerate(MIDS))},
            CheckpointError,
            "not a BEATs network",
        ),
    ],
)
def test_another_file_than_beats_is_refused(
    tmp_path: Path, file: dict[str, Any], error: type[Exception], reason: str
) -> None:
    torch.save(file, tmp_path / "beats.pt")
    with pytest.raises(error, match=reason):
        resolve(f"beats:{tmp_path / 'beats.pt'}")


def test_beats_attends_as_wavlm_does_where_both_gate_by_the_same() -> None:
    # WavLM gates by what comes in, BEATs by the query: with the identity as projection of queries these are the same.
    theirs = transformers.models.wavlm.modeling_wavlm.WavLMAttention(32, 4, num_buckets=320, max_distance=800).eval()
    torch.manual_seed(3)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    with torch.no_grad():
        theirs.q_proj.weight.copy_(torch.eye(32))
        theirs.q_proj.bias.zero_()
    ours = Attention(32, 4)
    renamed = {"gru_rel_pos_const": "grep_a", "gru_rel_pos_linear": "grep_linear"}
    state = {name.replace(old, new): t for name, t in theirs.state_dict().items() for old, new in renamed.items()}
    state = {name: tensor for name, tensor in state.items() if name in ours.state_dict()}
    ours.load_state_dict(state)
    x = torch.randn(2, 1000, 32)
    bias = theirs.rel_attn_embed(buckets(1000)).permute(2, 0, 1)
    torch.testing.assert_close(bias, theirs.compute_bias(1000, 1000))
    expected, *_ = theirs(x, position_bias=bias.repeat(2, 1, 1))
    exact, *_ = theirs.double()(x.double(), position_bias=bias.double().repeat(2, 1, 1))
    torch.testing.assert_close(ours(x, bias).double(), exact, atol=tolerance(expected, exact), rtol=0)


def test_kaldis_log_mel_is_kaldis() -> None:
    waveform = noise(1.0)[0] * 2**15
    with warnings.catch_warnings(action="ignore"):
        filters = audio_utils.mel_filter_bank(
            257, 128, 20, 8000, 16_000, mel_scale="kaldi", triangularize_in_mel_space=True
        )
    theirs = audio_utils.spectrogram(
        waveform.numpy(), audio_utils.window_function(400, "povey", periodic=False), 400, 160, 512, power=2.0,
        center=False, preemphasis=0.97, mel_filters=filters, log_mel="log", mel_floor=2**-23, remove_dc_offset=True,
    )  # fmt: skip
    torch.testing.assert_close(
        kaldi.LogMel()(waveform[None])[0], torch.from_numpy(theirs.T).float(), atol=2e-3, rtol=1e-4
    )


@pytest.fixture(scope="module")
def htsat() -> LoadedExternalTagger:
    torch.manual_seed(4)
    loaded = resolve("htsat", random=True)
    assert isinstance(loaded, LoadedExternalTagger)
    return loaded


def test_htsat_is_read_from_a_published_file(htsat: LoadedExternalTagger, tmp_path: Path) -> None:
    state, thirds = {}, {}
    for name, tensor in htsat.instance.model.state_dict().items():  # type: ignore[union-attr]
        for ours, theirs in (
            ("encoder.audio_encoder.", ""), ("batch_norm", "bn0"), ("layernorm_before", "norm1"),
            ("layernorm_after", "norm2"), ("attention.self.", "attn."), ("attention.output.dense", "attn.proj"),
            ("intermediate.dense", "mlp.fc1"), ("output.dense", "mlp.fc2"),
        ):  # fmt: skip
            name = name.replace(ours, theirs)
        state[f"sed_model.{name.removeprefix('encoder.')}"] = tensor
    for name in [name for name in state if ".query." in name]:
        parts = [state.pop(name.replace("query", part)) for part in ("query", "key", "value")]
        thirds[name.replace("query", "qkv")] = torch.cat(parts)
    assert "sed_model.layers.2.blocks.5.attn.qkv.bias" in thirds
    assert "sed_model.norm.weight" in state
    path = tmp_path / "htsat.ckpt"
    torch.save({"epoch": 3, "state_dict": state | thirds}, path)
    waveforms = noise(1.0, 32_000, pieces=1)
    again = external(f"htsat:{path}")
    scores = again.tagger().scores(waveforms)
    with torch.no_grad():  # its head is a convolution over tokens, whose mean is its embedding
        tokens = htsat.instance.model.tokens(htsat.instance.features(waveforms))  # type: ignore[union-attr, operator]
    _, embeddings = again.tagger(embeddings=True).forward_and_embed(htsat.instance.features(waveforms))
    assert torch.equal(embeddings, tokens.mean((2, 3)))
    assert torch.equal(scores, htsat.tagger().scores(waveforms))
    torch.save({"state_dict": state}, path)
    with pytest.raises(CheckpointError, match="is not an HTS-AT network: 'layers.0.blocks.0.attn.qkv.weight'"):
        resolve(f"htsat:{path}")


def test_htsat_repeats_a_short_piece_and_reads_slaneys_log_mel(htsat: LoadedExternalTagger) -> None:
    waveforms = noise(1.0, 32_000, pieces=1)
    features = htsat.instance.features(waveforms)
    assert features.shape == (1, 1, 10 * 101, 64)
    assert torch.equal(features[:, :, :101], features[:, :, 909:])
    filters = audio_utils.mel_filter_bank(513, 64, 50, 14_000, 32_000, norm="slaney", mel_scale="slaney")
    theirs = audio_utils.spectrogram(
        waveforms[0].numpy(), audio_utils.window_function(1024, "hann"), 1024, 320, power=2.0, mel_filters=filters,
        log_mel="dB",
    )  # fmt: skip
    torch.testing.assert_close(features[0, 0, :101], torch.from_numpy(theirs.T).float(), atol=1e-2, rtol=0)


def test_htsat_costs_what_the_paper_says_of_memory(htsat: LoadedExternalTagger) -> None:
    tagger = htsat.adapted(2.0).tagger()
    features = tagger.network_input(noise_chunks(tagger, 1)[0])
    with torch.no_grad():
        found = cost(lambda: tagger.forward(features))
    assert 2 * found.layer_bytes == pytest.approx(171e6, rel=0.1)
    assert tagger.tokens(tagger.chunk_samples) == 4096


def test_beats_without_weights_has_the_published_size() -> None:
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in Network(768, 12, 12, 512, 527).parameters())
    assert parameters == pytest.approx(90.7e6, rel=1e-3)
    assert BEATs.shortest_ms == 175
