"""The accelerator: core, loader, sources and registers behind one bus. Only wires."""

from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.bus import BusSignature
from hw.control import Control
from hw.copies import copy, kept
from hw.core import Core
from hw.flash import FlashCopier, SpiSignature
from hw.loader import Loader
from hw.memory import CHIP_BURSTS, MemorySystem
from hw.resets import Parts
from hw.sdram_chip import BURST_BITS, PinsSignature
from hw.source import LinkSource, RamSource, SourceMux
from hw.stage import Stage
from hw.trace import trace_signature
from isa.bits import WORD_BITS
from isa.geometry import Geometry
from isa.registers import Source


class Accelerator(wiring.Component):
    """Everything that a board has beside its clock and its link; also the top of simulations.

    ``bus`` is the register map of ``isa.registers``; ``interrupt`` is high in the states READY,
    DONE and ERROR. ``trace`` shows every write to a map; a board leaves it open. ``image``
    pre-fills the `ram` source.

    With an SDRAM in the geometry there is a second domain, ``memory``, at ``memory_mhz``, and the
    chip's ``pins`` in it. Both domains are reset together, at the start and only then: an error
    leaves the memory as it is. ``test_bursts``: how much of it the test at the start covers. An
    image in the flash behind ``flash`` is copied to it then. ``resets`` are levels for domains
    that have no reset of their own, as `hw.resets` has them.
    """

    def __init__(
        self,
        *,
        geometry: Geometry,
        image=(),
        memory_mhz=None,
        test_bursts: int = CHIP_BURSTS,
        resets=(),
    ):
        if bool(geometry.sdram_bytes) != (memory_mhz is not None):
            rule = "given with" if geometry.sdram_bytes else "None without"
            raise ValueError(
                f"Accelerator memory_mhz must be {rule} an SDRAM in the geometry, "
                f"not {memory_mhz!r}"
            )
        self._geometry = geometry
        self._image = image
        self._resets = dict(resets)
        self._memory = None
        pins = {}
        if geometry.sdram_bytes:
            self._memory = MemorySystem(
                clock_mhz=memory_mhz,
                test_bursts=test_bursts,
                frame_bursts=geometry.sdram_frame_bytes * 8 // BURST_BITS,
                resets=resets,
            )
            pins = {"pins": Out(PinsSignature()), "flash": Out(SpiSignature())}
        super().__init__(
            {
                "bus": In(BusSignature()),
                "interrupt": Out(1),
                "trace": Out(trace_signature(geometry)),
                **pins,
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        # An error resets all that computes or streams, three cycles later; the host's registers
        # stay. The core has many parts: there each has the last of those cycles.
        start = {domain: reset for domain, reset in self._resets.items() if domain == "sync"}
        restart = kept(1, "restart", reset_less=True)
        core_reset = copy(m, restart, "core_reset")
        permanent = Parts(m, start)
        parts = Parts(m, {"sync": restart}, cycles=2)
        core = Core(geometry=geometry, resets={"sync": core_reset})
        loader = Loader(geometry=geometry)
        sources = {Source.LINK: LinkSource()}
        if geometry.image_words:
            sources[Source.RAM] = RamSource(words=geometry.image_words, init=self._image)
        memory = self._memory
        mux = SourceMux(sources=[*sources, *([Source.SDRAM] if memory else [])])
        m.submodules.core = core
        permanent.control = control = Control(
            geometry=geometry, logit_latency=core.result.READ_LATENCY
        )
        units = {source.name.lower(): unit for source, unit in sources.items()}
        for name, unit in {"loader": loader, "mux": mux, **units}.items():
            parts[name] = unit
        m.d.sync += restart.eq(start.get("sync", 0) | control.abort)

        parts.pixels = pixels = Stage(WORD_BITS)
        connect(m, flipped(self.bus), control.bus)
        connect(m, control.input, pixels.input)
        connect(m, control.image_write, mux.write)
        connect(m, control.stream, sources[Source.LINK].stream)
        for name, unit in units.items():
            connect(m, unit.image, getattr(mux, name))
        if geometry.image_words:
            connect(m, mux.write_ram, sources[Source.RAM].write)
        if memory:
            # Frames wait in the SDRAM: the host sends the next one while one is computed.
            m.submodules.memory = memory
            permanent.flash = flash = FlashCopier(geometry=geometry)
            connect(m, mux.write_sdram, flash.host)
            connect(m, flash.write, memory.image_write)
            connect(m, flash.spi, flipped(self.flash))
            connect(m, memory.image, mux.sdram)
            parts.frames = frames = Stage(WORD_BITS)
            connect(m, pixels.output, memory.input)
            connect(m, memory.frames, frames.input)
            connect(m, frames.output, core.input)
            connect(m, memory.pins, flipped(self.pins))
            m.d.comb += [
                memory.abort.eq(control.abort),
                control.memory.present.eq(1),
                control.memory.ready.eq(memory.ready),
                control.memory.fault.eq(memory.fault),
                control.memory.fault_address.eq(memory.fault_address),
                control.memory.copying.eq(flash.copying),
                control.copied.eq(flash.copied),
                flash.claim.eq(control.claim),
                flash.memory_ready.eq(memory.ready),
                flash.memory_fault.eq(memory.fault),
            ]
        else:
            connect(m, pixels.output, core.input)
        connect(m, mux.image, loader.source)
        connect(m, loader.descriptor, core.descriptor)
        connect(m, loader.params, core.params)
        connect(m, loader.weights, core.weights)
        connect(m, core.trace, flipped(self.trace))
        m.d.comb += [
            mux.select.eq(control.source),
            loader.check.eq(control.check),
            loader.start.eq(control.start),
            loader.stem_done.eq(control.stem_done),
            loader.more.eq(control.more),
            control.checked.eq(loader.checked),
            control.frame_ok.eq(loader.frame_ok),
            control.error.eq(loader.error),
            control.error_valid.eq(loader.error_valid),
            control.classes.eq(loader.classes),
            control.image_crc.eq(loader.frame_crc32),
            core.start.eq(control.start),
            core.frame_ok.eq(loader.frame_ok),
            core.stream_busy.eq(loader.stream_busy),
            core.wait_stream.eq(loader.wait_stream),
            control.frame_done.eq(core.frame_done),
            control.progress.eq(core.progress | loader.progress),
            control.perf.eq(core.perf),
            core.result.read_class.eq(control.logit_address),
            control.logit_data.eq(core.result.read_logit),
            control.top_class.eq(core.result.top_class),
            control.top_logit.eq(core.result.top_logit),
            self.interrupt.eq(control.interrupt),
        ]
        return m
