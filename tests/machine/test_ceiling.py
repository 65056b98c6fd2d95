"""Ceilings, their cache, and what precision they lead to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from groundup.errors import CATALOGUE, GroundupError
from groundup.machine import ceiling as room
from groundup.machine.ceiling import Bfloat16Facts, choose_precision, remember, resolve_device

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def nothing_measured_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_measured", {})


def test_the_fastest_of_all_sizes_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_microsecond(work: Callable[[], object], seconds: float, device: torch.device) -> float:
        work()
        return 1e-6

    monkeypatch.setattr(room, "fastest", one_microsecond)
    assert room.measure_matrix_products(CPU, torch.float32, 0.3, (8, 256)) == pytest.approx(2 * 256**3 / 1e-6)
    assert room.measure_matrix_products(CPU, torch.float32, 0.3, (256, 8)) == pytest.approx(2 * 256**3 / 1e-6)


def test_a_real_product_has_a_believable_speed() -> None:
    assert 1e5 < room.measure_matrix_products(CPU, torch.float32, 0.05, (64,)) < 1e16


def test_a_measurement_without_time_still_measures_the_first_size() -> None:
    assert room.measure_matrix_products(CPU, torch.float32, 0.0, (16, 2048)) > 0


def test_bandwidth_is_plausible() -> None:
    assert 1e7 < room.memory_bandwidth("cpu", 0.02, size=1 << 20) < 1e14


def test_measuring_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    room.matrix_ceiling("cpu", torch.float32, 0.01)
    assert torch.equal(before, torch.get_rng_state())


def test_a_ceiling_is_measured_once_per_process() -> None:
    assert room.matrix_ceiling("cpu", seconds=0.01) == room.matrix_ceiling("cpu", seconds=0.01)


def test_the_cache_answers_the_next_process_and_keeps_the_highest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert remember("k", lambda: 5.0, tmp_path, fresh=False) == 5.0
    monkeypatch.setattr(room, "_measured", {})
    assert remember("k", lambda: 1.0, tmp_path, fresh=False) == 5.0
    assert remember("k", lambda: 3.0, tmp_path, fresh=True) == 3.0
    assert remember("k", lambda: 1.0, tmp_path, fresh=False) == 5.0
    assert json.loads(room.cache_file(tmp_path).read_text(encoding="utf-8")) == {"k": 5.0}
    assert [path.name for path in tmp_path.iterdir()] == [room.cache_file(tmp_path).name]


@pytest.mark.parametrize("damaged", ["", "{", "[1]", '{"k": "fast"}', '{"k": -1}', "\x00"])
def test_a_damaged_cache_is_measured_anew(tmp_path: Path, damaged: str) -> None:
    room.cache_file(tmp_path).write_text(damaged, encoding="utf-8")
    assert remember("k", lambda: 2.0, tmp_path, fresh=False) == 2.0


def test_U5_a_cache_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    assert remember("k", lambda: 2.0, tmp_path / "file" / "cache", fresh=False) == 2.0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert room.cache_folder() == tmp_path / "groundup"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for ignored in ("relative/path", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert room.cache_folder() == tmp_path / "home" / ".cache" / "groundup"


@pytest.mark.parametrize(
    ("facts", "name", "word"),
    [
        (Bfloat16Facts("", 0.0), "float32", "no instructions"),
        (Bfloat16Facts("AMX-BF16", 6.2), "bfloat16", "6.2 times"),
        (Bfloat16Facts("AVX512-BF16", 0.4), "float32", "0.4 times"),
        (Bfloat16Facts("CUDA capability 9.0", float("nan")), "float32", "nan"),
    ],
)
def test_auto_precision_follows_hardware_and_measurement(facts: Bfloat16Facts, name: str, word: str) -> None:
    chosen = choose_precision("auto", "cpu", facts=facts)
    assert chosen.name == name and word in chosen.reason


@pytest.mark.parametrize("wish", ["float32", "bfloat16"])
def test_an_explicit_precision_is_granted_without_measuring(
    wish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "bfloat16_facts", lambda *_, **__: pytest.fail("measured"))
    assert choose_precision(wish, "cpu").name == wish


def test_facts_of_bfloat16_need_both_the_hardware_and_the_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = {torch.float32: 100.0, torch.bfloat16: 90.0}
    monkeypatch.setattr(room, "matrix_ceiling", lambda device, dtype, seconds, cache: speeds[dtype])
    monkeypatch.setattr(room, "processor", lambda: ("old", ["AVX2"]))
    assert not room.bfloat16_facts("cpu").hardware
    monkeypatch.setattr(room, "processor", lambda: ("new", ["AVX2", "AMX-BF16"]))
    assert room.bfloat16_facts("cpu") == Bfloat16Facts("AMX-BF16", 0.9)


def test_an_unknown_precision_is_refused_in_five_parts() -> None:
    with pytest.raises(GroundupError) as caught:
        choose_precision("float16", "cpu")
    error = caught.value
    assert error.code == "E-MACHINE-002" in CATALOGUE and error.exit_code == 2
    assert error.what and error.where and error.why and "bfloat16" in error.fix


def test_devices_are_those_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "accelerators", list)
    assert resolve_device() == CPU == resolve_device("cpu")
    with pytest.raises(GroundupError) as caught:
        resolve_device("cuda:7\x1b[31m")
    error = caught.value
    assert error.code == "E-MACHINE-001" in CATALOGUE and error.exit_code == 2
    assert "\x1b" not in str(error) and "cpu" in error.where and error.why and error.fix
    two = [{"kind": "cuda", "index": 0}, {"kind": "cuda", "index": 1}]
    monkeypatch.setattr(room, "accelerators", lambda: two)
    assert resolve_device() == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
