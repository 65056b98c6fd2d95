"""The self-tests pass on this machine, and each of them fails when what it tests is broken."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from groundup import selftest
from groundup.cli.doctor import small_decoder
from groundup.contract import IGNORE
from groundup.functional import attention_mask, chunked_cross_entropy

CPU = torch.device("cpu")


class Decoder(nn.Module):
    """One layer of attention with rotary-free positions; the switches break it."""

    def __init__(self, *, sees: str = "its document", across_rows: bool = False, noise: bool = False) -> None:
        super().__init__()
        self.context, self.vocabulary = 16, 32
        self.sees, self.across_rows, self.noise = sees, across_rows, noise
        self.embedding = nn.Embedding(32, 8)
        self.position = nn.Embedding(16, 8)
        self.mix = nn.Linear(8, 24, bias=False)
        nn.init.zeros_(self.mix.weight)  # as some families start; the checks must not be fooled by it

    def hidden(
        self,
        tokens_BT: Tensor,
        position_BT: Tensor | None = None,
        document_BT: Tensor | None = None,
        cache: None = None,
    ) -> Tensor:
        if position_BT is None:
            position_BT = torch.arange(tokens_BT.shape[1])[None]
        if document_BT is None or self.sees == "everything before":
            document_BT = torch.zeros_like(tokens_BT)
        x = self.embedding(tokens_BT) + self.position(position_BT)
        query, key, value = (part[:, None] for part in self.mix(x).chunk(3, dim=-1))
        if self.sees != "itself":
            x = x + F.scaled_dot_product_attention(query, key, value, attention_mask(document_BT))[:, 0]
        if self.across_rows:
            x = x - x.mean(dim=0, keepdim=True)
        if self.noise:
            x = x + torch.rand(()) * 1e-3
        return x

    def head_weight(self) -> Tensor:
        return self.embedding.weight


@pytest.mark.parametrize("build", [small_decoder, Decoder])
def test_all_checks_pass_here(build: Callable[[], nn.Module]) -> None:
    model_free = selftest.run_selftests()
    checks = selftest.run_selftests(build)
    assert [check.name for check in checks if not check.passed] == []
    assert len(checks) == 8 and len({check.name for check in checks}) == 8
    assert model_free == checks[:5]
    assert all(math.isfinite(check.measured) and check.detail for check in checks)


def test_nan_never_passes() -> None:
    assert not selftest.judge("x", float("nan"), float("inf")).passed
    assert selftest.judge("x", 1.0, 1.0).passed


class Lost(torch.optim.SGD):
    """A backend that writes the update of a strided tensor to a copy of it."""

    broken_layout = "transposed"

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for parameter in self.param_groups[0]["params"]:
                transposed = parameter.stride(0) == 1
                target = (
                    parameter.contiguous()
                    if transposed == (self.broken_layout == "transposed")
                    else parameter
                )
                target.add_(parameter.grad, alpha=-0.01)


class Idle(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        pass


class Poisoned(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for parameter in self.param_groups[0]["params"]:
            parameter.data.mul_(float("nan") if not parameter.is_contiguous() else 2.0)


@pytest.mark.parametrize(
    ("broken", "word"), [(Lost, "transposed"), (Idle, "stands still"), (Poisoned, "sliced")]
)
def test_a_lost_optimizer_step_is_found(broken: type[torch.optim.SGD], word: str) -> None:
    optimizers = {
        "sound": lambda p: torch.optim.SGD(p, lr=0.01),
        "broken": lambda p: broken(p, lr=0.01),
    }
    check = selftest.check_strided_optimizer(CPU, optimizers)
    assert not check.passed and "worst: broken" in check.detail
    assert word in check.detail or broken is Poisoned
    assert selftest.check_strided_optimizer(CPU, {"sound": optimizers["sound"]}).passed


def test_a_known_limit_is_told_but_does_not_condemn() -> None:
    def gaps(parameters: Any) -> torch.optim.Optimizer:
        class Gaps(torch.optim.SGD):
            def step(self, closure: Any = None) -> None:  # type: ignore[override]
                parameter = self.param_groups[0]["params"][0]
                if parameter.untyped_storage().nbytes() == parameter.numel() * 4:
                    super().step()

        return Gaps(parameters, lr=0.01)

    known = selftest.check_strided_optimizer(CPU, {"SGD fused": gaps})
    assert known.passed and "tensors with gaps: SGD fused" in known.detail
    assert not selftest.check_strided_optimizer(CPU, {"SGD foreach": gaps}).passed


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


@pytest.mark.parametrize(
    "broken",
    [
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v, mask: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0),
        lambda q, k, v, mask: attention(q, k.detach(), v, mask) + 0 * k,
        lambda q, k, v, mask: attention(q, k, v, mask) * float("nan"),
        lambda q, k, v, mask: attention(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask).float(),
    ],
    ids=["ignores borders", "scale", "no key gradient", "nan", "half precision"],
)
def test_wrong_attention_is_found(broken: selftest.Attention) -> None:
    assert not selftest.check_masked_attention(CPU, broken).passed


def naive_loss(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Overflows: exp of the bare logits."""
    logits = (hidden @ weight.T).flatten(0, 1)
    kept = target.flatten() != IGNORE
    chosen = logits[kept].gather(1, target.flatten()[kept, None]).sum()
    return logits[kept].exp().sum(-1).log().sum() - chosen


def loss_of_ignored(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Counts the positions that should take no part as class 0."""
    return chunked_cross_entropy(hidden, weight, target.clamp(min=0))


def mean_loss(hidden: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """A mean per micro-batch, scaled as if all rows had equally many targets."""
    return chunked_cross_entropy(hidden, weight, target) / (target != IGNORE).sum() * len(target) * 10


@pytest.mark.parametrize("broken", [naive_loss, loss_of_ignored])
def test_an_unstable_or_wrong_loss_is_found(broken: selftest.SummedLoss) -> None:
    assert not selftest.check_stable_loss(CPU, broken).passed


def summed_in_bfloat16(left: Tensor, right: Tensor) -> Tensor:
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.bfloat16)
    for index in range(left.shape[1]):
        total += left[:, index : index + 1] * right[index]
    return total


@pytest.mark.parametrize(
    "broken", [summed_in_bfloat16, lambda a, b: (a @ b) * 1.02, lambda a, b: a @ b * float("nan")]
)
def test_a_sloppy_bfloat16_product_is_found(broken: Callable[[Tensor, Tensor], Tensor]) -> None:
    assert not selftest.check_bfloat16_product(CPU, broken).passed


@pytest.mark.parametrize(
    ("spoil", "name"),
    [
        (lambda found: found.pop("bfloat16"), "bfloat16"),
        (lambda found: found.update(bytes=found["bytes"].int()), "bytes"),
        (lambda found: found["special"].mul_(-1), "special"),
        (lambda found: found.update(transposed=found["transposed"].t().contiguous()), "transposed"),
        (lambda found: found.update(extra=torch.zeros(1)), "extra"),
    ],
)
def test_what_does_not_come_back_from_the_disk_is_named(
    spoil: Callable[[dict[str, Tensor]], Any], name: str
) -> None:
    def load(path: Path) -> dict[str, Tensor]:
        found = load_file(path)
        spoil(found)
        return found

    check = selftest.check_save_load(CPU, None, load)
    assert not check.passed and check.measured == 1 and name in check.detail


@pytest.mark.parametrize("sees", ["everything before", "itself"])
def test_packed_documents_that_see_each_other_or_nothing_are_found(sees: str) -> None:
    check = selftest.check_packing(lambda: Decoder(sees=sees), CPU)
    assert not check.passed and check.measured > 0.01


def test_rows_that_depend_on_each_other_break_accumulation() -> None:
    assert not selftest.check_accumulation(lambda: Decoder(across_rows=True), CPU).passed
    assert not selftest.check_accumulation(Decoder, CPU, mean_loss).passed
    assert selftest.check_accumulation(Decoder, CPU).passed


def test_a_step_that_differs_when_repeated_is_found() -> None:
    check = selftest.check_repeat(lambda: Decoder(noise=True), CPU)
    assert not check.passed and check.measured >= 1


def test_what_torch_cannot_run_is_a_failed_check_with_the_reason() -> None:
    def refuses(path: Path) -> dict[str, Tensor]:
        raise RuntimeError("no kernel\nfor this device")

    checks = {check.name: check for check in selftest.run_selftests(load=refuses)}
    failed = checks["save, load, compare"]
    assert not failed.passed and "no kernel for this device" in failed.detail
    assert checks["bfloat16 product"].passed
