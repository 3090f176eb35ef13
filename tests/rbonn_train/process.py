"""What each process of test_parallel.py does: `torchrun process.py OUT`.

Trains the same small network in every mode and writes what came out of process 0.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from isa.network import Network
from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset
from rbonn_train.loop import Trainer
from rbonn_train.parallel import joined
from rbonn_train.recipe import Recipe, Step

NETWORK = Network("pair", (8, 8), 1, 4, (6, 10), (1, 1), (0.3,), (0.35,))
RECIPE = Recipe(Step(1, 1e-2, 1e-3), Step(2, 1e-2), batch=16, quantised_epochs=1, shift=1)
MODES = ("none", "released", "released-rankfix", "paper", "recu", "bop2")
RECURRENT = ("released", "released-rankfix", "paper")
EXACT = ("released", "paper")  # once more, with exact epochs


def data() -> Dataset:
    rng = np.random.default_rng(1)
    return Dataset(rng.integers(0, 256, (64, 8, 8, 1), np.uint8), np.arange(64) % 4)


def train(out: Path) -> None:
    """In float64, so that the order of sums does not turn signs."""
    torch.set_default_dtype(torch.float64)
    try:
        with joined("cpu") as world:
            recipes = {mode: replace(RECIPE, method=mode, ema=0.5, clip=1.0) for mode in MODES}
            recipes |= {f"{mode}, exact": replace(recipes[mode], exact_epochs=1) for mode in EXACT}
            for mode, recipe in recipes.items():
                config = ModelConfig(NETWORK, recipe)
                run = Trainer(config, data(), data(), 3, out / mode, progress=False, world=world)
                run.run()
                if world.first:
                    average = {f"average.{k}": v for k, v in run.result.state_dict().items()}
                    torch.save(run.model.state_dict() | average, out / f"{mode}.pt")
    finally:
        torch.set_default_dtype(torch.float32)


if __name__ == "__main__":
    train(Path(sys.argv[1]))
