"""The core: from streams of descriptors, parameters, weights and input to logits. Only wires."""

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.array import mac_array, xnor_array
from hw.copies import copy
from hw.drain import Drain, Reducer, Writer
from hw.maps import READ_LATENCY, BitMaps, InputRing, WordMap, feature_layout
from hw.operands import MacOperand, residual_layout
from hw.perf import LATENCY, PERF, Perf
from hw.pool import Average, MaxPool
from hw.postprocess import PostProcess
from hw.resets import Parts
from hw.result import Result
from hw.sequencer import Sequencer
from hw.trace import trace_signature
from hw.walk import StepWalker
from hw.weights import WeightRing
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.layer import CHANNEL, LAYER, SIZE_BITS, LayerKind

#: The residual map's address comes from three units, and goes to a hundred memories.
RESIDUAL_LATENCY = READ_LATENCY + 1


class Core(wiring.Component):
    """The accelerator without its loader, registers and link.

    From ``start`` on descriptors, channel parameters and weights come from the loader; ``input``
    takes the bytes of a frame, four a word. ``frame_done`` pulses when a frame's logits and top-k
    can be read and ``frame_ok`` vouches for the frame's weights. ``perf`` feeds the perf counters,
    ``progress`` the watchdog. ``stream_busy`` and ``wait_stream`` are the loader's, to be counted
    with the rest. ``resets``: those of its parts, as `hw.resets` has them.
    """

    def __init__(self, *, geometry: Geometry, resets=()):
        self._geometry = geometry
        self._resets = resets
        self.result = Result(
            post_lanes=geometry.post_lanes, classes=geometry.classes, top_k=geometry.top_k
        )
        super().__init__(
            {
                "start": In(1),
                "descriptor": In(stream.Signature(LAYER)),
                "params": In(stream.Signature(CHANNEL)),
                "weights": In(stream.Signature(geometry.port_bits)),
                "input": In(stream.Signature(WORD_BITS)),
                "frame_ok": In(1),
                "stream_busy": In(1),
                "wait_stream": In(1),
                "frame_done": Out(1),
                "perf": Out(PERF),
                "progress": Out(1),
                "trace": Out(trace_signature(geometry)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        parts = Parts(m, self._resets)
        geometry = self._geometry
        lanes, post_lanes = geometry.lanes, geometry.post_lanes
        taps = {"taps": geometry.taps, "stem_taps": geometry.stem_taps}
        residual_shape = residual_layout(post_lanes)

        parts.sequencer = sequencer = Sequencer()
        parts.steps = steps = StepWalker(
            **taps, post_lanes=post_lanes, ready_latency=InputRing.READY_LATENCY
        )
        parts.reducer = reducer = Reducer()
        parts.bit_maps = bit_maps = BitMaps(
            word_bits=geometry.word_bits, lanes=lanes, depth=geometry.bit_words
        )
        parts.residual_map = residual_map = WordMap(
            shape=residual_shape, depth=geometry.residual_words
        )
        parts.input_ring = input_ring = InputRing(
            depth=geometry.input_bytes, stem_taps=geometry.stem_taps
        )
        parts.features = features = WordMap(
            shape=feature_layout(post_lanes), depth=-(-geometry.channels // post_lanes)
        )
        parts.operand = mac_operand = MacOperand(**taps, post_lanes=post_lanes)
        parts.xnor = xnor = xnor_array(
            lanes=lanes, word_bits=geometry.word_bits,
            port_bits=geometry.port_bits, post_lanes=post_lanes,
        )  # fmt: skip
        parts.mac = mac = mac_array(
            **taps, lanes=lanes, port_bits=geometry.port_bits, post_lanes=post_lanes
        )
        parts.ring = ring = WeightRing(
            port_bits=geometry.port_bits,
            depth=geometry.ring_words,
            max_set_words=max(xnor.set_words, mac.set_words),
            receivers=2,
        )
        parts.drain = drain = Drain(groups=geometry.groups)
        parts.post = post = PostProcess(lanes=lanes, post_lanes=post_lanes)
        parts.max_pool = max_pool = MaxPool(
            post_lanes=post_lanes, max_groups=geometry.groups, line_words=geometry.line_words
        )
        parts.average = average = Average(post_lanes=post_lanes)
        parts.writer = writer = Writer(
            post_lanes=post_lanes, lanes=lanes,
            sub_words=geometry.sub_words, residual_shape=residual_shape,
        )  # fmt: skip
        parts.result = result = self.result
        parts.perf = perf = Perf()

        def later(value, cycles: int, name: str, reset_less=False):
            """``value``, so many cycles later; data that a flag goes with want no reset."""
            for i in range(cycles):
                stage = Signal.like(value, name=f"{name}_{i}", reset_less=reset_less)
                m.d.sync += stage.eq(value)
                value = stage
            return value

        # --- control -----------------------------------------------------------------------------
        layer = sequencer.layer
        is_kind = {kind: Signal(name=f"is_{kind.name.lower()}") for kind in LayerKind}
        m.d.sync += [signal.eq(layer.kind == kind) for kind, signal in is_kind.items()]
        binary = is_kind[LayerKind.BINARY]

        def flag(name: str, *kinds: LayerKind):
            """A register of its own, where much hangs on the kind."""
            return copy(m, Cat(layer.kind == kind for kind in kinds).any(), name)

        reduction_reads, reduction_writes = (
            flag(f"reduction_{what}", LayerKind.POOL, LayerKind.MEAN)
            for what in ("reads", "writes")
        )
        connect(m, flipped(self.descriptor), sequencer.descriptor)
        connect(m, flipped(self.params), post.params)
        connect(m, flipped(self.weights), ring.write)

        def starts(name: str, strobe):
            """A unit's start: a register of its own, and a copy if two units have the same."""
            return copy(m, strobe, f"start_{name}")

        start_convolution, start = sequencer.starts_convolution, sequencer.starts
        connect(m, flipped(self.input), input_ring.write)
        for unit in (steps, reducer, drain, writer):
            m.d.comb += unit.layer.eq(layer)
        m.d.comb += [
            sequencer.start_frame.eq(self.start),
            steps.start.eq(starts("steps", start_convolution)),
            drain.start.eq(starts("drain", start_convolution)),
            ring.start.eq(starts("ring", start_convolution)),
            reducer.start.eq(starts("reducer", sequencer.starts_reduction)),
            writer.start.eq(starts("writer", start)),
            sequencer.layer_done.eq(writer.done),
            sequencer.frame_ok.eq(self.frame_ok),
            self.frame_done.eq(sequencer.frame_done),
        ]

        # --- weights: ring -> the array that the layer uses --------------------------------------
        sets = Signal(SIZE_BITS + 4)
        stem = is_kind[LayerKind.STEM]
        m.d.sync += sets.eq(layer.kernel_rows * layer.inner)
        # From a set's issue to its first step in the array, and so to when the next may come.
        xnor_latency = StepWalker.LATENCY + READ_LATENCY
        mac_latency = xnor_latency + RESIDUAL_LATENCY - READ_LATENCY + MacOperand.LATENCY
        assert 1 + xnor_latency >= WeightRing.LOADED_LATENCY
        to_free = [
            later(steps.taken, latency + 1 - WeightRing.FREED_LATENCY, f"taken_{latency}")
            for latency in (mac_latency, xnor_latency)
        ]
        m.d.comb += [
            mac.whole.eq(stem),
            ring.sets.eq(sets),
            ring.set_words.eq(
                Mux(binary, xnor.set_words, Mux(stem, mac.set_words, mac.first_words))
            ),
            ring.blocks.eq(layer.blocks),
            ring.tiles.eq(layer.tiles),
            ring.freed.eq(Mux(binary, to_free[1], to_free[0])),
            ring.receiver.eq(~binary),
            mac.load_valid.eq(ring.valid[1]),
            xnor.load_valid.eq(ring.valid[0]),
            xnor.load.eq(ring.payload),
            mac.load.eq(ring.payload),
            steps.loaded.eq(ring.loaded),
            steps.freed.eq(later(drain.freed, 1, "freed")),
        ]

        # --- operands: address -> map -> array ---------------------------------------------------
        step = later(steps.step, READ_LATENCY, "step", reset_less=True)
        xnor_valid = later(steps.step_valid & binary, READ_LATENCY, "xnor_valid")
        masked = later(~steps.step.inside[0], READ_LATENCY, "masked", reset_less=True)
        count = Mux(steps.step.inside[0], steps.step.count, 0)
        count = later(count, READ_LATENCY, "count", reset_less=True)
        # Residuals come last; bytes and features wait for them.
        wait = RESIDUAL_LATENCY - READ_LATENCY
        at_operand = later(step, wait, "operand_step", reset_less=True)
        mac_step = later(at_operand, MacOperand.LATENCY, "mac_step", reset_less=True)
        mac_valid = later(
            steps.step_valid & ~binary, READ_LATENCY + wait + MacOperand.LATENCY, "mac_valid"
        )
        m.d.sync += input_ring.release.eq(sequencer.release_input)
        m.d.comb += [
            bit_maps.read_address.eq(steps.step.address),
            input_ring.read_address.eq(steps.step.address),
            input_ring.frame_bytes.eq(layer.frame_bytes),
            input_ring.row_bytes.eq(layer.row_length),
            input_ring.rows.eq(layer.in_height),
            input_ring.rows_ahead.eq(layer.rows_ahead),
            input_ring.start.eq(starts("input_ring", start & stem & layer.begins)),
            input_ring.active.eq(steps.working & is_kind[LayerKind.STEM]),
            input_ring.row.eq(steps.row),
            steps.input_ready.eq(input_ring.ready),
            features.read_address.eq(steps.step.address),
            mac_operand.kind.eq(layer.kind),
            mac_operand.border.eq(layer.border),
            mac_operand.step.eq(at_operand),
            mac_operand.bytes.eq(later(input_ring.read_data, wait, "bytes", reset_less=True)),
            mac_operand.residual.eq(residual_map.read_data),
            mac_operand.feature.eq(later(features.read_data, wait, "feature", reset_less=True)),
        ]
        for array, valid, at, operand in (
            (xnor, xnor_valid, step, bit_maps.read_data),
            (mac, mac_valid, mac_step, mac_operand.operand),
        ):
            m.d.comb += [
                array.step.valid.eq(valid),
                array.step.swap.eq(at.swap),
                array.step.first.eq(at.first),
                array.step.last.eq(at.last),
                array.step.pixel.eq(at.pixel),
                array.step.operand.eq(operand),
            ]
        # Only words of bits have parts that do not count; a border's bytes have values.
        m.d.comb += [xnor.step.masked.eq(masked), xnor.step.count.eq(count)]

        # --- results: output RAM -> post-process -> max-pool -------------------------------------
        group = drain.group
        acc_latency = Drain.PLACE_LATENCY + xnor.READ_LATENCY
        # The residual and the accumulators of a word meet at the post-process, both from far away.
        read_latency = max(RESIDUAL_LATENCY, acc_latency) + 1
        acc = Signal.like(mac.data)
        for lane in range(post_lanes):
            binary_lane = flag(f"binary_lane_{lane}", LayerKind.BINARY)
            m.d.comb += acc[lane].eq(Mux(binary_lane, xnor.data[lane], mac.data[lane]))
        m.d.comb += [
            drain.written.eq(xnor.written | mac.written),
            drain.params_ready.eq(post.tile_ready),
            xnor.read_pixel.eq(drain.pixel),
            xnor.read_group.eq(group),
            mac.read_pixel.eq(drain.pixel),
            mac.read_group.eq(group),
            post.input.valid.eq(later(drain.issue, read_latency, "post_valid")),
            post.input.group.eq(
                later(group, read_latency - Drain.PLACE_LATENCY, "post_group", reset_less=True)
            ),
            post.input.acc.eq(later(acc, read_latency - acc_latency, "acc", reset_less=True)),
            post.input.residual.eq(
                later(
                    residual_map.read_data,
                    read_latency - RESIDUAL_LATENCY,
                    "shortcut",
                    reset_less=True,
                )
            ),
            post.tile_done.eq(later(drain.tile_done, read_latency, "tile_done")),
        ]
        for name in ("a", "s", "k", "shortcut"):  # from one end of the chip to the other
            m.d.comb += getattr(post, name).eq(later(layer[name], 1, name, reset_less=True))
        # The max-pool starts anew with each tile, the last of which may be narrower; the tile of a
        # stem in parts it goes on with. It rests for longer than these registers take.
        pool_restart = later(drain.tile_done, read_latency + post.latency + 1, "pool_restart")
        tiles_left = Signal(9)
        starts_pool = starts("pool", start & layer.begins)
        with m.If(starts("tiles", start)):
            m.d.sync += tiles_left.eq(layer.tiles - 1)
        with m.Elif(pool_restart):
            m.d.sync += tiles_left.eq(tiles_left - 1)
        m.d.sync += [
            max_pool.enable.eq(layer.pooled & is_kind[LayerKind.STEM]),
            max_pool.groups.eq(Mux(tiles_left == 0, layer.last_groups, geometry.groups)),
            max_pool.restart.eq(
                is_kind[LayerKind.STEM] & (pool_restart & (tiles_left != 0) | starts_pool)
            ),
        ]
        m.d.comb += [
            max_pool.width.eq(layer.out_width),
            max_pool.input.valid.eq(post.output.valid),
            max_pool.input.residual.eq(post.output.residual),
            max_pool.input.bits.eq(post.output.bits),
        ]

        # --- averages ----------------------------------------------------------------------------
        m.d.comb += [
            average.input.valid.eq(later(reducer.read, RESIDUAL_LATENCY, "average_valid")),
            average.input.first.eq(later(reducer.first, RESIDUAL_LATENCY, "average_first")),
            average.input.last.eq(later(reducer.last, RESIDUAL_LATENCY, "average_last")),
            average.input.data.eq(residual_map.read_data),
            average.shift.eq(Mux(is_kind[LayerKind.POOL], 2, layer.a)),
        ]

        # --- writes ------------------------------------------------------------------------------
        with m.If(reduction_writes):
            m.d.comb += writer.input.valid.eq(average.output.valid)
            for lane in range(post_lanes):
                m.d.comb += writer.input.residual[lane].eq(average.output.data[lane])
        with m.Else():
            m.d.comb += writer.input.eq(max_pool.output)
        with m.If(is_kind[LayerKind.POINTWISE]):
            m.d.sync += residual_map.read_address.eq(steps.step.address)
        with m.Elif(reduction_reads):
            m.d.sync += residual_map.read_address.eq(reducer.address)
        with m.Else():
            m.d.sync += residual_map.read_address.eq(drain.address)
        # The logits leave the post-process beside the residuals; the max-pool lets those through.
        logits = later(
            post.output.logits, max_pool.latency + Writer.LATENCY, "logits", reset_less=True
        )
        feature = later(average.output.data, Writer.LATENCY, "feature_out", reset_less=True)
        m.d.comb += [
            residual_map.write.eq(writer.write_residual),
            residual_map.write_address.eq(writer.residual_address),
            residual_map.write_data.eq(writer.residual),
            features.write.eq(writer.write_feature),
            features.write_address.eq(writer.word),
            features.write_data.eq(feature),
            bit_maps.write.eq(writer.write_bits),
            bit_maps.write_address.eq(writer.bit_address),
            bit_maps.write_sub_word.eq(writer.sub_word),
            bit_maps.write_data.eq(writer.bits),
            result.input.valid.eq(writer.write_logits),
            result.input.logits.eq(logits),
            result.clear.eq(sequencer.clear_result),
            result.count.eq(layer.classes),
            result.scan.eq(sequencer.scan),
            sequencer.scanned.eq(result.done),
        ]

        # --- what the host and the simulation see ------------------------------------------------
        m.d.comb += [
            perf.fetching.eq(sequencer.fetching),
            perf.found.eq(self.descriptor.valid),
            perf.beginning.eq(sequencer.beginning),
            perf.running.eq(sequencer.running),
            perf.scanning.eq(sequencer.scanning),
            perf.finishing.eq(sequencer.finishing),
            perf.binary.eq(layer.kind == LayerKind.BINARY),
            perf.preparing.eq(steps.preparing),
            perf.working.eq(steps.working),
            perf.wait_input.eq(steps.wait_input),
            perf.wait_output.eq(steps.wait_output),
            perf.wait_weights.eq(steps.wait_weights),
            perf.reducing.eq(reducer.working),
            perf.stream_busy.eq(self.stream_busy),
            perf.wait_stream.eq(self.wait_stream),
            self.perf.eq(perf.perf),
        ]
        m.d.sync += self.progress.eq(
            steps.step_valid | writer.input.valid | reducer.read | sequencer.starts
        )
        trace = self.trace
        m.d.comb += [
            trace.write_residual.eq(writer.write_residual),
            trace.residual_address.eq(writer.residual_address),
            trace.residual.eq(writer.residual),
            trace.write_bits.eq(writer.write_bits),
            trace.bit_address.eq(writer.bit_address),
            trace.sub_word.eq(writer.sub_word),
            trace.bits.eq(writer.bits),
            trace.write_feature.eq(writer.write_feature),
            trace.write_logits.eq(writer.write_logits),
            trace.word.eq(writer.word),
            trace.feature.eq(feature),
            trace.logits.eq(logits),
            trace.layer_done.eq(later(writer.done, LATENCY, "layer_done")),
            trace.layer.eq(later(sequencer.index, LATENCY, "traced_layer", reset_less=True)),
            trace.kind.eq(later(layer.kind, LATENCY, "traced_kind", reset_less=True)),
            trace.frame_done.eq(later(sequencer.frame_done, LATENCY, "traced_frame_done")),
            trace.perf.eq(self.perf),
        ]
        return m
