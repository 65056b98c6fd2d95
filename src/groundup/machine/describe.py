"""What this machine is: cores, processor, memory, disk, torch build, accelerators, operating system.

Facts are read from the operating system, with the limits of a container (cgroup v1 and v2) applied, because
a core or a byte that the kernel will not grant is not there. Nothing is measured here, nothing identifies the
user or the host, and torch is imported only inside the functions that ask about it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

SYSTEM = Path("/")

# What matters for the speed of training, by the names that /proc/cpuinfo uses (x86 "flags", ARM "Features").
INSTRUCTION_SETS = {
    "sse4_2": "SSE4.2",
    "avx": "AVX",
    "fma": "FMA",
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX512F",
    "avx512bw": "AVX512BW",
    "avx512_vnni": "AVX512-VNNI",
    "avx512_bf16": "AVX512-BF16",
    "avx512_fp16": "AVX512-FP16",
    "amx_tile": "AMX-TILE",
    "amx_int8": "AMX-INT8",
    "amx_bf16": "AMX-BF16",
    "amx_fp16": "AMX-FP16",
    "neon": "NEON",
    "asimd": "NEON",
    "asimddp": "DOTPROD",
    "i8mm": "I8MM",
    "bf16": "ARM-BF16",
    "sve": "SVE",
    "sve2": "SVE2",
    "sme": "SME",
}
# The same sets as macOS names them in `sysctl hw.optional`; Intel Macs list x86 features in capitals.
APPLE_FEATURES = {
    "hw.optional.neon": "NEON",
    "hw.optional.arm.FEAT_DotProd": "DOTPROD",
    "hw.optional.arm.FEAT_I8MM": "I8MM",
    "hw.optional.arm.FEAT_BF16": "ARM-BF16",
    "hw.optional.arm.FEAT_SME": "SME",
    "hw.optional.avx2_0": "AVX2",
    "hw.optional.avx512f": "AVX512F",
}


def describe(folder: Path | str = ".") -> dict[str, Any]:
    """Everything that is known about this machine without measuring it, ready for JSON.

    Args:
        folder: whose disk to report.

    Returns:
        `cores` (usable), `processor`, `architecture`, `instruction_sets`, `memory` {total, available} and
        `disk` {total, free} in bytes, `torch` {version, build, threads, blas, kernels}, `accelerators`
        [{kind, index, name, memory, capability}], `compiler` {found, detail}, `system`, `python`, `digest`.
    """
    name, sets = processor()
    found = {
        "cores": usable_cores(),
        "processor": name,
        "architecture": platform.machine(),
        "instruction_sets": sets,
        "memory": memory(),
        "disk": disk(folder),
        "torch": torch_build(),
        "accelerators": accelerators(),
        "compiler": compiler(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    return found | {"digest": hardware_digest(found)}


def hardware_digest(facts: dict[str, Any]) -> str:
    """Sixteen hex digits that are equal on two machines of the same kind.

    The kind is the processor, its usable cores and instruction sets, and the accelerators: what decides which
    kernels run. Memory, disk and software may differ.
    """
    kind = {
        key: facts[key] for key in ("architecture", "processor", "cores", "instruction_sets", "accelerators")
    }
    text = json.dumps(kind, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()[:16]


def usable_cores(system: Path = SYSTEM) -> int:
    """Cores that this process may keep busy: those present, its affinity, and the quota of its cgroups."""
    cores = os.cpu_count() or 1
    if sys.platform == "linux":
        cores = len(os.sched_getaffinity(0))
        quota = cgroup_core_quota(system)
        if quota is not None:
            cores = min(cores, max(1, int(quota)))
    return cores


def processor(system: Path = SYSTEM) -> tuple[str, list[str]]:
    """The processor's name and its `INSTRUCTION_SETS`."""
    if sys.platform == "darwin":
        answer = subprocess.run(
            ["/usr/sbin/sysctl", "hw.optional", "machdep.cpu"], capture_output=True, text=True, check=False
        )
        return parse_sysctl(answer.stdout)
    return parse_cpuinfo(read(system / "proc/cpuinfo") or "")


def parse_cpuinfo(text: str) -> tuple[str, list[str]]:
    """Name and instruction sets from the first processor of /proc/cpuinfo (x86 and ARM)."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    sets = list(dict.fromkeys(name for flag, name in INSTRUCTION_SETS.items() if flag in flags))
    name = fields.get("model name") or fields.get("Hardware", "")
    if not name and "CPU implementer" in fields:
        name = f"ARM processor {fields['CPU implementer']}/{fields.get('CPU part', '?')}"
    return name or platform.processor() or platform.machine(), sets


def parse_sysctl(text: str) -> tuple[str, list[str]]:
    """Name and instruction sets from macOS's `sysctl hw.optional machdep.cpu`."""
    fields = dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)
    named = {name for key, name in APPLE_FEATURES.items() if fields.get(key) == "1"}
    listed = f"{fields.get('machdep.cpu.features', '')} {fields.get('machdep.cpu.leaf7_features', '')}"
    flags = set(listed.lower().replace("avx1.0", "avx").replace(".", "_").split())
    named |= {name for flag, name in INSTRUCTION_SETS.items() if flag in flags}
    sets = [name for name in dict.fromkeys(INSTRUCTION_SETS.values()) if name in named]
    return fields.get("machdep.cpu.brand_string", platform.machine()), sets


def memory(system: Path = SYSTEM) -> dict[str, int]:
    """Bytes of memory, `total` and `available`, as far as the machine and this process's cgroups allow."""
    fields = {}
    for line in (read(system / "proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if value.strip().endswith("kB"):
            fields[key] = int(value.split()[0]) * 1024
    if "MemTotal" in fields and "MemAvailable" in fields:
        total, available = fields["MemTotal"], fields["MemAvailable"]
    else:
        import psutil

        machine = psutil.virtual_memory()
        total, available = machine.total, machine.available
    for limit, used in cgroup_memory(system):
        total = min(total, limit)
        available = min(available, max(0, limit - used))
    return {"total": total, "available": available}


def disk(folder: Path | str) -> dict[str, int]:
    """Bytes `total` and `free` (to this user) on the disk of `folder`, or of its nearest existing parent."""
    path = Path(folder).expanduser().absolute()
    while not path.exists():
        path = path.parent
    usage = shutil.disk_usage(path)
    return {"total": usage.total, "free": usage.free}


def read(path: Path) -> str | None:
    """The text of a small system file, None where it is absent or not for us."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None


def cgroup_folders(controller: str, system: Path = SYSTEM) -> list[Path]:
    """The folders of this process's cgroup and all its parents for one controller, innermost first.

    A limit of any parent binds too. In a container the path that /proc/self/cgroup names may not be visible;
    its parents, which do exist, then are the container's own.
    """
    folders: list[Path] = []
    for line in (read(system / "proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        # Version 1 mounts every controller (or pair of them) by name, version 2 all in one tree.
        names = [controllers, controller] if controllers else ["", "unified"]
        for mount in dict.fromkeys(system / "sys/fs/cgroup" / name for name in names):
            inner = mount / path.lstrip("/")
            folders += [inner, *(parent for parent in inner.parents if parent.is_relative_to(mount))]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def cgroup_core_quota(system: Path = SYSTEM) -> float | None:
    """Cores' worth of time that the cgroups grant, such as 1.5; None without a limit."""
    quotas = []
    for folder in cgroup_folders("cpu", system):
        joint = read(folder / "cpu.max")
        if joint is not None:
            quota, period = joint.split()
        else:
            quota = read(folder / "cpu.cfs_quota_us") or "-1"
            period = read(folder / "cpu.cfs_period_us") or "100000"
        if quota.strip() not in ("max", "-1"):
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def cgroup_memory(system: Path = SYSTEM) -> list[tuple[int, int]]:
    """(limit, used) in bytes for each cgroup that limits this process's memory.

    Cached file pages that the kernel gives back on demand do not count as used.
    """
    found = []
    for folder in cgroup_folders("memory", system):
        limit = read(folder / "memory.max") or read(folder / "memory.limit_in_bytes") or "max"
        if limit.strip() == "max" or int(limit) >= 1 << 60:  # version 1 spells "no limit" as a huge number
            continue
        used = int(read(folder / "memory.current") or read(folder / "memory.usage_in_bytes") or 0)
        statistics = dict(
            line.split(" ", 1) for line in (read(folder / "memory.stat") or "").splitlines() if " " in line
        )
        cached = int(statistics.get("total_inactive_file", statistics.get("inactive_file", 0)))
        found.append((int(limit), max(0, used - cached)))
    return found


def torch_build() -> dict[str, Any]:
    """Version, build (cpu, cuda 12.8 …), threads, BLAS and vector kernels of the installed torch."""
    import torch

    build = "cpu"
    versions = {"cuda": torch.version.cuda, "rocm": torch.version.hip, "xpu": torch.version.xpu}
    for name, version in versions.items():
        if version:
            build = f"{name} {version}"
    settings = torch.__config__.show()
    blas = settings.partition("BLAS_INFO=")[2].partition(",")[0] or "unknown"
    return {
        "version": str(torch.__version__),
        "build": build,
        "threads": torch.get_num_threads(),
        "blas": blas,
        "onednn": torch.backends.mkldnn.is_available(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
    }


def accelerators() -> list[dict[str, Any]]:
    """The devices beside the processor that torch can use; `memory` in bytes, `capability` for CUDA."""
    import torch

    found: list[dict[str, Any]] = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            capability = None if torch.version.hip else [device.major, device.minor]
            found.append(accelerator("cuda", index, device.name, device.total_memory, capability))
    if torch.xpu.is_available():
        for index in range(torch.xpu.device_count()):
            graphics = torch.xpu.get_device_properties(index)
            found.append(accelerator("xpu", index, graphics.name, graphics.total_memory))
    if torch.backends.mps.is_available():
        found.append(accelerator("mps", 0, "Apple GPU", torch.mps.recommended_max_memory()))
    return found


def accelerator(
    kind: str, index: int, name: str, memory: int, capability: list[int] | None = None
) -> dict[str, Any]:
    """One entry of `accelerators`."""
    return {"kind": kind, "index": index, "name": name, "memory": memory, "capability": capability}


def compiler() -> dict[str, Any]:
    """Whether torch.compile can build kernels for the processor: a C++ compiler and Python's headers."""
    wanted = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    path = shutil.which(wanted)
    if path is None:
        return {"found": False, "detail": f"no C++ compiler: {wanted} is not on the PATH"}
    if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return {"found": False, "detail": f"{path}, but the headers of Python (Python.h) are not installed"}
    return {"found": True, "detail": path}
