"""State files that cannot be used, random states, and signals."""

import os
import pickle
import random
import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from rbonn_train.state import (
    SUFFIX,
    Interrupts,
    StateError,
    find_state,
    random_states,
    read_state,
    restore_random_states,
    seed_everything,
    write_state,
)


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / f"a{SUFFIX}"
    with pytest.raises(StateError) as error:
        read_state(path)
    assert str(error.value) == f"Training state must be an existing file, not {path}"
    write_state(path, {"model": {"a": torch.zeros(100)}})
    whole = path.read_bytes()
    for broken in (b"", b"hello", whole[:-40], whole[: len(whole) // 2]):
        path.write_bytes(broken)
        with pytest.raises(StateError, match=f"Training state {path} must be readable, not damag"):
            read_state(path)
    torch.save([1], path)
    with pytest.raises(StateError, match="must have format 1, not None"):
        read_state(path)


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch harm",)


def test_code_in_a_file_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"a{SUFFIX}"
    torch.save({"format": 1, "evil": Evil()}, path)
    with pytest.raises(StateError):
        read_state(path)
    path.write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(StateError):
        read_state(path)
    assert not (tmp_path / "harm").exists()


def test_finding_the_run_of_a_folder(tmp_path: Path) -> None:
    with pytest.raises(StateError) as error:
        find_state(tmp_path)
    assert str(error.value) == f"Folder {tmp_path} must hold an interrupted run (*.state.pt)"
    for name in ("a", "b"):
        (tmp_path / f"{name}{SUFFIX}").touch()
    assert find_state(tmp_path, "b").name == "b.state.pt"
    with pytest.raises(StateError, match=r"holds runs of a, b: choose one with --model"):
        find_state(tmp_path)
    with pytest.raises(StateError, match=r"must hold an interrupted run \(c\.state\.pt\)"):
        find_state(tmp_path, "c")


def draw(own: torch.Generator) -> list[float]:
    return [
        torch.rand(1, generator=own).item(),
        torch.rand(1).item(),
        np.random.rand(),  # noqa: NPY002
        random.random(),
    ]


def test_every_generator_is_restored(tmp_path: Path) -> None:
    own = torch.Generator().manual_seed(0)
    seed_everything(0)
    draw(own)
    path = tmp_path / f"a{SUFFIX}"
    write_state(path, {"model": {}, "random": random_states(own)})
    expected = draw(own)
    assert draw(own) != expected
    restore_random_states(read_state(path)["random"], own)
    assert draw(own) == expected


@pytest.mark.parametrize("devices", [0, 1, 2])
def test_generators_of_devices_that_are_not_here_are_left_out(
    devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = torch.Generator().manual_seed(0)
    restored: list[torch.Tensor] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", restored.extend)
    state = torch.zeros(16, dtype=torch.uint8)
    restore_random_states(random_states(own) | {"cuda": [state, state]}, own)
    assert len(restored) == devices


def test_a_state_of_a_device_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a{SUFFIX}"
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:7")
        write_state(path, {"model": {"a": torch.ones(3)}})
    value = read_state(path)["model"]["a"]
    assert value.device.type == "cpu"
    assert value.tolist() == [1, 1, 1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_the_second_interrupts(number: int) -> None:
    before = signal.getsignal(number)
    with Interrupts() as interrupts:
        assert not interrupts.requested
        os.kill(os.getpid(), number)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before
