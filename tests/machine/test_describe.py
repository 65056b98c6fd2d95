"""Reading the machine: processor files and container limits as other machines have them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.machine import describe as room

SERVER = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8481C
flags\t\t: fpu sse4_2 avx avx2 fma avx512f avx512_bf16 amx_bf16 avx512_vnni amx_tile amx_int8

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = """processor\t: 0
BogoMIPS\t: 50.00
Features\t: fp asimd asimddp sve i8mm bf16
CPU implementer\t: 0x41
CPU part\t: 0xd40
"""
APPLE = """hw.optional.neon: 1
hw.optional.arm.FEAT_BF16: 1
hw.optional.arm.FEAT_SME: 0
machdep.cpu.brand_string: Apple M2
"""
INTEL_MAC = """machdep.cpu.brand_string: Intel(R) Core(TM) i7
machdep.cpu.features: FPU SSE4.2 AVX1.0 FMA
machdep.cpu.leaf7_features: AVX2 BMI2
"""
MEMINFO = (
    "MemTotal:       16000000 kB\nMemFree:        1 kB\nMemAvailable:    8000000 kB\nHugePages_Total: 0\n"
)


def system(root: Path, files: dict[str, str]) -> Path:
    """A folder that looks like / of a Linux machine."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def test_cpuinfo_of_a_server_with_bfloat16_units() -> None:
    name, sets = room.parse_cpuinfo(SERVER)
    assert name == "Intel(R) Xeon(R) Platinum 8481C"
    assert {"AVX2", "AVX512F", "AVX512-VNNI", "AVX512-BF16", "AMX-BF16", "AMX-INT8"} <= set(sets)


def test_cpuinfo_of_arm_has_no_model_name() -> None:
    name, sets = room.parse_cpuinfo(ARM)
    assert name == "ARM processor 0x41/0xd40"
    assert sets == ["NEON", "DOTPROD", "I8MM", "ARM-BF16", "SVE"]


def test_cpuinfo_that_says_nothing_still_gives_a_name() -> None:
    name, sets = room.parse_cpuinfo("")
    assert name and sets == []


def test_sysctl_of_both_kinds_of_mac() -> None:
    assert room.parse_sysctl(APPLE) == ("Apple M2", ["NEON", "ARM-BF16"])
    assert room.parse_sysctl(INTEL_MAC) == ("Intel(R) Core(TM) i7", ["SSE4.2", "AVX", "FMA", "AVX2"])


def test_cgroup_v2_takes_the_tightest_parent(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        {
            "proc/self/cgroup": "0::/pod/worker\n",
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/cgroup.controllers": "cpu memory\n",
            "sys/fs/cgroup/pod/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/pod/worker/cpu.max": "max 100000\n",
            "sys/fs/cgroup/pod/memory.max": "4000000000\n",
            "sys/fs/cgroup/pod/memory.current": "1500000000\n",
            "sys/fs/cgroup/pod/memory.stat": "anon 1\ninactive_file 500000000\n",
            "sys/fs/cgroup/pod/worker/memory.max": "max\n",
        },
    )
    assert room.cgroup_core_quota(root) == 1.5
    assert room.memory(root) == {"total": 4_000_000_000, "available": 3_000_000_000}


def test_cgroup_v1_with_an_invisible_inner_path(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n",
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "2000000000\n",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": "2100000000\n",
            "sys/fs/cgroup/memory/memory.stat": "inactive_file 1\ntotal_inactive_file 0\n",
        },
    )
    assert room.cgroup_core_quota(root) == 0.5
    assert room.memory(root) == {"total": 2_000_000_000, "available": 0}
    if sys.platform == "linux":
        assert room.usable_cores(root) == 1


def test_no_limits_means_the_whole_machine(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/\n4:cpu:/\n0::/\n",
            "proc/meminfo": MEMINFO,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    assert room.cgroup_core_quota(root) is None
    assert room.memory(root) == {"total": 16_384_000_000, "available": 8_192_000_000}


def test_a_system_without_proc_is_still_measured(tmp_path: Path) -> None:
    found = room.memory(tmp_path)
    assert 0 < found["available"] <= found["total"]
    assert room.cgroup_core_quota(tmp_path) is None


def test_disk_of_a_folder_that_is_still_to_be_made(tmp_path: Path) -> None:
    assert room.disk(tmp_path / "a" / "b")["total"] == room.disk(tmp_path)["total"] > 0


def test_describe_is_plain_json_and_its_digest_names_the_kind_of_hardware() -> None:
    found = room.describe()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["cores"] >= 1 and found["torch"]["threads"] >= 1
    assert found["digest"] == room.hardware_digest(found | {"memory": {}, "disk": {}, "python": "9"})
    assert found["digest"] != room.hardware_digest(found | {"cores": found["cores"] + 1})


def test_compiler_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    answer = room.compiler()
    assert not answer["found"] and "no-such-compiler" in answer["detail"]


def test_looking_up_cores_and_memory_does_not_load_torch() -> None:
    program = (
        "import sys, groundup.machine.describe as d, groundup.machine.memory as m, groundup.cli.terminal;"
        "d.usable_cores(); d.memory(); d.processor(); m.peak_memory_bytes(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
