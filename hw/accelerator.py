"""The accelerator: core, loader, sources and registers behind one bus. Only wires."""

from amaranth import Module, ResetInserter
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.bus import BusSignature
from hw.control import Control
from hw.core import Core, trace_signature
from hw.loader import Loader
from hw.source import LinkSource, RamSource, SourceMux
from isa.geometry import Geometry


class Accelerator(wiring.Component):
    """Everything that a board has beside its clock and its link; also the top of simulations.

    ``bus`` is the register map of ``isa.registers``; ``interrupt`` is high in the states READY,
    DONE and ERROR. ``trace`` shows every write to a map; a board leaves it open. ``image``
    pre-fills the `ram` source.
    """

    def __init__(self, *, geometry: Geometry, image=()):
        self._geometry = geometry
        self._image = image
        super().__init__(
            {
                "bus": In(BusSignature()),
                "interrupt": Out(1),
                "trace": Out(trace_signature(geometry)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        geometry = self._geometry
        core = Core(geometry=geometry)
        loader = Loader(geometry=geometry)
        ram = RamSource(words=geometry.image_words, init=self._image)
        link = LinkSource()
        mux = SourceMux()
        m.submodules.control = control = Control(
            geometry=geometry, logit_latency=core.result.READ_LATENCY
        )
        # An error resets all that computes or streams; the host's registers stay.
        for name, unit in (
            ("core", core), ("loader", loader), ("ram", ram), ("link", link), ("mux", mux),
        ):  # fmt: skip
            m.submodules[name] = ResetInserter(control.abort)(unit)

        connect(m, flipped(self.bus), control.bus)
        connect(m, control.image_write, ram.write)
        connect(m, control.stream, link.stream)
        connect(m, control.input, core.input)
        connect(m, ram.image, mux.ram)
        connect(m, link.image, mux.link)
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
            core.frame_ok.eq(loader.frame_ok),
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
