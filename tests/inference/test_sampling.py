"""The choice of the next token against closed forms, brute force, and counts."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from groundup.errors import GroundupError
from groundup.inference import SampleOptions, sample, sample_options
from groundup.inference.sample import Counts, draw_B, filtered_BV, penalise_BV


def logits_of(*probabilities: float) -> Tensor:
    return torch.tensor([probabilities], dtype=torch.float64).log()


def kept(logits_BV: Tensor, **options: object) -> list[float]:
    row = filtered_BV(logits_BV, sample_options({"temperature": 1.0, **options}))[0]
    assert math.isclose(float(row.sum()), 1.0, abs_tol=1e-12)
    return [round(float(p), 9) for p in row]


def test_temperature_is_softmax_of_scaled_logits() -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(0))
    for temperature in (0.3, 1.0, 7.0):
        expected = (logits.double() / temperature).softmax(-1)
        torch.testing.assert_close(filtered_BV(logits, SampleOptions(temperature=temperature)), expected)


def test_extreme_temperatures_stay_finite() -> None:
    logits = torch.tensor([[1e4, -1e4, 0.0]])
    assert filtered_BV(logits, SampleOptions(temperature=2e-5))[0].tolist() == [1.0, 0.0, 0.0]
    assert torch.isfinite(filtered_BV(logits, SampleOptions(temperature=100.0))).all()


def test_top_k_keeps_exactly_k_and_renormalises() -> None:
    assert kept(logits_of(0.1, 0.4, 0.3, 0.2), top_k=2) == [0, round(4 / 7, 9), round(3 / 7, 9), 0]
    assert kept(logits_of(0.25, 0.25, 0.25, 0.25), top_k=3) == [round(1 / 3, 9)] * 3 + [0]
    assert kept(logits_of(0.5, 0.5), top_k=9) == [0.5, 0.5]


def test_top_p_keeps_the_smallest_set_that_reaches_p() -> None:
    equal = torch.zeros(1, 8)
    assert kept(equal, top_p=0.5) == [0.25] * 4 + [0] * 4
    assert kept(equal, top_p=0.51) == [0.2] * 5 + [0] * 3
    assert kept(equal, top_p=1e-9) == [1.0] + [0] * 7
    assert kept(logits_of(0.1, 0.45, 0.3, 0.15), top_p=0.7) == [0, 0.6, 0.4, 0]
    assert kept(logits_of(0.1, 0.45, 0.3, 0.15), top_p=0.8) == [0, 0.5, round(1 / 3, 9), round(1 / 6, 9)]


def test_top_p_against_all_subsets() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(40):
        probability = torch.rand(6, generator=generator, dtype=torch.float64)
        probability /= probability.sum()
        p = float(torch.rand((), generator=generator)) * 0.98 + 0.01
        subsets = [[i for i in range(6) if mask >> i & 1] for mask in range(1, 64)]
        enough = [s for s in subsets if float(probability[s].sum()) >= p]
        size = min(map(len, enough))
        best = max((s for s in enough if len(s) == size), key=lambda s: float(probability[s].sum()))
        row = filtered_BV(probability.log()[None], SampleOptions(temperature=1.0, top_p=p))[0]
        assert row.nonzero().flatten().tolist() == best


def test_min_p_is_a_share_of_the_likeliest() -> None:
    probabilities = logits_of(0.5, 0.26, 0.24)
    assert kept(probabilities, min_p=0.5) == [round(50 / 76, 9), round(26 / 76, 9), 0]
    assert kept(torch.zeros(1, 4), min_p=1.0) == [0.25] * 4  # ties with the likeliest stay


def test_filters_follow_one_another() -> None:
    # top-k leaves .5 .25 .125 → 4/7 2/7 1/7; top-p .8 then needs two; min-p .6 leaves the first
    probabilities = logits_of(0.5, 0.25, 0.125, 0.0625, 0.0625)
    assert kept(probabilities, top_k=3, top_p=0.8) == [round(2 / 3, 9), round(1 / 3, 9), 0, 0, 0]
    assert kept(probabilities, top_k=3, top_p=0.8, min_p=0.6) == [1.0, 0, 0, 0, 0]


def test_repetition_penalty_divides_positive_and_multiplies_negative() -> None:
    logits = torch.tensor([[3.0, -1.0, 2.0, 0.0]])
    seen = torch.tensor([[True, True, False, True]])
    assert penalise_BV(logits, seen, 2.0).tolist() == [[1.5, -2.0, 2.0, 0.0]]
    options = SampleOptions(repetition_penalty=2.0)
    counts = Counts(1, 4)
    counts.seen_BV = seen
    assert sample(logits, options, [], counts).tolist() == [2]


def test_greedy_takes_the_lowest_id_among_equals_and_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    logits = torch.tensor([[1.0, 5.0, 5.0], [2.0, 1.0, 2.0], [0.0, 0.0, 1.0]])
    assert sample(logits, SampleOptions(), [generator] * 3).tolist() == [1, 0, 2]
    assert torch.equal(generator.get_state(), state)


def test_draw_covers_each_stretch_and_never_a_zero() -> None:
    probability = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]], dtype=torch.float64)
    for uniform, expected in [(0.0, 1), (0.2499, 1), (0.25, 3), (0.9, 3), (1 - 2**-53, 3), (1.0, 3)]:
        assert draw_B(probability, torch.tensor([uniform], dtype=torch.float64)).tolist() == [expected]


def test_draws_follow_the_distribution() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0, 0.5, 3.0]])
    options = SampleOptions(temperature=1.3, top_k=5, top_p=0.97)
    expected = filtered_BV(logits, options)[0]
    draws, generator = 6000, torch.Generator().manual_seed(11)
    ids = sample(logits.expand(draws, -1), options, [generator] * draws)
    counts = torch.bincount(ids, minlength=6).double()
    assert counts[expected == 0].sum() == 0
    some = expected > 0
    chi_square = float(((counts - draws * expected)[some] ** 2 / (draws * expected[some])).sum())
    assert chi_square < 18.5  # 4 degrees of freedom: exceeded once in a thousand


def test_a_row_draws_the_same_alone_and_in_a_batch() -> None:
    logits = torch.randn(5, 30, generator=torch.Generator().manual_seed(1))
    options = SampleOptions(temperature=1.0, top_p=0.9)
    together = sample(logits, options, [torch.Generator().manual_seed(i) for i in range(5)])
    alone = [sample(logits[i : i + 1], options, [torch.Generator().manual_seed(i)]) for i in range(5)]
    assert together.tolist() == torch.cat(alone).tolist()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -1.0), ("temperature", math.nan), ("temperature", 1e308), ("temperature", math.inf),
        ("temperature", "hot"), ("temperature", True), ("top_p", 0.0), ("top_p", 2.0), ("top_p", math.nan),
        ("top_k", -1), ("top_k", 1.5), ("min_p", -0.1), ("min_p", 1.1), ("repetition_penalty", 0.0),
        ("repetition_penalty", math.nan), ("max_tokens", 0), ("max_tokens", -1), ("max_tokens", 2**63),
        ("max_tokens", True), ("stop", ["x"] * 17), ("stop", [""]), ("stop", "text"), ("stop", [1]),
        ("seed", -1), ("seed", 2**63),
    ],
)  # fmt: skip
def test_options_out_of_range_are_refused_with_field_value_and_range(field: str, value: object) -> None:
    with pytest.raises(GroundupError) as caught:
        sample_options({field: value})
    error = caught.value
    assert error.code == "E-GEN-001" and error.exit_code == 2 and error.fix and error.why
    described = SampleOptions.model_fields[field].description
    assert error.where.startswith(f"{field} = ") and described is not None and error.where.endswith(described)


def test_all_faults_come_at_once_and_a_typo_finds_its_name() -> None:
    with pytest.raises(GroundupError) as caught:
        sample_options({"top_p": 2.0, "temprature": 1.0, "stop": ["ok", ""]})
    lines = caught.value.where.splitlines()
    assert len(lines) == 3 and caught.value.what.startswith("3 generation options")
    assert "temprature: no such option; did you mean temperature?" in lines


def test_legal_edges_are_accepted() -> None:
    options = sample_options(
        {"temperature": 0, "top_k": 0, "top_p": 1.0, "min_p": 1.0, "max_tokens": 1, "stop": ["a"] * 16}
    )
    assert options.stop == ("a",) * 16
