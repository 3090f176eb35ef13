"""What a simulation sees of the core, beside its results."""

from amaranth.lib import wiring
from amaranth.lib.wiring import Out

from hw.maps import feature_layout
from hw.perf import PERF
from isa.fixed import LOGIT_BITS, RESIDUAL_BITS
from isa.geometry import Geometry
from isa.layer import ADDRESS_BITS, SIZE_BITS, LayerKind


def trace_signature(geometry: Geometry) -> wiring.Signature:
    """Every write to a map, to compare with the golden model. Only a simulation connects it.

    ``layer_done`` goes with a layer's last write, which the sequencer hears of a cycle later; it,
    ``layer`` and ``kind`` with it, and ``frame_done`` come with ``perf``, `hw.perf.LATENCY` cycles
    late.
    """
    lanes = geometry.post_lanes
    return wiring.Signature(
        {
            "write_residual": Out(1),
            "residual_address": Out(ADDRESS_BITS),
            "residual": Out(lanes * RESIDUAL_BITS),
            "write_bits": Out(1),
            "bit_address": Out(ADDRESS_BITS),
            "sub_word": Out(8),
            "bits": Out(geometry.lanes),
            "write_feature": Out(1),
            "write_logits": Out(1),
            "word": Out(SIZE_BITS + 1),
            "feature": Out(feature_layout(lanes).size),
            "logits": Out(lanes * LOGIT_BITS),
            "layer_done": Out(1),
            "layer": Out(8),
            "kind": Out(LayerKind),
            "frame_done": Out(1),
            "perf": Out(PERF),
        }
    )
