"""The golden model's program: an encoded image taken apart into layers, as the gateware would.

Nothing of the compiler is known here: packets, descriptors, parameters and weight sets are read by
the rules of `isa.image` and `isa.layer` alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from isa import checked, image
from isa.fixed import ChannelParameters, IntArray, Shifts
from isa.geometry import Geometry
from isa.image import CHANNEL_WORDS, LAYER_TYPES, LAYER_WORDS, Image, Packet, PacketType
from isa.layer import CHANNEL, LAYER, LayerKind

CONVOLUTIONS = (LayerKind.STEM, LayerKind.BINARY, LayerKind.POINTWISE, LayerKind.CLASSIFIER)


Weights = npt.NDArray[np.integer]


class GoldenError(ValueError):
    """An image whose schedule cannot be executed; the message names the layer."""


@dataclass(frozen=True)
class Layer:
    """One layer of an image.

    ``fields`` are those of `isa.layer.LAYER`, ``packet`` the type of the packet that brought them,
    which tells when the layer is computed. Convolutions have ``params``, arrays of shape
    (tiles * M,), and ``weights``: bits of shape (tiles, steps, M, K) for a binary layer, int8
    values of shape (tiles, steps, M, S) for a stem and (tiles, steps, M, T) for the others. Pool
    and mean have neither.
    """

    index: int
    kind: LayerKind
    fields: dict[str, int]
    packet: PacketType = PacketType.LAYER
    params: ChannelParameters | None = None
    weights: Weights | None = None

    @property
    def name(self) -> str:
        return f"Layer {self.index} ({self.kind.name.lower()})"

    @property
    def is_convolution(self) -> bool:
        return self.kind in CONVOLUTIONS

    @property
    def steps(self) -> int:
        return self.fields["kernel_rows"] * self.fields["inner"]

    @property
    def pixels(self) -> int:
        return self.fields["out_width"] * self.fields["out_height"]

    @property
    def shifts(self) -> Shifts:
        return Shifts(self.fields["a"], self.fields["s"], self.fields["k"])

    def words(self, geometry: Geometry) -> int:
        """Words of L channels that a pixel of the result has."""
        if not self.is_convolution:
            return self.fields["inner"]
        return (self.fields["tiles"] - 1) * geometry.groups + self.fields["last_groups"]

    def require(self, rule: bool, text: str, found: object) -> None:
        """Raises GoldenError "<layer> must <text>, not <found>" unless ``rule``."""
        if not rule:
            raise GoldenError(f"{self.name} must {text}, not {found}")


def decode_image(geometry: Geometry, source: Image) -> tuple[Layer, ...]:
    """The layers of an image. Raises GoldenError for packets or fields that make no program."""
    layers: list[Layer] = []
    packets = iter(source.packets)
    for packet in packets:
        if packet.type not in LAYER_TYPES:
            raise GoldenError(f"Layer {len(layers)} must begin with LAYER, not {packet.type.name}")
        layers.append(_layer(geometry, len(layers), packet, packets))
    if len(layers) != source.info.layers:
        raise GoldenError(f"Image must have {source.info.layers} layers, not {len(layers)}")
    if not layers or layers[-1].kind is not LayerKind.CLASSIFIER:
        raise GoldenError("Image must end with a classifier")
    for layer in layers:
        if layer.kind is LayerKind.CLASSIFIER:
            layer.require(
                layer.fields["classes"] == source.info.classes,
                f"have the header's {source.info.classes} classes",
                layer.fields["classes"],
            )
            last = layer is layers[-1]
            layer.require(
                bool(layer.fields["ends"]) == last,
                f"{'' if last else 'not '}end the classifier",
                layer.fields["ends"],
            )
    return tuple(layers)


def _layer(geometry: Geometry, index: int, packet: Packet, packets: Iterator[Packet]) -> Layer:
    if len(packet.payload) != LAYER_WORDS:
        raise GoldenError(
            f"Layer {index} must have a descriptor of {LAYER_WORDS} words, not "
            f"{len(packet.payload)}"
        )
    try:
        fields = checked.from_words(LAYER, packet.payload)
        kind = LayerKind(fields["kind"])
    except ValueError as error:
        raise GoldenError(f"Layer {index} must have a valid descriptor: {error}") from error
    layer = Layer(index, kind, fields, packet.type)
    layer.require(
        packet.type is PacketType.LAYER or kind is LayerKind.STEM,
        "be a stem to be computed ahead",
        packet.type.name,
    )
    layer.require(layer.pixels > 0, "have a map of at least one pixel", layer.pixels)
    layer.require(fields["inner"] > 0, "have at least one step or word", fields["inner"])
    if not layer.is_convolution:
        return layer
    _check_loops(geometry, layer)
    params, weights = [], []
    for tile in range(fields["tiles"]):
        params.append(_params(geometry, layer, _next(layer, tile, packets, "PARAMS")))
        weights.append(_weights(geometry, layer, _next(layer, tile, packets, "WEIGHTS")))
    table = np.concatenate(params)
    return replace(layer, params=ChannelParameters(*table.T), weights=np.stack(weights))


def _check_loops(geometry: Geometry, layer: Layer) -> None:
    fields = layer.fields
    block, last = fields["block"], fields["last_block"]
    layer.require(fields["tiles"] > 0, "have at least one tile", fields["tiles"])
    layer.require(layer.steps > 0, "have at least one step", layer.steps)
    layer.require(
        1 <= last <= block <= geometry.BLOCK_PIXELS,
        f"have blocks of 1 to {geometry.BLOCK_PIXELS} pixels, the last one no larger",
        f"{block} and {last}",
    )
    covered = (fields["blocks"] - 1) * block + last
    layer.require(covered == layer.pixels, f"cover {layer.pixels} pixels with its blocks", covered)
    layer.require(
        1 <= fields["last_groups"] <= geometry.groups,
        f"have 1 to {geometry.groups} groups in its last tile",
        fields["last_groups"],
    )
    # A tile's sets are kept in the ring and used again for every block.
    words = layer.steps * geometry.set_bits(layer.kind) // geometry.port_bits
    layer.require(
        fields["blocks"] == 1 or words <= geometry.ring_words,
        f"keep a tile's weights in the ring of {geometry.ring_words} words",
        words,
    )


def _next(layer: Layer, tile: int, packets: Iterator[Packet], kind: str) -> list[int]:
    packet = next(packets, None)
    found = "the end of the image" if packet is None else packet.type.name
    layer.require(found == kind, f"go on with {kind} of tile {tile}", found)
    assert packet is not None
    return packet.payload


def _params(geometry: Geometry, layer: Layer, payload: list[int]) -> IntArray:
    """(M, 5), in the order of `ChannelParameters`."""
    expected = geometry.lanes * CHANNEL_WORDS
    layer.require(len(payload) == expected, f"have PARAMS of {expected} words", len(payload))
    rows = []
    for start in range(0, expected, CHANNEL_WORDS):
        try:
            values = checked.from_words(CHANNEL, payload[start : start + CHANNEL_WORDS])
        except ValueError as error:
            raise GoldenError(f"{layer.name} must have valid PARAMS: {error}") from error
        rows.append([values[name] for name in ("m", "n", "slope", "bias2", "threshold")])
    return np.array(rows, np.int64)


def _weights(geometry: Geometry, layer: Layer, payload: list[int]) -> Weights:
    expected = layer.steps * geometry.set_bits(layer.kind) // 32
    layer.require(len(payload) == expected, f"have WEIGHTS of {expected} words", len(payload))
    raw = np.frombuffer(image.words_to_bytes(payload), np.uint8)
    flat = np.unpackbits(raw, bitorder="little")
    words = flat.reshape(layer.steps, -1, geometry.lanes, geometry.port_bits // geometry.lanes)
    rows = words.transpose(0, 2, 1, 3).reshape(layer.steps, geometry.lanes, -1)
    if layer.kind is LayerKind.BINARY:
        return rows
    return np.packbits(rows, axis=2, bitorder="little").view(np.int8)
