"""Our encoder-decoder Transformer against torch.nn.Transformer at toy size, forward and backward; and its objective."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch
from groundup.inference.cache import KeyValueCache
from groundup.models.transformer import Transformer, TransformerOptions, sinusoids
from groundup.objectives.translate import Translate, TranslateOptions

SIZES: dict[str, Any] = {
    "vocabulary": 53, "context": 30, "width": 24, "encoder_layers": 2, "decoder_layers": 3, "heads": 4, "hidden": 40,
    "dropout": 0.0,
}  # fmt: skip

PARTS = {
    "attention.o_proj": "self_attn.out_proj",
    "source_attention.o_proj": "multihead_attn.out_proj",
    "feed_forward.up_proj": "linear1",
    "feed_forward.down_proj": "linear2",
}
NORMS = {
    "encoder": {"attention_norm": "norm1", "feed_forward_norm": "norm2"},
    "decoder": {"attention_norm": "norm1", "source_norm": "norm2", "feed_forward_norm": "norm3"},
}
THEIR_ATTENTION = {"attention": "self_attn", "source_attention": "multihead_attn"}


def network(**given: Any) -> Transformer:
    model = Transformer(TransformerOptions(**SIZES | given))
    model.initialise(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():  # far from a symmetric start, so that no mistake hides
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def ids(rows: int, length: int, seed: int = 1) -> Tensor:
    return torch.randint(0, 53, (rows, length), generator=torch.Generator().manual_seed(seed))


def documents(lengths: list[int]) -> Tensor:
    position = torch.arange(max(lengths))
    return torch.where(position[None] < torch.tensor(lengths)[:, None], 0, -1)


class Reference(nn.Module):
    """torch's layers, between the embedding and the output matrix that they lack."""

    def __init__(self, norm: str) -> None:
        super().__init__()
        pre, width = norm == "pre", SIZES["width"]
        layer: dict[str, Any] = {
            "d_model": width, "nhead": 4, "dim_feedforward": 40, "dropout": 0.0, "batch_first": True,
            "norm_first": pre,
        }  # fmt: skip
        # torch adds a norm after each stack by default; the paper's post-norm blocks end with one already
        encoder = nn.TransformerEncoder(
            nn.TransformerEncoderLayer(**layer), 2, nn.LayerNorm(width) if pre else None, enable_nested_tensor=False
        )
        decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(**layer), 3, nn.LayerNorm(width) if pre else None)
        self.transformer = nn.Transformer(
            d_model=width, nhead=4, custom_encoder=encoder, custom_decoder=decoder, batch_first=True
        )
        self.embedding = nn.Embedding(53, width)

    def forward(self, source: Tensor, tokens: Tensor, source_padding: Tensor) -> Tensor:
        scale, width = math.sqrt(SIZES["width"]), SIZES["width"]
        states = [self.embedding(x) * scale + written_out_sinusoids(x.shape[1], width) for x in (source, tokens)]
        later = torch.triu(torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool), diagonal=1)
        out = self.transformer(
            *states, tgt_mask=later, src_key_padding_mask=source_padding, memory_key_padding_mask=source_padding
        )
        return out @ self.embedding.weight.T


def written_out_sinusoids(length: int, width: int) -> Tensor:
    table = torch.zeros(length, width)
    for position in range(length):
        for column in range(width):
            angle = position / 10000 ** ((column - column % 2) / width)
            table[position, column] = math.sin(angle) if column % 2 == 0 else math.cos(angle)
    return table


def as_theirs(ours: dict[str, Tensor]) -> dict[str, Tensor]:
    """Our tensors under torch's names; torch writes queries, keys and values into one."""
    theirs = {"embedding.weight": ours["embedding.weight"]}
    for stack, depth in (("encoder", 2), ("decoder", 3)):
        for kind in ("weight", "bias"):
            if f"{stack}.norm.{kind}" in ours:
                theirs[f"transformer.{stack}.norm.{kind}"] = ours[f"{stack}.norm.{kind}"]
            for layer in range(depth):
                here, there = f"{stack}.layers.{layer}.", f"transformer.{stack}.layers.{layer}."
                for our_part, their_part in (PARTS | NORMS[stack]).items():
                    if f"{here}{our_part}.{kind}" in ours:
                        theirs[f"{there}{their_part}.{kind}"] = ours[f"{here}{our_part}.{kind}"]
                for our_part, their_part in THEIR_ATTENTION.items():
                    if f"{here}{our_part}.q_proj.{kind}" in ours:
                        parts = [ours[f"{here}{our_part}.{letter}_proj.{kind}"] for letter in "qkv"]
                        theirs[f"{there}{their_part}.in_proj_{kind}"] = torch.cat(parts)
    return theirs


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_logits_and_gradients_equal_torch(norm: str) -> None:
    ours, theirs = network(norm=norm), Reference(norm)
    copied = as_theirs(dict(ours.named_parameters()))
    theirs.load_state_dict({name: tensor.detach() for name, tensor in copied.items()})  # strict: all, and no others
    source, tokens, document = ids(3, 11), ids(3, 9, seed=2), documents([11, 4, 7])
    our_logits, their_logits = ours(source, document, tokens), theirs(source, tokens, document < 0)
    torch.testing.assert_close(our_logits, their_logits, rtol=1e-5, atol=1e-5)
    target = ids(3, 9, seed=5)
    for logits in (our_logits, their_logits):
        F.cross_entropy(logits.flatten(0, 1), target.flatten()).backward()
    gradients = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, gradient in as_theirs(
        {name: p.grad for name, p in ours.named_parameters() if p.grad is not None}
    ).items():
        assert gradient.any() or name.endswith("in_proj_bias"), name  # a key's bias moves no softmax
        torch.testing.assert_close(gradient, gradients.pop(name), rtol=1e-5, atol=1e-5)
    assert not gradients


def test_sinusoids_are_those_of_the_paper_and_any_stretch_of_them() -> None:
    torch.testing.assert_close(sinusoids(0, 9, 7, torch.device("cpu")), written_out_sinusoids(9, 7))
    torch.testing.assert_close(sinusoids(4, 5, 6, torch.device("cpu")), written_out_sinusoids(9, 6)[4:])


@torch.no_grad()
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_last_target_token_moves_no_earlier_output(norm: str) -> None:
    ours, source, tokens = network(norm=norm), ids(2, 7), ids(2, 6, seed=2)
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 53
    before, after = ours(source, None, tokens), ours(source, None, changed)
    assert torch.equal(before[:, :-1], after[:, :-1])
    assert (before[:, -1] - after[:, -1]).abs().max() > 0.1


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_permuting_the_source_moves_the_output(positions: str) -> None:
    ours, source, tokens = network(positions=positions), ids(1, 7), ids(1, 6, seed=2)
    moved = (ours(source, None, tokens) - ours(source.flip(1), None, tokens)).abs().max()
    assert moved > 0.1
    tables = [table for table in (ours.source_position_embedding, ours.position_embedding) if table is not None]
    assert len(tables) == (2 if positions == "learned" else 0)
    for table in tables:
        table.weight.zero_()
    if tables:  # without positions attention sees a source as a bag of words
        torch.testing.assert_close(ours(source, None, tokens), ours(source.flip(1), None, tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_cached_decoding_equals_the_whole_forward(norm: str, positions: str) -> None:
    ours = network(norm=norm, positions=positions)
    source, tokens, document = ids(2, 8), ids(2, 12, seed=2), documents([8, 5])
    memory = ours.memory(ours.encode(source, document), document)
    cache = KeyValueCache(3, 2, 4, 6, 12)
    parts = [ours.head(ours.decode(memory, part, cache=cache)) for part in tokens.split((1, 4, 1, 1, 3, 2), dim=1)]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(parts, dim=1), ours(source, document, tokens), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_padding_changes_nothing_and_stays_finite() -> None:
    ours, source, tokens = network(), ids(1, 5), ids(1, 4, seed=2)
    alone = ours(source, None, tokens)
    padded_source, padded_tokens = F.pad(source, (0, 3), value=9), F.pad(tokens, (0, 2), value=9)
    together = ours(padded_source, documents([5, 8])[:1], padded_tokens, documents([4, 6])[:1])
    torch.testing.assert_close(together[:, :4], alone, rtol=1e-5, atol=1e-5)
    assert bool(together.isfinite().all())


@torch.no_grad()
def test_a_memory_keeps_rows_in_any_order() -> None:
    ours, source, tokens, document = network(), ids(3, 6), ids(3, 5, seed=2), documents([6, 2, 4])
    rows = torch.tensor([2, 0, 0])
    memory = ours.memory(ours.encode(source, document), document).keep(rows)
    expected = ours(source[rows], document[rows], tokens)
    torch.testing.assert_close(ours.head(ours.decode(memory, tokens)), expected, rtol=1e-5, atol=1e-5)


def test_canonical_parameter_names() -> None:
    attention = [f"{letter}_proj.{kind}" for letter in "qkvo" for kind in ("weight", "bias")]
    norms = ["weight", "bias"]
    forward = [f"feed_forward.{part}_proj.{kind}" for part in ("up", "down") for kind in ("weight", "bias")]

    def block(name: str, parts: list[str]) -> list[str]:
        found = []
        for part in parts:
            found += [f"{name}.{part}_norm.{kind}" for kind in norms]
            module = "source_attention" if part == "source" else part
            found += forward if part == "feed_forward" else [f"{module}.{one}" for one in attention]
        return [one if one.startswith(name) else f"{name}.{one}" for one in found]

    expected = [
        "source_embedding.weight", "source_position_embedding.weight", "embedding.weight", "position_embedding.weight",
    ]  # fmt: skip
    for layer in range(2):
        expected += block(f"encoder.layers.{layer}", ["attention", "feed_forward"])
    expected += ["encoder.norm.weight", "encoder.norm.bias"]
    for layer in range(3):
        expected += block(f"decoder.layers.{layer}", ["attention", "source", "feed_forward"])
    expected += ["decoder.norm.weight", "decoder.norm.bias", "head.weight"]
    assert [name for name, _ in network(tied=False, positions="learned").named_parameters()] == expected
    left_out = {"source_embedding.weight", "source_position_embedding.weight", "position_embedding.weight",
                "encoder.norm.weight", "encoder.norm.bias", "decoder.norm.weight", "decoder.norm.bias",
                "head.weight"}  # fmt: skip
    assert [name for name, _ in network(norm="post").named_parameters()] == [n for n in expected if n not in left_out]


def test_initialise_is_deterministic_and_draws_what_its_table_says() -> None:
    sizes = SIZES | {"vocabulary": 300, "width": 96, "hidden": 256, "context": 64, "tied": False}
    options = TransformerOptions(**sizes, positions="learned")
    first, second, other = Transformer(options), Transformer(options), Transformer(options)
    for model, seed in ((first, 7), (second, 7), (other, 8)):
        model.initialise(torch.Generator().manual_seed(seed))
    for (name, a), b, c in zip(first.named_parameters(), second.parameters(), other.parameters()):
        assert torch.equal(a, b), name
        if name.endswith("bias"):
            assert not a.any(), name
        elif name.endswith("norm.weight"):
            assert bool((a == 1).all()), name
        else:
            assert not torch.equal(a, c), name
            table = "embedding" in name or name.startswith("head")
            deviation = 96**-0.5 if table else math.sqrt(2 / sum(a.shape))
            assert abs(a.std().item() / deviation - 1) < 0.05, name
            assert abs(a.mean().item()) < 0.1 * deviation, name
            if not table:
                assert a.abs().max().item() <= math.sqrt(6 / sum(a.shape)), name


def test_dropout_acts_in_training_alone() -> None:
    ours, source, tokens = network(dropout=0.5), ids(2, 6), ids(2, 5, seed=2)
    assert not torch.equal(ours(source, None, tokens), ours(source, None, tokens))
    ours.eval()
    plain = network()
    plain.load_state_dict(ours.state_dict())
    assert torch.equal(ours(source, None, tokens), plain(source, None, tokens))


def test_K11_impossible_options_are_refused() -> None:
    good = network().options.model_dump()
    assert TransformerOptions.model_validate(good) == network().options
    for wrong in ({"heads": 5}, {"decoder_layers": 0}, {"positions": "rotary"}, {"norm": "both"}, {"layers": 2}):
        with pytest.raises(ValidationError):
            TransformerOptions.model_validate(good | wrong)


def pairs(target: Tensor) -> Batch:
    tokens, source = ids(3, 6, seed=2), ids(3, 7)
    return {
        "source_BS": source, "source_document_BS": documents([7, 3, 5]), "tokens_BT": tokens, "target_BT": target,
        "document_BT": documents([6, 4, 2]),
    }  # fmt: skip


def some_targets() -> Tensor:
    return torch.where(documents([6, 4, 2]) < 0, IGNORE, ids(3, 6, seed=6))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_objective_is_the_summed_smoothed_cross_entropy(smoothing: float) -> None:
    ours, batch = network(), pairs(some_targets())
    objective = Translate(TranslateOptions(label_smoothing=smoothing), ours)
    loss = objective.loss("model", batch)
    given = (batch["source_BS"], batch["source_document_BS"], batch["tokens_BT"], batch["document_BT"])
    logits = ours(*given).detach()
    expected, correct = 0.0, 0
    for row in range(3):
        for position in range([6, 4, 2][row]):
            target = int(batch["target_BT"][row, position])
            log_p = logits[row, position].log_softmax(dim=-1)
            expected -= float((1 - smoothing) * log_p[target] + smoothing * log_p.mean())
            correct += int(logits[row, position].argmax()) == target
    assert math.isclose(float(loss.total.detach()), expected, rel_tol=1e-5)
    assert int(loss.metrics["correct"]) == correct
    assert int(loss.metrics["targets"]) == int(objective.weight("model", batch)) == 12


def test_the_objective_sums_so_that_halves_make_the_whole() -> None:
    ours, batch = network(), pairs(some_targets())
    objective = Translate(TranslateOptions(), ours)
    whole = objective.loss("model", batch)
    halves = [objective.loss("model", {name: x[part] for name, x in batch.items()}) for part in (slice(1), slice(1, 3))]
    torch.testing.assert_close(whole.total, halves[0].total + halves[1].total, rtol=1e-5, atol=1e-4)
    empty = objective.loss("model", pairs(torch.full((3, 6), IGNORE)))
    empty.total.backward()
    assert float(empty.total.detach()) == 0.0 and int(empty.metrics["targets"]) == 0
