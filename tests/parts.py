"""Images whose layers come in parts, made by hand of those that the compiler makes without."""

import dataclasses

from isa import checked, image
from isa.geometry import Geometry
from isa.image import Image, Packet, PacketType
from isa.layer import LAYER, LayerKind

Fields = dict[str, int]
Tiles = list[tuple[Packet, Packet]]


def overlapped(source: Image, geometry: Geometry, *, rows: int, tiles: int = 1) -> Image:
    """The image with binary and pointwise layers in parts of at most ``tiles`` tiles, and the stem
    of the next frame, ``rows`` rows of its maps at a time, between the parts of the classifier:
    where nothing else is in the maps any more. The stem must have one tile and go by rows."""
    layers = list(_layers(source))
    stem, *body, classifier = layers
    done = [(PacketType.STEM, *stem)]
    for layer in body:
        done += [(PacketType.LAYER, *part) for part in _by_tiles(layer, geometry, tiles)]
    ahead = [(PacketType.AHEAD, *part) for part in _by_rows(stem, rows)]
    last = [(PacketType.LAYER, *part) for part in _by_tiles(classifier, geometry, 1)]
    while ahead or len(last) > 1:
        done += [*ahead[:1], *last[: 1 if len(last) > 1 else 0]]
        ahead, last = ahead[1:], last[1:] if len(last) > 1 else last
    packets = []
    for kind, fields, weights in [*done, *last]:
        packets.append(Packet(kind, checked.to_words(LAYER, fields)))
        packets += [packet for pair in weights for packet in pair]
    info = dataclasses.replace(source.info, layers=len(done) + 1)
    return image.build(geometry, info, packets)


def _layers(source: Image):
    """Fields and tiles of every layer."""
    fields, tiles = None, []
    for packet in source.packets:
        if packet.type is PacketType.LAYER:
            if fields is not None:
                yield fields, tiles
            fields, tiles = checked.from_words(LAYER, packet.payload), []
        elif packet.type is PacketType.PARAMS:
            params = packet
        else:
            tiles.append((params, packet))
    yield fields, tiles


def _by_rows(stem: tuple[Fields, Tiles], rows: int):
    fields, tiles = stem
    assert fields["tiles"] == 1
    assert fields["rows_ahead"]
    pool = 1 + fields["pooled"]
    stride, height, width = 1 + fields["stride2"], fields["out_height"], fields["out_width"]
    for start in range(0, height, rows * pool):
        count = min(rows * pool, height - start)
        blocks = -(-count * width // fields["block"])
        part = {
            "begins": int(start == 0),
            "ends": int(start + count == height),
            "first_row": start * stride,
            "src_base": start * stride * fields["src_row"],
            "out_height": count,
            "blocks": blocks,
            "last_block": count * width - (blocks - 1) * fields["block"],
            "dst_base": fields["dst_base"] + start // pool * fields["dst_row"],
            "bit_base": fields["bit_base"] + start // pool * (width // pool) * fields["bit_pixel"],
        }
        yield fields | part, tiles


def _by_tiles(layer: tuple[Fields, Tiles], geometry: Geometry, count: int):
    fields, tiles = layer
    kind = LayerKind(fields["kind"])
    if not tiles:
        yield layer
        return
    if kind is not LayerKind.CLASSIFIER:
        count = -(-count // geometry.sub_words) * geometry.sub_words
    for start in range(0, len(tiles), count):
        here = tiles[start : start + count]
        last = start + count >= len(tiles)
        part = {
            "tiles": len(here),
            "last_groups": fields["last_groups"] if last else geometry.groups,
            "dst_base": fields["dst_base"] + start * geometry.groups,
            "ends": int(last and kind is LayerKind.CLASSIFIER),
        }
        if fields["write_bits"]:
            part["bit_base"] = fields["bit_base"] + start // geometry.sub_words
        yield fields | part, here
