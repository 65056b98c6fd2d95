"""The recurrent layers against their equations written out step by step, forward and backward; lengths, padding and
the dropout whose mask is constant over time; and the recurrent body of text under a head."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from groundup.errors import GroundupError
from groundup.models.heads import Headed, HeadOptions
from groundup.models.recurrent import LockedDropout, Recurrent, RecurrentLayer, RecurrentOptions
from groundup.models.recurrent_text import RecurrentText, RecurrentTextOptions

CELLS = ("rnn", "lstm", "gru")
Parameters = dict[str, Tensor]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(network: Any) -> Any:
    """Initialised, and every parameter moved, so that a bias in the wrong place shows."""
    network.initialise(generator(1))
    source = generator(2)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=source))
    return network


def step(cell: str, p: Parameters, end: str, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One position, as the head of recurrent.py writes it."""
    from_x = x @ p[f"weight_ih_{end}"].T + p[f"bias_ih_{end}"]
    from_h = h @ p[f"weight_hh_{end}"].T + p[f"bias_hh_{end}"]
    if cell == "rnn":
        return torch.tanh(from_x + from_h), c
    if cell == "lstm":
        i, f, g, o = (from_x + from_h).chunk(4, dim=-1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c
    (r, z, n), (r_h, z_h, n_h) = from_x.chunk(3, dim=-1), from_h.chunk(3, dim=-1)
    z = torch.sigmoid(z + z_h)
    n = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
    return (1 - z) * n + z * h, c


def by_hand(cell: str, p: Parameters, x_TD: Tensor, end: str) -> Tensor:
    """The states (T, D) of one sequence in one direction."""
    h = c = x_TD.new_zeros(p[f"weight_hh_{end}"].shape[1])
    backwards = end.endswith("reverse")
    states = []
    for x in reversed(x_TD) if backwards else x_TD:
        h, c = step(cell, p, end, x, h, c)
        states.append(h)
    return torch.stack(states[::-1] if backwards else states)


def network_by_hand(options: RecurrentOptions, p: Parameters, x_BTD: Tensor, lengths: list[int]) -> Tensor:
    ends = ["l0", "l0_reverse"] if options.bidirectional else ["l0"]
    last = []
    for x, length in zip(x_BTD, lengths):
        x = x[:length]
        for layer in range(options.layers):
            prefix = f"layers.{layer}.cell."
            inner = {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}
            parts = [by_hand(options.cell, inner, x, end) for end in ends]
            x = torch.cat(parts, dim=-1)
        last.append(torch.cat([part[0] if i else part[-1] for i, part in enumerate(parts)]))
    return torch.stack(last) @ p["head.weight"].T + p["head.bias"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("lengths", [None, [4, 6, 1]])
def test_recurrent_equals_its_equations(cell: Any, bidirectional: bool, lengths: list[int] | None) -> None:
    options = RecurrentOptions(cell=cell, layers=2, width=5, bidirectional=bidirectional)
    ours = shaken(Recurrent(options, (6, 3), 4))
    theirs = {name: p.detach().clone().requires_grad_() for name, p in ours.named_parameters()}
    x = torch.randn(3, 6, 3, generator=generator())
    answer = ours(x, None if lengths is None else torch.tensor(lengths))
    expected = network_by_hand(options, theirs, x, lengths or [6, 6, 6])
    torch.testing.assert_close(answer, expected, rtol=1e-5, atol=1e-5)
    seed = torch.randn(answer.shape, generator=generator(3))
    for output in (answer, expected):
        (output * seed).sum().backward()
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(
            parameter.grad, theirs[name].grad, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_an_image_is_read_row_by_row() -> None:
    options = RecurrentOptions(cell="gru", width=5)
    ours, sequences = shaken(Recurrent(options, (2, 6, 3), 4)), Recurrent(options, (6, 6), 4)
    sequences.load_state_dict(ours.state_dict())
    image = torch.randn(3, 2, 6, 3, generator=generator())
    rows = torch.stack([torch.cat([image[:, 0, t], image[:, 1, t]], dim=1) for t in range(6)], dim=1)
    torch.testing.assert_close(ours(image), sequences(rows))


@pytest.mark.parametrize("lengths", [[0, 3], [3, 7]])
def test_lengths_out_of_range(lengths: list[int]) -> None:
    ours = shaken(Recurrent(RecurrentOptions(width=2), (6, 3), 4))
    with pytest.raises(GroundupError, match="1 of 2 sequences") as caught:
        ours(torch.zeros(2, 6, 3), torch.tensor(lengths))
    assert caught.value.code == "E-MODEL-102" and "1 to 6" in caught.value.fix


def test_initial_values_are_as_the_table_says() -> None:
    for cell, gates in (("rnn", 1), ("lstm", 4), ("gru", 3)):
        layer = RecurrentLayer(cell, 20, 30, bidirectional=True, dropout=0.0)  # type: ignore[arg-type]
        layer.initialise(generator())
        for name, parameter in layer.cell.named_parameters():
            for gate, part in enumerate(parameter.detach().chunk(gates)):
                if name.startswith("weight_hh"):
                    torch.testing.assert_close(part @ part.T, torch.eye(30), rtol=0.0, atol=1e-5)
                elif name.startswith("weight_ih"):
                    assert abs(float(part.std()) - (2 / 50) ** 0.5) < 0.02
                else:
                    forget = cell == "lstm" and gate == 1 and name.startswith("bias_ih")
                    assert bool((part == float(forget)).all()), name


def test_dropout_has_one_mask_for_all_positions() -> None:
    drop = LockedDropout(0.4)
    torch.manual_seed(0)
    y = drop(torch.ones(64, 7, 32))
    assert torch.equal(y, y[:, :1].expand_as(y))
    assert sorted({round(float(v), 4) for v in y.unique()}) == [0.0, round(1 / 0.6, 4)]
    assert abs(float(y.mean()) - 1.0) < 0.05
    assert not torch.equal(y[0], y[1])  # rows have masks of their own
    x = torch.randn(2, 7, 3)
    assert torch.equal(drop.eval()(x), x)


def test_layers_drop_with_it() -> None:
    layer = shaken(RecurrentLayer("rnn", 3, 40, bidirectional=False, dropout=0.5))
    seen: list[Tensor] = []
    layer.cell.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    torch.manual_seed(1)
    layer(torch.ones(50, 6, 3))
    assert torch.equal(seen[0], seen[0][:, :1].expand_as(seen[0]))
    assert 0.3 < float((seen[0] == 0).float().mean()) < 0.7


# --- the body of text -----------------------------------------------------------------------------------------------

LENGTHS = (9, 4, 1)


def body(**changes: Any) -> RecurrentText:
    sizes: dict[str, Any] = {"vocabulary": 31, "context": 16, "width": 8, "layers": 2}
    with torch.device("meta"):
        empty = RecurrentText(RecurrentTextOptions(**(sizes | changes)))
    return shaken(empty.to_empty(device="cpu"))


def padded(length: int = 9) -> tuple[Tensor, Tensor]:
    """Tokens and documents (-1 at padding) of three rows of different lengths."""
    tokens = torch.randint(0, 31, (3, 12), generator=generator())[:, :length]
    document = torch.zeros_like(tokens)
    for row, n in enumerate(LENGTHS):
        document[row, n:] = -1
    return tokens, document


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padding_changes_nothing(cell: Any, bidirectional: bool) -> None:
    ours = body(cell=cell, bidirectional=bidirectional)
    assert ours.causal != bidirectional
    tokens, document = padded()
    states = ours.hidden(tokens, None, document)
    assert states.shape == (3, 9, 8)
    wide_tokens, wide_document = padded(12)
    other = (wide_tokens + 5) % 31
    wide = ours.hidden(torch.where(wide_document < 0, other, wide_tokens), None, wide_document)
    for row, length in enumerate(LENGTHS):
        alone = ours.hidden(tokens[row : row + 1, :length])[0]
        torch.testing.assert_close(states[row, :length], alone, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(wide[row, :length], alone, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_only_two_directions_see_what_comes_later(bidirectional: bool) -> None:
    ours = body(bidirectional=bidirectional)
    tokens, _ = padded()
    changed = tokens.clone()
    changed[:, -1] = (changed[:, -1] + 1) % 31
    same = torch.equal(ours.hidden(tokens)[:, :-1], ours.hidden(changed)[:, :-1])
    assert same != bidirectional


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("kind", ["classify", "tag", "regress", "embed"])
def test_heads_stand_on_it(kind: Any, bidirectional: bool) -> None:
    labels = ["a", "b", "c"] if kind in ("classify", "tag") else []
    model = Headed(body(bidirectional=bidirectional), HeadOptions(kind=kind, labels=labels))
    model.initialise_head(generator())
    assert model.options.pooling == (None if kind == "tag" else "mean" if bidirectional else "last")
    tokens, document = padded()
    position = torch.arange(9).expand(3, 9)
    batch = {"tokens_BT": tokens, "position_BT": position, "document_BT": document, "segment_BT": document * 0}
    answer = model(batch)
    assert answer.shape == {"classify": (3, 3), "tag": (3, 9, 3), "regress": (3,), "embed": (3, 8)}[kind]
    short = {name: value[1:2, :4] for name, value in batch.items()}
    expected = answer[1:2, :4] if kind == "tag" else answer[1:2]
    torch.testing.assert_close(model(short), expected, rtol=1e-5, atol=1e-6)
    answer.square().sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.body.parameters())


def test_candidates_of_nothing_but_padding_are_finite() -> None:
    model = Headed(body(), HeadOptions(kind="choice"))
    model.initialise_head(generator())
    tokens, document = padded()
    document[2] = -1
    batch = {"tokens_BCT": tokens[None], "document_BCT": document[None], "position_BCT": torch.zeros_like(tokens)[None]}
    logits = model(batch)
    assert torch.isfinite(logits[0, :2]).all() and bool(torch.isneginf(logits[0, 2]))
    logits[0, :2].sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.body.parameters())


@pytest.mark.parametrize("document", [[0, 0, 1, 1], [0, -1, 0, -1], [-1, 0, 0, 0]])
def test_rows_that_are_not_one_document_and_padding(document: list[int]) -> None:
    rows = torch.tensor([[0, 0, 0, 0], document])
    with pytest.raises(GroundupError, match="1 of 2 rows") as caught:
        body().hidden(torch.zeros(2, 4, dtype=torch.int64), None, rows)
    assert caught.value.code == "E-MODEL-103"


def test_odd_width_for_two_directions() -> None:
    with pytest.raises(GroundupError) as caught:
        RecurrentText(RecurrentTextOptions(vocabulary=5, context=4, width=7))
    assert caught.value.code == "E-MODEL-100" and "such as 8" in caught.value.fix
    RecurrentText(RecurrentTextOptions(vocabulary=5, context=4, width=7, bidirectional=False))


def test_dropout_is_for_training_alone() -> None:
    ours, plain = body(dropout=0.4), body()
    tokens, document = padded()
    torch.testing.assert_close(ours.eval().hidden(tokens, None, document), plain.hidden(tokens, None, document))
    assert not torch.allclose(ours.train().hidden(tokens), plain.hidden(tokens), atol=1e-3)


def test_memory_can_be_counted_without_values() -> None:
    with torch.device("meta"):
        ours = RecurrentText(RecurrentTextOptions(vocabulary=31, context=16, width=8))
        tokens = torch.zeros(1, 16, dtype=torch.int64)
        assert ours.hidden(tokens, tokens, tokens).shape == (1, 16, 8)


def test_names_of_the_parameters() -> None:
    names = [name for name, _ in body(layers=1, bidirectional=False).named_parameters()]
    kernel = ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"]
    assert names == ["embedding.weight", *(f"layers.0.cell.{name}" for name in kernel)]
    assert isinstance(body().layers, nn.ModuleList)
