import dataclasses

import numpy as np
import pytest

from compiler.errors import CompileError
from compiler.importer import import_checkpoint, import_tensors
from isa.checkpoint import write_checkpoint
from tests.networks import random_checkpoint, small_network

INFO, TENSORS = random_checkpoint(small_network("plain"))


def test_reads_what_was_written(tmp_path):
    path = tmp_path / "plain.safetensors"
    write_checkpoint(path, INFO, TENSORS)
    imported = import_checkpoint(path)
    assert imported.info == INFO
    assert set(imported.tensors) == set(TENSORS)
    assert all((imported.tensors[name] == TENSORS[name]).all() for name in TENSORS)


def test_missing_file(tmp_path):
    path = tmp_path / "none.safetensors"
    with pytest.raises(CompileError) as error:
        import_checkpoint(path)
    assert str(error.value) == f"Checkpoint must be an existing file, not {path}"


def test_uncalibrated_checkpoint_is_refused():
    with pytest.raises(CompileError) as error:
        import_tensors(dataclasses.replace(INFO, quantisation=None), TENSORS)
    assert str(error.value) == (
        "Checkpoint must be calibrated, not without scales of the residual stream; "
        "run `rbonn calibrate`"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fc.bias": None}, "Tensors must be complete; missing: fc.bias"),
        ({"fc.extra": np.zeros(1)}, "Tensors must belong to the network; extra: fc.extra"),
        ({"fc.bias": np.zeros(4)}, "Tensor fc.bias must have shape (3,), not (4,)"),
        (
            {"fc.bias": np.full(3, np.nan)},
            "Tensor fc.bias must be finite, not NaN or infinite in 3 of 3 values",
        ),
    ],
)
def test_wrong_tensors(change, message):
    tensors = {k: v for k, v in {**TENSORS, **change}.items() if v is not None}
    with pytest.raises(CompileError) as error:
        import_tensors(INFO, tensors)
    assert str(error.value) == message
