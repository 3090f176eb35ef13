"""How weights become binary: one module a method, chosen by name.

AdamBNN (Liu et al., arXiv 2106.11309) has no weights of its own: it is ReActNet's with a weight
decay of 5e-6 in step 1 and none in step 2, the recipe ``adambnn``.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from rbonn_train.methods.base import BinaryConv2d
from rbonn_train.methods.birealnet import BiRealConv2d
from rbonn_train.methods.bop import BopConv2d, Order
from rbonn_train.methods.plain import PlainConv2d
from rbonn_train.methods.rbonn import Mode, RBONNConv2d
from rbonn_train.methods.reactnet import ReActConv2d
from rbonn_train.methods.recu import ReCUConv2d
from rbonn_train.methods.xnor import XNORConv2d

__all__ = ["METHODS", "REAL", "LayerMaker", "Method", "layer_maker"]

REAL = "real"
"""The name of the network of the same shape without anything binary: a teacher, no method."""


class LayerMaker(Protocol):
    """Makes the binary convolution of a block."""

    def __call__(self, in_channels: int, out_channels: int, *, stride: int) -> BinaryConv2d: ...


@dataclass(frozen=True)
class Method:
    """A layer, the arguments of it that the name stands for, and those without effect then."""

    layer: type[BinaryConv2d]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    unused: tuple[str, ...] = ()

    @property
    def options(self) -> dict[str, float]:
        """The numbers that can be chosen, with their defaults."""
        parameters = inspect.signature(self.layer).parameters.values()
        return {
            p.name: p.default
            for p in parameters
            if p.kind is p.KEYWORD_ONLY and p.name not in ("stride", *self.fixed, *self.unused)
        }


METHODS: Mapping[str, Method] = {
    "none": Method(RBONNConv2d, {"mode": Mode.NONE}, unused=("tau",)),
    "released": Method(RBONNConv2d, {"mode": Mode.RELEASED}),
    "released-rankfix": Method(RBONNConv2d, {"mode": Mode.RANKFIX}),
    "paper": Method(RBONNConv2d, {"mode": Mode.PAPER}),
    "plain": Method(PlainConv2d),
    "xnor": Method(XNORConv2d),
    "birealnet": Method(BiRealConv2d),
    "reactnet": Method(ReActConv2d),
    "recu": Method(ReCUConv2d),
    "bop": Method(BopConv2d, {"order": Order.FIRST}, unused=("sigma",)),
    "bop2-biased": Method(BopConv2d, {"order": Order.BIASED}),
    "bop2": Method(BopConv2d, {"order": Order.CORRECTED}),
}


def layer_maker(name: str, **options: float) -> LayerMaker:
    """The layers of a method. Raises ValueError for an unknown method or option."""
    if name not in METHODS:
        raise ValueError(f"Method must be one of {', '.join(METHODS)}, not {name!r}")
    method = METHODS[name]
    if unknown := sorted(set(options) - set(method.options)):
        known = ", ".join(method.options) or "none"
        raise ValueError(f"Options of method {name} must be among: {known}; not {unknown[0]!r}")
    arguments: dict[str, Any] = {**method.fixed, **options}
    return partial(method.layer, **arguments)
