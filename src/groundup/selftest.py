"""Self-tests: small computations whose right answer is known, run on the device that will train.

They answer whether the arithmetic of this machine, driver and torch build can be trusted, not whether it is
fast. Each check states what it measured and what it allows, gets the thing under test as an argument (so that
the tests can hand in broken ones and see the check fail), and draws its numbers from a private generator.
This is a composition file: it may know torch and the parts that it is handed, but it prints nothing.

Shapes: B rows, T positions, D width, H heads, K head size, V vocabulary, N rows of a matrix.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from groundup.contract import IGNORE, LanguageModel
from groundup.functional import attention_mask, chunked_cross_entropy

BuildModel = Callable[[], nn.Module]
"""Makes a small language model (contract.LanguageModel) of at least 16 ids and 16 positions, on the CPU."""
SummedLoss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(hidden_BTD, weight_VD, target_BT) → the summed loss, as functional.chunked_cross_entropy."""
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""(query_BHTK, key_BHTK, value_BHTK, mask_BHTT) → (B, H, T, K), the mask being True where a key is seen."""

DOCUMENTS = (7, 4, 5)
"""Lengths, in tokens, of the documents that the checks pack into one row."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """What one self-test found. `measured` must not exceed `tolerance`; NaN never passes."""

    name: str
    measured: float
    tolerance: float
    detail: str = ""
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def judge(name: str, measured: float, tolerance: float, detail: str = "") -> Check:
    """A check that passes if `measured` is a number no larger than `tolerance`."""
    return Check(
        name=name, measured=measured, tolerance=tolerance, detail=detail, passed=measured <= tolerance
    )


def run_selftests(
    build_model: BuildModel | None = None,
    *,
    device: torch.device | str = "cpu",
    save: Callable[[dict[str, Tensor], Path], None] | None = None,
    load: Callable[[Path], dict[str, Tensor]] | None = None,
) -> list[Check]:
    """All checks on `device`, in a fixed order; those that need a model only if one can be built.

    A check that torch refuses to run there (a kernel that does not exist) is a failed check with the reason.

    Args:
        build_model: a small language model, built anew at each call.
        save, load: how checkpoints write and read named tensors; safetensors by default.
    """
    device = torch.device(device)
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("optimizer on strided tensors", lambda: check_strided_optimizer(device)),
        ("attention under a mask", lambda: check_masked_attention(device)),
        ("loss at large logits", lambda: check_stable_loss(device)),
        ("bfloat16 product", lambda: check_bfloat16_product(device)),
        ("save, load, compare", lambda: check_save_load(device, save, load)),
    ]
    if build_model is not None:
        checks += [
            ("packed equals unpacked", lambda: check_packing(build_model, device)),
            ("accumulated equals whole", lambda: check_accumulation(build_model, device)),
            ("a repeated step is equal", lambda: check_repeat(build_model, device)),
        ]
    results = []
    for name, check in checks:
        try:
            results.append(check())
        except RuntimeError as error:  # torch raises it for whatever a device cannot compute
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            results.append(judge(name, float("nan"), 0.0, f"torch cannot run this: {reason}"))
    return results


BuildOptimizer = Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer]
OPTIMIZERS: dict[str, BuildOptimizer] = {
    "AdamW foreach": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "AdamW fused": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, fused=True),
    "SGD foreach": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, foreach=True),
    "SGD fused": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9, fused=True),
}


# On the processor torch's fused kernels run through memory as if it had no gaps (seen in torch 2.13). No
# parameter of a run has gaps, so this is reported but condemns no machine.
KNOWN_LIMITS = {("AdamW fused", "sliced"), ("SGD fused", "sliced")}


def check_strided_optimizer(
    device: torch.device, optimizers: dict[str, BuildOptimizer] | None = None
) -> Check:
    """Three optimizer steps on transposed and sliced tensors equal those on contiguous ones.

    Some backends have written the update of strided tensors to a copy and lost it, so that training stood
    still without an error. Values are of size one; the tolerance is some roundings of float32.
    """
    optimizers = OPTIMIZERS if optimizers is None else optimizers
    start, *gradients = random_tensors(device, *[(12, 10)] * 4)
    layouts = {
        "contiguous": lambda: start.clone(),
        "transposed": lambda: start.t().contiguous().t(),
        "sliced": lambda: torch.stack([start, start], dim=-1)[..., 0],
    }
    differences, limits = {}, []
    for name, build in optimizers.items():
        ends = {}
        for layout, make in layouts.items():
            parameter = nn.Parameter(make())
            optimizer = build([parameter])
            for gradient in gradients:
                parameter.grad = torch.empty_like(parameter).copy_(gradient)
                optimizer.step()
            ends[layout] = parameter.detach()
        for layout in ("transposed", "sliced"):
            difference = largest(ends[layout] - ends["contiguous"])
            if (name, layout) not in KNOWN_LIMITS:
                differences[f"{name}, {layout}"] = difference
            elif not difference <= 1e-6:
                limits.append(name)
        if torch.equal(ends["contiguous"], start):
            differences[f"{name}, contiguous: stands still"] = float("inf")
    worst = max(differences, key=lambda name: (math.isnan(differences[name]), differences[name]))
    known = f"; known: wrong on tensors with gaps: {', '.join(limits)}" if limits else ""
    return judge("optimizer on strided tensors", differences[worst], 1e-6, f"worst: {worst}{known}")


def check_masked_attention(device: torch.device, attention: Attention | None = None) -> Check:
    """Attention among packed documents equals softmax(q kᵀ / √K) v written out in float64, and so do its
    gradients, on tensors as strided as a model's. The difference counts relative to the largest value."""
    attention = scaled_dot_product if attention is None else attention
    mask = attention_mask(documents(device)).expand(2, -1, -1, -1)
    length = sum(DOCUMENTS)
    inputs = random_tensors(device, *[(2, length, 3, 8)] * 3)
    weights = random_tensors(device, (2, length, 3, 8), seed=1)[0].transpose(1, 2)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    ours = attention(*(leaf.transpose(1, 2) for leaf in leaves), mask)  # type: ignore[call-arg]
    exact = [tensor.double().cpu().requires_grad_() for tensor in inputs]
    query, key, value = (leaf.transpose(1, 2) for leaf in exact)
    scores = (query @ key.mT / key.shape[-1] ** 0.5).masked_fill(~mask.cpu(), float("-inf"))
    reference = scores.softmax(-1) @ value
    gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    expected = torch.autograd.grad((reference * weights.double().cpu()).sum(), exact)
    forward = relative(ours.detach(), reference.detach())
    backward = largest_of(*(relative(got, want) for got, want in zip(gradients, expected, strict=True)))
    detail = f"values {forward:.1e}, gradients {backward:.1e}, against float64"
    return judge("attention under a mask", largest_of(forward, backward), 1e-5, detail)


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """torch's attention, as the models call it."""
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)


def check_stable_loss(device: torch.device, loss: SummedLoss = chunked_cross_entropy) -> Check:
    """Cross-entropy at logits near ±10,000 is finite and equals float64 in value and gradient.

    Without the largest logit taken off first, exp overflows float32 beyond 88. The logits are whole numbers,
    so that they are exact in float32 and all of the difference is the loss's own.
    """
    generator = torch.Generator().manual_seed(3)
    logits = torch.randint(-10_000, 10_000, (2, 6, 16), generator=generator).double()
    ties = torch.randint(-3, 3, (2, 3, 16), generator=generator)
    logits[:, ::2] = logits[:, ::2, :1] + ties
    target = torch.randint(0, 16, (2, 6), generator=generator)
    target[0, 1] = IGNORE
    exact = logits.clone().requires_grad_()
    wanted = F.cross_entropy(exact.flatten(0, 1), target.flatten(), reduction="sum", ignore_index=IGNORE)
    (wanted_gradient,) = torch.autograd.grad(wanted, exact)
    hidden = logits.float().to(device).requires_grad_()
    got = loss(hidden, torch.eye(16, device=device), target.to(device))
    (gradient,) = torch.autograd.grad(got, hidden)
    value = relative(got.detach(), wanted.detach())
    slope = relative(gradient, wanted_gradient)
    detail = f"value {value:.1e}, gradient {slope:.1e}, against float64"
    return judge("loss at large logits", largest_of(value, slope), 1e-5, detail)


def check_bfloat16_product(
    device: torch.device, product: Callable[[Tensor, Tensor], Tensor] = torch.matmul
) -> Check:
    """A matrix product in bfloat16 is as near to float64 as one rounding of its result allows.

    With u = 2⁻⁸, the unit roundoff of bfloat16, an entry may be off by u |c| for the final rounding plus
    u/8 (|a| |b|), room for a few partial sums that a GPU rounds to bfloat16 (split-K) but not for summing
    in it (Higham 2002, Accuracy and Stability of Numerical Algorithms, section 3.5). What is measured is
    the largest error as a share of this bound.
    """
    left, right = (tensor.bfloat16() for tensor in random_tensors(device, (128, 512), (512, 128)))
    wide_left, wide_right = left.double().cpu(), right.double().cpu()
    exact, unit = wide_left @ wide_right, 2.0**-8
    bound = unit * exact.abs() + unit / 8 * (wide_left.abs() @ wide_right.abs())
    error = (product(left, right).double().cpu() - exact).abs()
    share = largest(error / bound)
    detail = (
        f"largest error {largest(error):.2g} at values up to {largest(exact):.3g}, as a share of its bound"
    )
    return judge("bfloat16 product", share, 1.0, detail)


def check_save_load(
    device: torch.device,
    save: Callable[[dict[str, Tensor], Path], None] | None = None,
    load: Callable[[Path], dict[str, Tensor]] | None = None,
) -> Check:
    """Named tensors of every kind that a checkpoint holds come back from the disk bit for bit."""
    save, load = save or save_contiguous, load or load_file
    base = random_tensors(device, (6, 4))[0]
    special = torch.tensor([float("nan"), float("inf"), -0.0, 1e-45, 3.4e38], device=device)
    tensors = {
        "float32": base,
        "bfloat16": base.bfloat16(),
        "transposed": base.clone().t(),
        "sliced": base.clone()[:, 1:3],
        "special": special,
        "scalar": base[0, 0].clone(),
        "empty": base[:0].clone(),
        "integers": torch.tensor([-(2**62), 2**62], device=device),
        "bytes": torch.arange(256, dtype=torch.uint8, device=device),
        "flags": base > 0,
    }
    with tempfile.TemporaryDirectory(prefix="groundup-selftest-") as folder:
        path = Path(folder) / "tensors.safetensors"
        save(tensors, path)
        loaded = load(path)
    wrong = sorted(set(loaded) ^ set(tensors))
    wrong += [name for name in tensors if name in loaded and not same_bits(tensors[name], loaded[name])]
    detail = f"differ: {', '.join(wrong)}" if wrong else f"{len(tensors)} tensors equal bit for bit"
    return judge("save, load, compare", float(len(wrong)), 0.0, detail)


def save_contiguous(tensors: dict[str, Tensor], path: Path) -> None:
    """safetensors' own writer, which refuses strided tensors, given contiguous ones."""
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same type, shape and bytes; NaN equals itself here, 0 differs from -0."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    left, right = (tensor.detach().cpu().contiguous().view(-1) for tensor in (one, other))
    return torch.equal(left.view(torch.uint8), right.view(torch.uint8))


def check_packing(build_model: BuildModel, device: torch.device) -> Check:
    """The logits of documents packed into one row equal those of each document alone.

    The check must be able to tell: with the borders left out, the logits have to differ.
    """
    model = shaken(build_model, device)
    decoder = cast("LanguageModel", model)
    tokens, document = tokens_of(decoder, 1, device), documents(device)
    positions = restarting_positions(device)

    def logits(*arguments: Tensor | None) -> Tensor:
        return decoder.hidden(*arguments) @ decoder.head_weight().T  # type: ignore[arg-type]

    with torch.no_grad():
        packed = logits(tokens, positions, document)
        alone = torch.cat([logits(part) for part in tokens.split(DOCUMENTS, dim=1)], dim=1)
        leaking = logits(tokens, positions)
    difference, leak = relative(packed, alone), relative(leaking, alone)
    if leak < 1e-3:
        detail = f"the model does not look at other positions (only {leak:.1e} without borders)"
        return judge("packed equals unpacked", float("inf"), 1e-5, detail)
    detail = (
        f"documents of {', '.join(map(str, DOCUMENTS))} tokens; without borders the difference is {leak:.1e}"
    )
    return judge("packed equals unpacked", difference, 1e-5, detail)


def check_accumulation(
    build_model: BuildModel, device: torch.device, loss: SummedLoss = chunked_cross_entropy
) -> Check:
    """Gradients of four rows with differing numbers of targets, one row at a time, equal the whole batch's.

    Summed losses over a weight that is known beforehand make this exact up to the order of float32 sums; a
    mean of means does not.
    """
    model = shaken(build_model, device)
    decoder = cast("LanguageModel", model)
    tokens = tokens_of(decoder, 4, device)
    target = tokens.roll(-1, dims=1)
    for row in range(4):
        target[row, : 3 * row + 1] = IGNORE
    weight = (target != IGNORE).sum()

    def gradients(micro_batches: list[tuple[Tensor, Tensor]]) -> Tensor:
        model.zero_grad()
        for part, wanted in micro_batches:
            (loss(decoder.hidden(part), decoder.head_weight(), wanted) / weight).backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    whole = gradients([(tokens, target)])
    pieces = gradients([(tokens[row : row + 1], target[row : row + 1]) for row in range(4)])
    detail = f"{whole.numel()} gradients, {int(weight)} targets in 4 uneven rows"
    return judge("accumulated equals whole", relative(pieces, whole), 1e-6, detail)


def check_repeat(
    build_model: BuildModel, device: torch.device, loss: SummedLoss = chunked_cross_entropy
) -> Check:
    """Two training steps made twice from the same start end in the same bits."""
    model = shaken(build_model, device)

    def trained() -> list[Tensor]:
        copied = copy.deepcopy(model)
        decoder = cast("LanguageModel", copied)
        tokens, document = tokens_of(decoder, 2, device), documents(device).expand(2, -1)
        optimizer = torch.optim.AdamW(copied.parameters(), lr=0.01)
        for _ in range(2):
            optimizer.zero_grad()
            hidden = decoder.hidden(tokens, restarting_positions(device).expand(2, -1), document)
            loss(hidden, decoder.head_weight(), tokens.roll(-1, dims=1)).backward()
            optimizer.step()
        return [parameter.detach() for parameter in copied.parameters()]

    first, second = trained(), trained()
    differing = sum(not same_bits(one, other) for one, other in zip(first, second, strict=True))
    detail = f"{differing} of {len(first)} parameters differ"
    return judge("a repeated step is equal", float(differing), 0.0, detail)


def shaken(build_model: BuildModel, device: torch.device) -> nn.Module:
    """A model with noise added to every parameter: right after initialisation some families give all-zero
    logits, and every implementation of zero is right."""
    model = build_model().to(device).float()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator) * 0.1
            parameter.add_(noise.to(device))
    return model.train()


def tokens_of(model: LanguageModel, rows: int, device: torch.device) -> Tensor:
    """Random ids, int64, as many positions as the packed documents have."""
    generator = torch.Generator().manual_seed(7)
    return torch.randint(0, model.vocabulary, (rows, sum(DOCUMENTS)), generator=generator).to(device)


def documents(device: torch.device) -> Tensor:
    """The document of each position of a packed row, (1, T)."""
    numbers = [torch.full((length,), index) for index, length in enumerate(DOCUMENTS)]
    return torch.cat(numbers)[None].to(device)


def restarting_positions(device: torch.device) -> Tensor:
    """Positions that restart with each document of a packed row, (1, T)."""
    return torch.cat([torch.arange(length) for length in DOCUMENTS])[None].to(device)


def random_tensors(device: torch.device, *shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    """Normal float32 tensors that are the same on every device."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator).to(device) for shape in shapes]


def largest(tensor: Tensor) -> float:
    """The largest magnitude; NaN if there is one."""
    return float(tensor.abs().max())


def largest_of(*numbers: float) -> float:
    """The largest number, NaN if one of them is (Python's max may drop it)."""
    return float(torch.tensor(numbers, dtype=torch.float64).max())


def relative(got: Tensor, wanted: Tensor) -> float:
    """The largest difference as a share of the largest magnitude wanted, computed in float64."""
    reference = wanted.double().cpu()
    return largest(got.double().cpu() - reference) / max(largest(reference), 1e-30)
