"""Every level computes the same: a test frame goes through each, and all results must be equal."""

from collections.abc import Sequence
from dataclasses import fields

import numpy as np

from compiler.evaluate import Outcome, evaluate_folded, evaluate_program, verification_frames
from compiler.ir import Layer, Program
from compiler.machine import Described, evaluate_layers
from compiler.pack import unpack
from isa.folding import FoldedNetwork
from isa.image import Image, parse


class VerificationError(Exception):
    """A pass changed what the program computes: a bug of the compiler, never of its user."""


class Verifier:
    """Holds frames and what the folded network makes of them."""

    def __init__(self, folded: FoldedNetwork) -> None:
        network = folded.network
        self._frames = verification_frames((*network.input_size, network.input_channels))
        self._expected = [evaluate_folded(folded, frame) for frame in self._frames]
        self._checked: Program | None = None

    def check(self, level: str, program: Program) -> None:
        """Evaluates the program, unless it computes what the last one did in the same way; raises
        VerificationError naming level and layer."""
        if self._checked is None or not _alike(self._checked, program):
            self._compare(level, evaluate_program(program, self._frames))
            self._checked = program
        if all(layer.descriptor is not None for layer in program.layers):
            layers = [
                Described(
                    layer.name,
                    layer.out_channels,
                    layer.packet,
                    layer.descriptor or {},
                    layer.tiles,
                )
                for layer in program.layers
            ]
            outcomes = evaluate_layers(layers, program.geometry, self._frames)
            self._compare(f"{level} (descriptors)", outcomes)

    def check_image(self, level: str, image: Image, program: Program) -> None:
        """The same for the image's bytes."""
        found = unpack(parse(image.to_bytes(), program.geometry), program.geometry)
        layers = [
            Described(layer.name, layer.out_channels, *parts)
            for layer, parts in zip(program.layers, found, strict=True)
        ]
        self._compare(level, evaluate_layers(layers, program.geometry, self._frames))

    def _compare(self, level: str, outcomes: Sequence[Outcome]) -> None:
        for number, outcome in enumerate(outcomes):
            frame = " of the second frame" if number else ""
            self._compare_frame(level, frame, outcome, self._expected[number])

    @staticmethod
    def _compare_frame(level: str, frame: str, outcome: Outcome, wanted: Outcome) -> None:
        if list(outcome) != list(wanted):
            raise VerificationError(
                f"Level {level}: results{frame} must be {list(wanted)}, not {list(outcome)}"
            )
        for name, expected in wanted.items():
            found = outcome[name]
            if found.shape != expected.shape:
                raise VerificationError(
                    f"Level {level}: {name}{frame} must have shape {expected.shape}, "
                    f"not {found.shape}"
                )
            if (differences := np.argwhere(found != expected)).size:
                first = tuple(int(i) for i in differences[0])
                raise VerificationError(
                    f"Level {level}: {name}{frame} must be {expected[first]} at {first}, not "
                    f"{found[first]}"
                )


def _alike(first: Program, second: Program) -> bool:
    """Whether two programs differ in nothing that :func:`evaluate_program` looks at."""
    ignored = ("block", "descriptor")
    return len(first.layers) == len(second.layers) and all(
        getattr(one, field.name) is getattr(other, field.name)
        for one, other in zip(first.layers, second.layers, strict=True)
        for field in fields(Layer)
        if field.name not in ignored
    )
