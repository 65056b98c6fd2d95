"""`groundup doctor`: what this machine offers, how fast it was measured to be, and whether its arithmetic can
be trusted. Looks, measures, prints; whatever it knows comes from the machine room and the self-tests.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

from groundup.cli.terminal import Painter, format_bytes, format_rate, table, wrap

if TYPE_CHECKING:
    from torch import nn

DTYPES = ("float32", "bfloat16")


def doctor(args: argparse.Namespace) -> int:
    """Report on this machine; `args.json` prints one JSON object instead.

    Returns:
        The exit code: 0, or 1 if a self-test failed.
    """
    found = examine()
    if args.json:
        print(json.dumps(found, ensure_ascii=True, allow_nan=False))
    else:
        show(found, Painter())
    return 0 if found["passed"] else 1


def examine() -> dict[str, Any]:
    """Everything the report shows: `machine`, `device` (that runs choose), `compiled_generation` and
    `compiled_training` (why models do not write, or train, by compiled functions on this CPU; None if they do),
    `waiting` (of threads), `ceilings` by device, `precision`, `selftests`, `passed`.

    Numbers that are not finite become None, because JSON has none of them.
    """
    import torch

    from groundup.compiled import training
    from groundup.inference.kernels import why_not
    from groundup.machine.ceiling import (
        cache_folder,
        choose_precision,
        matrix_ceiling,
        memory_bandwidth,
        resolve_device,
    )
    from groundup.machine.describe import describe
    from groundup.machine.waiting import how_threads_wait
    from groundup.selftest import run_selftests

    machine, cache, device = describe("."), cache_folder(), resolve_device("auto")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    ceilings: dict[str, dict[str, float]] = {}
    for where in dict.fromkeys([str(device), "cpu"]):
        speeds = {name: matrix_ceiling(where, dtype, cache=cache, fresh=True) for name, dtype in dtypes.items()}
        ceilings[where] = speeds | {"bandwidth": memory_bandwidth(where, cache=cache, fresh=True)}
    checks = [check.as_dict() for check in run_selftests(small_decoder, device=device)]
    for check in checks:
        check["measured"] = check["measured"] if math.isfinite(check["measured"]) else None
    return {
        "machine": machine,
        "device": str(device),
        "compiled_generation": why_not(),
        "compiled_training": training.why_not(),
        "waiting": how_threads_wait(),
        "ceilings": ceilings,
        "precision": choose_precision("auto", device, cache=cache)._asdict(),
        "selftests": checks,
        "passed": all(check["passed"] for check in checks),
    }


def small_decoder() -> nn.Module:
    """The model that the self-tests run: two layers with grouped queries."""
    import torch

    from groundup.models.llama import Llama, LlamaOptions

    options = LlamaOptions(
        vocabulary=64, context=32, width=32, layers=2, heads=4, key_value_heads=2, head_size=8, hidden=64
    )
    model = Llama(options)
    model.initialise(torch.Generator().manual_seed(0))
    return model


def show(found: dict[str, Any], painter: Painter) -> None:
    """Print the report of `examine` in three aligned parts."""
    heading = ("bold", "cyan")
    painter.print(painter.paint("Machine", *heading))
    rows = [*machine_rows(found["machine"]), ["waiting threads", found["waiting"]]]
    for name in ("training", "generation"):
        without = found[f"compiled_{name}"]
        rows.append([name, f"plain: {without}" if without else "compiled"])
    painter.print(table(rows, width=painter.width, indent=2))
    painter.print("\n" + painter.paint("Measured", *heading))
    painter.print(table(measured_rows(found), width=painter.width, indent=2))
    painter.print("\n" + painter.paint(f"Self-tests on {found['device']}", *heading))
    rows = []
    for check in found["selftests"]:
        mark = painter.paint(*(("ok", "green") if check["passed"] else ("FAIL", "red", "bold")))
        rows.append([mark, check["name"], number(check["measured"]), number(check["tolerance"])])
    headers = ["", "what must hold", "error", "allowed"]
    painter.print(table(rows, headers, align="<<>>", width=painter.width, indent=2))
    failed = [check for check in found["selftests"] if not check["passed"]]
    advice = [f"{check['name']}: {check['detail']}" for check in failed]
    if failed:
        advice.append("What fails here computes wrong numbers: do not train on this device before it passes.")
        advice.append("Most often another torch build or driver mends it.")
    for line in advice:
        painter.print("\n" + "\n".join(wrap(line, painter.width)))


def machine_rows(machine: dict[str, Any]) -> list[list[str]]:
    """The facts that were looked up, as (name, value)."""
    torch = machine["torch"]
    memory, disk = machine["memory"], machine["disk"]
    rows = [
        ["processor", machine["processor"]],
        ["cores", f"{machine['cores']} usable"],
        ["instruction sets", " ".join(machine["instruction_sets"]) or "none known"],
        ["memory", f"{format_bytes(memory['available'])} free of {format_bytes(memory['total'])}"],
        ["disk here", f"{format_bytes(disk['free'])} free of {format_bytes(disk['total'])}"],
    ]
    for device in machine["accelerators"]:
        capability = ".".join(map(str, device["capability"] or []))
        about = f"{device['name']}, {format_bytes(device['memory'])}"
        name = f"{device['kind']}:{device['index']}"
        rows.append([name, about + (f", capability {capability}" if capability else "")])
    rows += [
        ["torch", f"{torch['version']} ({torch['build']}), threads {torch['threads']}, BLAS {torch['blas']}"],
        ["system", f"{machine['system']}, Python {machine['python']}"],
    ]
    return rows


def measured_rows(found: dict[str, Any]) -> list[list[str]]:
    """The ceilings and what follows from them, as (name, value)."""
    rows = []
    for where, speeds in found["ceilings"].items():
        rows += [[f"{where} {dtype}", f"{format_rate(speeds[dtype], 'FLOP/s')} in matrix products"] for dtype in DTYPES]
        rows.append([f"{where} memory", f"{format_rate(speeds['bandwidth'], 'B/s')} copied"])
    precision, compiler = found["precision"], found["machine"]["compiler"]
    rows.append(["precision auto", f"{precision['name']}: {precision['reason']}"])
    rows.append(["torch.compile", ("possible: " if compiler["found"] else "not possible: ") + compiler["detail"]])
    return rows


def number(value: float | None) -> str:
    """A measured error or a tolerance in two digits."""
    return "not finite" if value is None else f"{value:.2g}"
