"""Every level computes the same: a test frame goes through each, and all results must be equal."""

import numpy as np

from compiler.evaluate import Outcome, evaluate_folded, evaluate_program, verification_frame
from compiler.ir import Program
from compiler.machine import evaluate_layers
from compiler.pack import unpack
from isa.folding import FoldedNetwork
from isa.image import Image, parse


class VerificationError(Exception):
    """A pass changed what the program computes: a bug of the compiler, never of its user."""


class Verifier:
    """Holds a frame and what the folded network makes of it."""

    def __init__(self, folded: FoldedNetwork) -> None:
        network = folded.network
        self._frame = verification_frame((*network.input_size, network.input_channels))
        self._expected = evaluate_folded(folded, self._frame)

    def check(self, level: str, program: Program) -> None:
        """Evaluates the program; raises VerificationError naming level and layer."""
        self._compare(level, evaluate_program(program, self._frame))
        if all(layer.descriptor is not None for layer in program.layers):
            layers = [
                (layer.name, layer.descriptor or {}, layer.tiles, layer.out_channels)
                for layer in program.layers
            ]
            outcome = evaluate_layers(layers, program.geometry, self._frame)
            self._compare(f"{level} (descriptors)", outcome)

    def check_image(self, level: str, image: Image, program: Program) -> None:
        """The same for the image's bytes."""
        parsed = parse(image.to_bytes(), program.geometry)
        layers = [
            (layer.name, fields, tiles, layer.out_channels)
            for layer, (fields, tiles) in zip(
                program.layers, unpack(parsed, program.geometry), strict=True
            )
        ]
        self._compare(level, evaluate_layers(layers, program.geometry, self._frame))

    def _compare(self, level: str, outcome: Outcome) -> None:
        if list(outcome) != list(self._expected):
            raise VerificationError(
                f"Level {level}: results must be {list(self._expected)}, not {list(outcome)}"
            )
        for name, expected in self._expected.items():
            found = outcome[name]
            if found.shape != expected.shape:
                raise VerificationError(
                    f"Level {level}: {name} must have shape {expected.shape}, not {found.shape}"
                )
            if (differences := np.argwhere(found != expected)).size:
                first = tuple(int(i) for i in differences[0])
                raise VerificationError(
                    f"Level {level}: {name} must be {expected[first]} at {first}, not "
                    f"{found[first]}"
                )
