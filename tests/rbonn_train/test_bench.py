"""The cost of a training step is measured, and what it is compared with."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from host import cli
from host.numbers import kept_benches
from isa.network import Network
from rbonn_train import bench
from rbonn_train.bench import Case, make_step, measure, peak_kilobytes
from rbonn_train.methods import METHODS
from rbonn_train.methods.plain import PlainConv2d
from rbonn_train.methods.rbonn import RBONNConv2d
from rbonn_train.network import BinaryNetwork, RealConv2d


@pytest.mark.parametrize("method", [*METHODS, bench.REAL_WEIGHTS])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_every_method_has_a_step(network: Network, method: str, precision: str) -> None:
    step = make_step(network, method, Case(4, precision))
    step()
    step()


@pytest.mark.parametrize("batch", [4, 6])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("method", "layer"),
    [("paper", RBONNConv2d), (bench.PLAIN, PlainConv2d), (bench.REAL_WEIGHTS, RealConv2d)],
)
def test_the_model_is_the_method_s_and_sees_what_the_case_names(
    method: str, layer: type, precision: str, batch: int, network: Network,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    real, seen = BinaryNetwork.forward, []

    def forward(self: BinaryNetwork, images: Tensor) -> Tensor:
        logits = real(self, images)
        seen.append((type(self.binary_blocks()[0].conv), len(images), logits.dtype))
        return logits

    monkeypatch.setattr(BinaryNetwork, "forward", forward)
    make_step(network, method, Case(batch, precision))()
    assert seen == [(layer, batch, getattr(torch, precision))]


@pytest.mark.parametrize(("threads", "expected"), [(None, []), (3, [3])])
def test_threads_are_those_of_the_case(
    threads: int | None, expected: list[int], network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    make_step(network, "plain", Case(4, threads=threads))
    assert asked == expected


def test_ratios_are_of_one_run(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    times = {"paper": 0.3, bench.PLAIN: 0.2, bench.REAL_WEIGHTS: 0.1}
    peaks = {"paper": 3 << 10, bench.PLAIN: 2 << 10, bench.REAL_WEIGHTS: 2 << 10}
    asked: list[object] = []

    def seconds(network: Network, methods: list[str], case: Case, rounds: int) -> dict[str, float]:
        asked.append((methods, case, rounds))
        return times

    def peak_kilobytes(network: Network, method: str, case: Case) -> int:
        asked.append((method, case))
        return peaks[method]

    monkeypatch.setattr(bench, "seconds", seconds)
    monkeypatch.setattr(bench, "peak_kilobytes", peak_kilobytes)
    case = Case(4, "bfloat16")
    found = measure(network, "paper", case, rounds=7)
    methods = ["paper", bench.PLAIN, bench.REAL_WEIGHTS]
    assert asked == [(methods, case, 7), *((method, case) for method in methods)]
    assert found["train_step_ms"] == 300
    assert found["train_step_ratio"] == 1.5
    assert found["train_step_over_real"] == 3
    assert found["train_peak_mb"] == 3
    assert found["train_peak_ratio"] == 1.5
    assert (found["train_batch"], found["train_precision"]) == (4, "bfloat16")


def test_the_first_round_does_not_count(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], dict.fromkeys("ab", 0)

    def make(network: Network, method: str, case: Case) -> object:
        def step() -> None:
            calls[method] += 1
            clock[0] += {"a": [0, 3, 2], "b": [9, 5, 6]}[method][calls[method] - 1]

        return step

    monkeypatch.setattr(bench, "make_step", make)
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock[0])
    assert bench.seconds(network, ["a", "b"], Case(), 2) == {"a": 2, "b": 5}


def test_the_peak_is_that_of_a_process_of_its_own(network: Network) -> None:
    kept = torch.ones(200 << 18)  # 200 MB here must not count there
    small = peak_kilobytes(network, "plain", Case(4, threads=1))
    large = peak_kilobytes(network, "plain", Case(1024, threads=1))
    assert 50 << 10 < small < large - (10 << 10)
    assert kept[0] == 1


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def stand_in(network: Network, method: str, case: Case, *, rounds: int) -> dict[str, float]:
        asked.append((network.name, method, case, rounds))
        return dict.fromkeys(
            ("train_step_ms", "train_step_ratio", "train_step_over_real", "train_peak_mb",
             "train_peak_ratio"), 1.0,
        )  # fmt: skip

    monkeypatch.setattr(bench, "measure", stand_in)
    arguments = ["bench", "train", "--model", "tiny", "--method", "paper", "--batch", "32",
                 "--build", str(tmp_path)]  # fmt: skip
    out = tmp_path / "x.json"
    assert cli.main([*arguments, "--threads", "1", "--rounds", "3", "--json", str(out)]) == 0
    assert asked == [("tiny", "paper", Case(32, "float32", 1), 3)]
    result = json.loads(out.read_text())
    assert (result["train_step_ratio"], result["method"], result["threads"]) == (1.0, "paper", 1)
    assert kept_benches(tmp_path) == [result]
    assert (tmp_path / "bench" / "train-tiny-paper-32-float32.json").is_file()
