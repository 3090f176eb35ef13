"""The memory system: image and input frames in one SDRAM, at a clock of its own.

The lower half of the chip holds the image: word n of it is in beats 2n (the lower half) and 2n + 1.
The upper half is the ring of the input frames. The core sees neither addresses nor clock: a stream
that can be rewound, a queue, and writes of single words.
"""

from amaranth.hdl import Module, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.cdc import FFSynchronizer
from amaranth.lib.wiring import In, Out, connect, flipped

from hw.bus import MemoryWriteSignature
from hw.memory_bus import CHUNK_BURSTS, Arbiter, Client, ReturnPath, WriteMux
from hw.memory_check import MemoryCheck
from hw.memory_frames import FrameQueue
from hw.memory_image import ImageStream
from hw.resets import Parts
from hw.sdram import SdramController
from hw.sdram_chip import BURST_ADDRESS_BITS, PinsSignature
from hw.source import SourceSignature
from isa.bits import WORD_BITS
from isa.registers import IMAGE_ADDRESS_BITS

CHIP_BURSTS = 1 << BURST_ADDRESS_BITS


class MemorySystem(wiring.Component):
    """SDRAM controller, memory test, image stream and frame queue, each a part of its own.

    All ports are in the domain `sync`, except `pins`, which are in the domain `memory`; the two
    clocks may have any ratio. No port depends on another's: what is slow waits alone.

    Members
    -------
    image_write : In(MemoryWriteSignature)
        Words of the image; a rewind reads all those that were accepted before it.
    image : Out(SourceSignature)
        The image from any word on, without an end: it wraps to the frames after the last word.
    input, frames : In, Out(stream of 32 bits)
        What goes in comes out, in order; `frame_bursts` bursts of 16 bytes fit in between.
    abort : In(1)
        A level. Image words that were fetched and frame words that were accepted are dropped;
        `image` is silent until the next rewind, and frame words accepted after `abort` has fallen
        are kept. Image writes are not touched.
    ready : Out(1)
        The chip is initialised and its first `test_bursts` bursts have been tested. Until then
        nothing is read or written; ports that can wait do.
    fault, fault_address : Out
        The test has read something else than it wrote, first in that burst. The memory works on.

    `resets` are levels for domains that have no reset of their own, as `hw.resets` has them.
    """

    def __init__(
        self,
        *,
        clock_mhz,
        timing=None,
        test_bursts=CHIP_BURSTS,
        frame_bursts=CHIP_BURSTS // 2,
        resets=(),
    ):
        self._resets = resets
        self._controller = SdramController(
            clock_mhz=clock_mhz, timing=timing, write_bursts=CHUNK_BURSTS
        )
        self._check = MemoryCheck(bursts=test_bursts)
        self._frames = FrameQueue(bursts=frame_bursts)
        super().__init__(
            {
                "image_write": In(MemoryWriteSignature(address_bits=IMAGE_ADDRESS_BITS)),
                "image": Out(SourceSignature()),
                "input": In(stream.Signature(WORD_BITS)),
                "frames": Out(stream.Signature(WORD_BITS)),
                "abort": In(1),
                "ready": Out(1),
                "fault": Out(1),
                "fault_address": Out(BURST_ADDRESS_BITS),
                "pins": Out(PinsSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        parts = Parts(m, self._resets, cycles=2)
        parts.image = image = ImageStream()
        parts.frames = frames = self._frames
        parts.check = check = self._check
        parts.writes = writes = WriteMux()
        parts.arbiter = arbiter = Arbiter()
        parts.controller = controller = self._controller
        parts.returns = returns = ReturnPath()

        connect(m, image.write, flipped(self.image_write))
        connect(m, image.image, flipped(self.image))
        connect(m, frames.input, flipped(self.input))
        connect(m, frames.frames, flipped(self.frames))
        m.d.comb += [image.abort.eq(self.abort), frames.abort.eq(self.abort)]

        for client, part in {
            Client.IMAGE: image, Client.FRAMES: frames, Client.CHECK: check,
        }.items():  # fmt: skip
            connect(m, part.writer, writes.writers[client.value])
            connect(m, part.read, arbiter.readers[client.value])
        m.d.comb += [writes.checking.eq(~check.done), arbiter.checking.eq(~check.done)]
        connect(m, writes.request, arbiter.write)
        m.d.comb += arbiter.urgent.eq(writes.urgent)
        connect(m, writes.beats, controller.write_data)
        connect(m, arbiter.requests, controller.requests)
        connect(m, arbiter.reading, returns.reading)
        connect(m, controller.pins, flipped(self.pins))

        m.d.comb += [
            returns.read_data.eq(controller.read_data),
            returns.read_valid.eq(controller.read_valid),
            check.start.eq(controller.ready),
            check.read_data.eq(controller.read_data),
            check.read_valid.eq(controller.read_valid),
        ]
        for client, part in ((Client.IMAGE, image), (Client.FRAMES, frames)):
            mine = Signal(name=f"for_{client.name.lower()}")
            m.d.comb += [
                mine.eq(returns.client == client),
                part.word.eq(returns.word),
                part.valid.eq(returns.valid & mine),
                part.last.eq(returns.last & mine),
            ]

        # The address does not change after `fault` has risen.
        for name, inside, outside in (
            ("ready", check.done, self.ready),
            ("fault", check.fault, self.fault),
            ("fault_address", check.address, self.fault_address),
        ):
            m.submodules[f"{name}_crossing"] = FFSynchronizer(inside, outside, o_domain="sync")
        return m
