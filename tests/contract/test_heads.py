"""Task heads on an encoder and on a decoder, and the objectives that train them: against torch's own losses in
values and gradients, exact under accumulation, and blind to padding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE, Batch, Objective
from groundup.errors import GroundupError
from groundup.models.bert import Bert, BertOptions
from groundup.models.heads import Headed, HeadOptions, pool
from groundup.models.llama import Llama, LlamaOptions
from groundup.objectives import OBJECTIVES
from groundup.objectives.classify import focal_cross_entropy, targets

LABELS = ["low", "middle", "high"]
HEAD_OF = {"contrast": "embed"}
KINDS = ["classify", "multilabel", "tag", "regress", "contrast", "choice"]
BODIES = ["bert", "llama"]
LENGTHS = [9, 4, 1, 12, 7, 7]
CANDIDATES = 3


def body_of(family: str, **changes: Any) -> nn.Module:
    if family == "bert":
        sizes = {"vocabulary": 31, "context": 24, "width": 16, "layers": 2, "heads": 2, "hidden": 24}
        body: Any = Bert(BertOptions(**(sizes | changes)))
    else:
        sizes = {
            "vocabulary": 31, "context": 24, "width": 16, "layers": 2, "heads": 2, "key_value_heads": 1,
            "head_size": 8, "hidden": 24,
        }  # fmt: skip
        body = Llama(LlamaOptions(**(sizes | changes)))
    body.initialise(torch.Generator().manual_seed(5))
    return body


def headed(family: str, kind: str, **changes: Any) -> Headed:
    labels = LABELS if kind in ("classify", "multilabel", "tag") else []
    model = Headed(body_of(family), HeadOptions(kind=kind, labels=labels, **changes))
    model.initialise_head(torch.Generator().manual_seed(6))
    with torch.no_grad():  # larger than they begin, so that a wrong label matters
        for parameter in model.head.parameters():
            parameter.mul_(20.0)
    return model


def rows(lengths: list[int], generator: torch.Generator, *, width: int | None = None) -> Batch:
    """Rows of random tokens, padded on the right to `width`."""
    width = width or max(lengths)
    document = torch.stack([(torch.arange(width) < length).long() - 1 for length in lengths])
    tokens = torch.randint(0, 31, document.shape, generator=generator)
    return {
        "tokens_BT": torch.where(document < 0, 0, tokens),
        "position_BT": torch.arange(width).expand(document.shape).contiguous(),
        "document_BT": document,
    }


def batch_of(kind: str) -> Batch:
    """A batch of ragged rows with what the objective of this kind learns."""
    generator = torch.Generator().manual_seed(8)
    count = len(LENGTHS)
    batch = rows(LENGTHS, generator)
    if kind == "classify":
        batch["label_B"] = torch.tensor([2, 0, 1, 1, 2, 0])
    elif kind == "multilabel":
        batch["label_BL"] = torch.randint(0, 2, (count, len(LABELS)), generator=generator).float()
    elif kind == "tag":
        label = torch.randint(0, len(LABELS), batch["tokens_BT"].shape, generator=generator)
        batch["label_BT"] = torch.where(batch["document_BT"] < 0, IGNORE, label)
    elif kind == "regress":
        batch["value_B"] = torch.randn(count, generator=generator) * 3
    elif kind == "contrast":
        other = rows(list(reversed(LENGTHS)), generator)
        batch |= {f"other_{name}": tensor for name, tensor in other.items()}
    elif kind == "choice":
        lengths = torch.randint(1, 10, (count * CANDIDATES,), generator=generator).tolist()
        flat = rows(lengths, generator)
        batch = {f"{name[:-2]}BCT": part.unflatten(0, (count, CANDIDATES)) for name, part in flat.items()}
        batch["label_B"] = torch.tensor([0, 1, 2, 2, 1, 0])
    return batch


def objective_of(kind: str, model: Headed, **changes: Any) -> Objective:
    options, make = OBJECTIVES[kind]
    return make(options.model_validate({"kind": kind} | changes), model)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def mean_and_gradients(objective: Objective, model: nn.Module, micros: list[Batch]) -> tuple[float, dict[str, Tensor]]:
    """As the loop does it: sums, divided by the weight of the whole step."""
    weight = float(sum(objective.weight("model", micro) for micro in micros))
    total = 0.0
    for micro in micros:
        part = objective.loss("model", micro).total / weight
        part.backward()
        total += part.item()
    return total, gradients(model)


def assert_equal_training(ours: tuple[float, dict[str, Tensor]], theirs: tuple[float, dict[str, Tensor]]) -> None:
    assert ours[0] == pytest.approx(theirs[0], rel=1e-6, abs=1e-6)
    assert ours[1].keys() == theirs[1].keys() and ours[1]
    largest = max(1.0, *(float(gradient.abs().max()) for gradient in theirs[1].values()))
    for name, gradient in ours[1].items():
        difference = float((gradient - theirs[1][name]).abs().max())
        assert difference <= 2e-6 * largest, f"{name}: {difference} where the largest gradient is {largest}"


def padded_more(batch: Batch, *, left: int, right: int) -> Batch:
    """The same rows with more padding around them; the padding holds other tokens."""
    changed = {}
    for name, tensor in batch.items():
        fill = {"document": -1, "label": IGNORE, "tokens": 7}.get(name.removeprefix("other_").split("_")[0], 0)
        changed[name] = F.pad(tensor, (left, right), value=fill) if name.endswith("T") else tensor
    return changed


# ---------------------------------------------------------------- against torch


WEIGHTS = {"low": 3.0, "high": 0.25}


def torchs_own(kind: str, changes: Mapping[str, Any], answer: Tensor, batch: Batch, model: Headed) -> Tensor:
    """The mean loss as torch's own functions say it."""
    if kind in ("classify", "tag"):
        target = batch["label_B" if kind == "classify" else "label_BT"].flatten()
        weight = torch.tensor([3.0, 1.0, 0.25]) if "class_weights" in changes else None
        smoothing = changes.get("label_smoothing", 0.0)
        return F.cross_entropy(answer.flatten(0, -2), target, weight, label_smoothing=smoothing)
    if kind == "multilabel":
        weight = torch.tensor([3.0, 1.0, 0.25]) if changes else None
        return F.binary_cross_entropy_with_logits(answer, batch["label_BL"], pos_weight=weight)
    if kind == "regress":
        delta = changes.get("huber_delta")
        if delta is None:
            return F.mse_loss(answer, batch["value_B"])
        return F.huber_loss(answer, batch["value_B"], delta=delta)
    if kind == "contrast":
        names = ("tokens_BT", "position_BT", "document_BT")
        other = model({name: batch[f"other_{name}"] for name in names})
        similarity = F.cosine_similarity(answer[:, None], other[None], dim=-1) / changes["temperature"]
        target = torch.arange(len(answer))
        return (F.cross_entropy(similarity, target) + F.cross_entropy(similarity.T, target)) / 2
    return F.cross_entropy(answer, batch["label_B"])


CASES: list[tuple[str, dict[str, Any]]] = [
    ("classify", {}),
    ("classify", {"label_smoothing": 0.2}),
    ("classify", {"class_weights": WEIGHTS}),
    ("classify", {"class_weights": WEIGHTS, "label_smoothing": 0.1}),
    ("multilabel", {}),
    ("multilabel", {"positive_weights": WEIGHTS}),
    ("tag", {}),
    ("tag", {"class_weights": WEIGHTS, "label_smoothing": 0.1}),
    ("regress", {}),
    ("regress", {"huber_delta": 0.8}),
    ("contrast", {"temperature": 0.1}),
    ("choice", {}),
]


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize(("kind", "changes"), CASES)
def test_loss_and_gradients_equal_torchs_own(family: str, kind: str, changes: dict[str, Any]) -> None:
    model, batch = headed(family, HEAD_OF.get(kind, kind)), batch_of(kind)
    objective = objective_of(kind, model, **changes)
    assert objective.turns == ("model",)
    ours = mean_and_gradients(objective, model, [batch])
    loss = torchs_own(kind, changes, model(batch), batch, model)
    loss.backward()
    assert_equal_training(ours, (loss.item(), gradients(model)))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(ours[1]) == trained, "a parameter that trains gets no gradient"


def test_focal_loss_as_the_paper_writes_it() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(7, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    target = torch.tensor([0, 1, 2, 0, 1, 2, 2])
    alpha = torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)
    p = logits.softmax(-1)[torch.arange(7), target]
    expected = (-alpha[target] * (1 - p) ** 2 * p.log()).sum()
    (expected_gradient,) = torch.autograd.grad(expected, logits)
    ours = focal_cross_entropy(logits, targets(target, logits, 0.0), alpha, 2.0)
    torch.testing.assert_close(ours, expected)
    torch.testing.assert_close(torch.autograd.grad(ours, logits)[0], expected_gradient)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_is_finite_where_the_model_is_certain(gamma: float) -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0], [0.0, 200.0, 0.0]], requires_grad=True)
    loss = focal_cross_entropy(logits, targets(torch.tensor([0, 2]), logits, 0.1), torch.ones(3), gamma)
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(logits.grad).all()


# ---------------------------------------------------------------- accumulation, padding


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize(("kind", "changes"), [case for case in CASES if case[0] != "contrast"])
def test_ragged_accumulation_equals_the_whole_batch(family: str, kind: str, changes: dict[str, Any]) -> None:
    model, batch = headed(family, kind), batch_of(kind)
    objective = objective_of(kind, model, **changes)
    micros = [
        {name: tensor[part] for name, tensor in batch.items()} for part in (slice(0, 1), slice(1, 5), slice(5, 6))
    ]
    whole = mean_and_gradients(objective, model, [batch])
    assert_equal_training(mean_and_gradients(objective, model, micros), whole)
    sums = [objective.loss("model", micro).metrics for micro in micros]
    for name, value in objective.loss("model", batch).metrics.items():
        assert float(sum(metrics[name] for metrics in sums)) == pytest.approx(float(value), rel=1e-6), name


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(family: str, kind: str) -> None:
    model, batch = headed(family, HEAD_OF.get(kind, kind)), batch_of(kind)
    objective = objective_of(kind, model)
    expected = mean_and_gradients(objective, model, [batch])
    assert_equal_training(mean_and_gradients(objective, model, [padded_more(batch, left=0, right=3)]), expected)
    shifted = padded_more(batch, left=2, right=1)
    assert_equal_training(mean_and_gradients(objective, model, [shifted]), expected)


@pytest.mark.parametrize("pooling", ["first", "last", "mean"])
def test_pooling_by_hand(pooling: Any) -> None:
    hidden = torch.arange(24.0).view(2, 4, 3)
    document = torch.tensor([[-1, 0, 0, -1], [0, 0, 0, 0]])
    expected = {
        "first": [[3.0, 4.0, 5.0], [12.0, 13.0, 14.0]],
        "last": [[6.0, 7.0, 8.0], [21.0, 22.0, 23.0]],
        "mean": [[4.5, 5.5, 6.5], [16.5, 17.5, 18.5]],
    }[pooling]
    assert torch.equal(pool(hidden, document, pooling), torch.tensor(expected))
    assert pool(hidden.bfloat16(), document, pooling).dtype == torch.float32
    assert torch.isfinite(pool(hidden, torch.full((2, 4), -1), pooling)).all()


@pytest.mark.parametrize("kind", ["classify", "tag", "choice"])
def test_rows_to_ignore_count_nothing(kind: str) -> None:
    model, batch = headed("bert", kind), batch_of(kind)
    objective = objective_of(kind, model)
    ignored = dict(batch)
    target = "label_BT" if kind == "tag" else "label_B"
    ignored[target] = batch[target].clone()
    ignored[target][3:] = IGNORE
    first = {name: tensor[:3] for name, tensor in batch.items()}
    assert float(objective.weight("model", ignored)) == float(objective.weight("model", first)) > 0
    ours, expected = objective.loss("model", ignored), objective.loss("model", first)
    torch.testing.assert_close(ours.total, expected.total)
    assert all(int(ours.metrics[name]) == int(value) for name, value in expected.metrics.items())
    ignored[target][:] = IGNORE
    assert float(objective.weight("model", ignored)) == 0.0
    assert objective.loss("model", ignored).total.item() == 0.0


def test_a_candidate_of_padding_is_no_candidate() -> None:
    model, batch = headed("bert", "choice"), batch_of("choice")
    logits = model(batch)
    fewer = dict(batch, document_BCT=batch["document_BCT"].clone())
    fewer["document_BCT"][0, 2] = -1
    answer = model(fewer)
    assert answer[0, 2].item() == float("-inf")
    torch.testing.assert_close(answer[0, :2], logits[0, :2])
    torch.testing.assert_close(answer[1:], logits[1:])
    fewer["label_B"] = batch["label_B"].clone()
    fewer["label_B"][1] = IGNORE
    fewer["document_BCT"][1] = -1  # a row without any candidate
    loss = objective_of("choice", model).loss("model", fewer)
    loss.total.backward()
    assert torch.isfinite(loss.total)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(model).values())


@pytest.mark.parametrize("kind", ["classify", "contrast", "choice"])
def test_segments_reach_an_encoder_and_not_a_decoder(kind: str) -> None:
    batch = batch_of(kind)
    names = [name for name in batch if "tokens" in name]
    assert len(names) == (2 if kind == "contrast" else 1)
    for family in BODIES:
        model = headed(family, HEAD_OF.get(kind, kind))
        objective = objective_of(kind, model)
        plain = objective.loss("model", batch).total
        for name in names:
            zero = torch.zeros_like(batch[name])
            parts = [{name.replace("tokens", "segment"): segment} for segment in (zero, zero + 1)]
            first, second = (objective.loss("model", batch | part).total for part in parts)
            assert torch.equal(first, plain), f"{family}: segment 0 is the default"
            assert torch.equal(second, plain) == (family == "llama")


def test_contrast_has_only_the_negatives_of_its_micro_batch() -> None:
    model, batch = headed("bert", "embed"), batch_of("contrast")
    objective = objective_of("contrast", model)
    alone = [{name: tensor[row : row + 1] for name, tensor in batch.items()} for row in range(len(LENGTHS))]
    assert float(objective.weight("model", batch)) == len(LENGTHS) == sum(objective.weight("model", b) for b in alone)
    assert sum(objective.loss("model", one).total.item() for one in alone) == 0.0
    assert objective.loss("model", batch).total.item() > 1.0


# ---------------------------------------------------------------- heads


SHAPES = {
    "classify": (6, 3),
    "multilabel": (6, 3),
    "tag": (6, 12, 3),
    "regress": (6,),
    "embed": (6, 16),
    "choice": (6, 3),
}


@pytest.mark.parametrize("family", BODIES)
@pytest.mark.parametrize("kind", list(SHAPES))
def test_shapes_names_and_what_passes_through(family: str, kind: str) -> None:
    model = headed(family, kind)
    assert model(batch_of("contrast" if kind == "embed" else kind)).shape == SHAPES[kind]
    names = [name for name, _ in model.named_parameters() if name.startswith("head.")]
    biased = family == "bert" or kind == "tag"  # as in transformers
    whole = ["head.output.weight", "head.output.bias"] if biased else ["head.output.weight"]
    assert names == ([] if kind == "embed" else whole)
    body = model.body
    assert (model.context, model.vocabulary, model.causal) == (24, 31, family == "llama")
    assert model.layers is body.layers and model.embedding is body.embedding
    assert model.kind == kind and model.labels == model.options.labels
    saved = model.options.model_dump(mode="json")
    assert HeadOptions.model_validate(saved) == model.options


def test_pooling_is_derived_from_the_body() -> None:
    assert headed("llama", "classify").options.pooling == "last"
    assert headed("bert", "classify").options.pooling == "mean"
    pooled = headed("bert", "classify", pooler=True)
    assert pooled.options.pooling == "first"
    assert [name for name, _ in pooled.head.named_parameters()][:2] == ["pooler.weight", "pooler.bias"]
    assert headed("bert", "tag").options.pooling is None


@pytest.mark.parametrize("family", BODIES)
def test_the_same_seed_gives_the_same_head(family: str) -> None:
    def draw(seed: int) -> dict[str, Tensor]:
        torch.rand(seed)  # the global generator stands elsewhere, and does not matter
        model = Headed(body_of(family), HeadOptions(kind="classify", labels=LABELS, pooler=True, pooling="mean"))
        model.initialise(torch.Generator().manual_seed(seed))
        return {name: p.detach().clone() for name, p in model.named_parameters()}

    one, again, other = draw(1), draw(1), draw(2)
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["head.output.weight"], other["head.output.weight"])
    assert family == "llama" or bool((one["head.output.bias"] == 0).all())
    assert abs(one["head.pooler.weight"].std().item() - 0.02) < 0.004


def test_the_head_alone_is_drawn_and_the_body_stays() -> None:
    model = headed("bert", "classify")
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.initialise_head(torch.Generator().manual_seed(99))
    for name, parameter in model.named_parameters():
        assert torch.equal(before[name], parameter) == (name != "head.output.weight"), name


def test_an_output_matrix_that_takes_no_part_is_frozen() -> None:
    untied = Headed(body_of("llama", tied=False), HeadOptions(kind="classify", labels=LABELS))
    assert [name for name, p in untied.named_parameters() if not p.requires_grad] == ["body.head.weight"]
    tied = headed("llama", "classify")
    assert all(p.requires_grad for p in tied.parameters())


def test_embeddings_have_length_one_unless_told_otherwise() -> None:
    batch = batch_of("contrast")
    torch.testing.assert_close(headed("bert", "embed")(batch).norm(dim=1), torch.ones(6))
    free = headed("bert", "embed", normalise=False)(batch)
    assert (free.norm(dim=1) - 1.0).abs().amin().item() > 0.1


def test_a_head_answers_in_float32_under_autocast() -> None:
    model, batch = headed("bert", "regress"), batch_of("regress")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model(batch)
    assert answer.dtype == torch.float32
    torch.testing.assert_close(answer, model(batch), rtol=0.1, atol=0.1)
    objective = objective_of("contrast", headed("bert", "embed"))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert objective.loss("model", batch_of("contrast")).total.dtype == torch.float32


# ---------------------------------------------------------------- bad input


WRONG = [
    {"kind": "classify", "labels": ["a"]},
    {"kind": "classify", "labels": ["a", "b", "a"]},
    {"kind": "multilabel"},
    {"kind": "regress", "labels": ["a", "b"]},
    {"kind": "tag", "labels": ["a", "b"], "pooling": "mean"},
    {"kind": "tag", "labels": ["a", "b"], "pooler": True},
    {"kind": "choice", "normalise": True},
    {"kind": "embed", "dropout": 1.0},
    {"kind": "embed", "pooling": "max"},
    {"kind": "rank"},
]


@pytest.mark.parametrize("wrong", WRONG)
def test_heads_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        HeadOptions.model_validate(wrong)


def refused(code: str, make: Any) -> GroundupError:
    with pytest.raises(GroundupError) as caught:
        make()
    error = caught.value
    assert error.code == code and error.exit_code == 2
    assert all((error.what, error.where, error.why, error.fix))
    return error


def test_the_first_token_of_a_decoder_is_refused() -> None:
    refused("E-MODEL-010", lambda: headed("llama", "regress", pooling="first"))


@pytest.mark.parametrize("kind", KINDS)
def test_an_objective_needs_its_own_head(kind: str) -> None:
    wrong = headed("bert", "regress" if kind != "regress" else "classify")
    error = refused("E-RECIPE-050", lambda: objective_of(kind, wrong))
    assert HEAD_OF.get(kind, kind) in error.fix


@pytest.mark.parametrize(("kind", "field"), [("classify", "class_weights"), ("multilabel", "positive_weights")])
def test_weights_of_unknown_labels_are_listed(kind: str, field: str) -> None:
    weights = {"hihg": 2.0, "low": 1.0, "none": 3.0}
    error = refused("E-RECIPE-051", lambda: objective_of(kind, headed("bert", kind), **{field: weights}))
    assert "hihg, none" in error.what and field in error.where and "hihg → high" in error.fix


def test_balanced_weights_are_scikit_learns_and_need_every_label() -> None:
    options, make = OBJECTIVES["classify"]
    balanced = options.model_validate({"class_weights": "balanced"})
    model, batch = headed("bert", "classify"), batch_of("classify")
    objective = make(balanced, model, {"low": 60, "middle": 30, "high": 10})
    torch.testing.assert_close(objective.weight_L, torch.tensor([100 / 180, 100 / 90, 100 / 30]))
    assert float(objective.weight("model", batch)) == pytest.approx(2 * (100 / 180 + 100 / 90 + 100 / 30))
    error = refused("E-RECIPE-052", lambda: make(balanced, model, {"low": 60, "middle": 0}))
    assert "middle, high" in error.what and "2 of 3" in error.what


def test_metrics_count_what_they_say() -> None:
    model, batch = headed("bert", "classify"), batch_of("classify")
    metrics = objective_of("classify", model).loss("model", batch).metrics
    assert int(metrics["correct"]) == int((model(batch).argmax(1) == batch["label_B"]).sum())
    assert int(metrics["targets"]) == 6
    model, batch = headed("bert", "multilabel"), batch_of("multilabel")
    metrics = objective_of("multilabel", model).loss("model", batch).metrics
    right = (model(batch) > 0) == batch["label_BL"].bool()
    assert [int(metrics[n]) for n in ("correct", "decisions", "exact", "rows")] == [
        int(right.sum()), 18, int(right.all(1).sum()), 6,
    ]  # fmt: skip
    assert not any(value.requires_grad for value in metrics.values())
