"""What this machine can do at best, measured beside what is measured: `python ceilings.py float32|bfloat16` is a side
that gives the FLOP/s of its best matrix product; see sides.py."""

from __future__ import annotations

import sys
from typing import Any

from sides import serve


def choose() -> str:
    """The precision that groundup's `auto` takes here."""
    import torch

    from groundup.machine.ceiling import choose_precision

    return choose_precision("auto", torch.device("cpu")).name


def flops_per_step(shape: dict[str, int]) -> float:
    """Of forward and backward of a Llama (Kaplan et al. 2020, arXiv:2001.08361, appendix B: 6 for each weight and
    token), and of causal attention, which sees half of its square."""
    tokens, width = shape["context"] * shape["batch"], shape["width"]
    weights = shape["layers"] * (4 * width * width + 3 * width * shape["hidden"]) + shape["vocabulary"] * width
    attention = shape["layers"] * 6 * shape["context"] * width
    return float(tokens * (6 * weights + attention))


def describe() -> dict[str, Any]:
    """The machine and its ceilings, for results/machine.json."""
    import torch

    from groundup.machine.ceiling import matrix_ceiling, memory_bandwidth
    from groundup.machine.describe import describe as facts

    found = facts()
    told = {key: str(found[key]) for key in ("processor", "cores", "instruction_sets", "memory", "torch", "python")}
    for name in ("float32", "bfloat16"):
        told[f"{name} matrix product, GFLOP/s"] = f"{matrix_ceiling('cpu', getattr(torch, name)) / 1e9:.0f}"
    return told | {"memory, GB/s copied": f"{memory_bandwidth('cpu') / 1e9:.1f}"}


def main() -> None:
    import torch

    from groundup.machine.ceiling import SIZES, measure_matrix_products

    dtype = getattr(torch, sys.argv[1])

    def work(piece: dict[str, Any]) -> dict[str, Any]:
        return {"flops": measure_matrix_products(torch.device("cpu"), dtype, 0.5, SIZES["cpu"])}

    serve(work)


if __name__ == "__main__":
    main()
