"""The last level: packets of the model image, and the way back for verification."""

import math

import numpy as np

from compiler.errors import CompileError
from compiler.ir import Layer, Program, Tiles
from isa import bits, checked
from isa.bits import WORD_BITS
from isa.fixed import ChannelParameters
from isa.geometry import Geometry
from isa.image import CHANNEL_WORDS, LAYER_TYPES, Image, ImageInfo, Packet, PacketType, build
from isa.layer import CHANNEL, LAYER, LayerKind


def pack(program: Program) -> Image:
    """The image of a described program."""
    network = program.network
    exponent = math.log2(program.logit_lsb)
    assert exponent == int(exponent), "the logits' LSB is a power of two"
    info = ImageInfo(
        name=network.name,
        input_shape=(*network.input_size, network.input_channels),
        classes=network.classes,
        layers=len(program.layers),
        logit_exponent=int(exponent),
    )
    geometry = program.geometry
    packets = [packet for layer in program.layers for packet in layer_packets(layer, geometry)]
    try:
        return build(geometry, info, packets)
    except ValueError as error:
        raise CompileError(str(error)) from error


def layer_packets(layer: Layer, geometry: Geometry) -> list[Packet]:
    """LAYER, STEM or AHEAD, then PARAMS and WEIGHTS of every tile."""
    assert layer.descriptor is not None
    packets = [Packet(layer.packet, checked.to_words(LAYER, layer.descriptor))]
    if layer.tiles is not None:
        for tile in range(layer.tiles.count):
            packets.append(Packet(PacketType.PARAMS, pack_params(layer.tiles, tile)))
            packets.append(Packet(PacketType.WEIGHTS, pack_weights(layer, geometry, tile)))
    return packets


def pack_params(tiles: Tiles, tile: int) -> list[int]:
    words = []
    for channel in range(tiles.weights.shape[3]):
        values = {name: int(getattr(tiles.params, name)[tile, channel]) for name in CHANNEL.members}
        words += checked.to_words(CHANNEL, values)
    return words


def pack_weights(layer: Layer, geometry: Geometry, tile: int) -> list[int]:
    """Sets in order of the steps; every word of P bits has P/M bits of each row."""
    assert layer.tiles is not None
    weights = layer.tiles.weights[tile]
    if layer.kind is not LayerKind.BINARY:
        weights = np.unpackbits(weights.astype(np.int8).view(np.uint8), axis=3, bitorder="little")
    rows = weights.reshape(
        -1, geometry.lanes, weights.shape[3] // geometry.row_bits, geometry.row_bits
    )
    return bits.pack(rows.swapaxes(1, 2), 1, WORD_BITS)


def unpack(
    image: Image, geometry: Geometry
) -> list[tuple[PacketType, dict[str, int], Tiles | None]]:
    """Packet, descriptor and tiles of every layer of an image."""
    layers: list[tuple[PacketType, dict[str, int], Tiles | None]] = []
    packets = iter(image.packets)
    for packet in packets:
        assert packet.type in LAYER_TYPES
        fields = checked.from_words(LAYER, packet.payload)
        pairs = [(next(packets), next(packets)) for _ in range(fields["tiles"])]
        tiles = _unpack_tiles(fields, pairs, geometry) if pairs else None
        layers.append((packet.type, fields, tiles))
    return layers


def _unpack_tiles(
    fields: dict[str, int], pairs: list[tuple[Packet, Packet]], geometry: Geometry
) -> Tiles:
    kind, lanes = LayerKind(fields["kind"]), geometry.lanes
    steps = fields["kernel_rows"], fields["inner"]
    weights, channels = [], []
    for params, packet in pairs:
        assert (params.type, packet.type) == (PacketType.PARAMS, PacketType.WEIGHTS)
        count = math.prod(steps) * geometry.set_bits(kind)
        values = bits.unpack(packet.payload, 1, WORD_BITS, count, signed=False)
        words = values.reshape(*steps, -1, lanes, geometry.row_bits)
        rows = words.swapaxes(2, 3).reshape(*steps, lanes, -1)
        if kind is not LayerKind.BINARY:
            packed = np.packbits(rows.astype(np.uint8), axis=3, bitorder="little")
            rows = packed.view(np.int8).astype(np.int64)
        weights.append(rows)
        channels.append(
            [
                checked.from_words(CHANNEL, params.payload[i : i + CHANNEL_WORDS])
                for i in range(0, len(params.payload), CHANNEL_WORDS)
            ]
        )
    arrays = {
        name: np.array([[channel[name] for channel in tile] for tile in channels])
        for name in CHANNEL.members
    }
    return Tiles(np.stack(weights), ChannelParameters(**arrays), fields["last_groups"])
