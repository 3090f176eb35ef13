"""Block RAM with a register behind its output: the one inside the ECP5's block."""

from amaranth.hdl import Cat, ClockSignal, Const, Instance, Module, Signal
from amaranth.lib import wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

BLOCK_BITS = 18
BLOCK_DEPTH = 1024
MAX_BITS = 4 * BLOCK_BITS
#: Up to this depth synthesis takes LUTs, which are fast.
DISTRIBUTED_DEPTH = 16


class BlockMemory(wiring.Component):
    """`depth` words of `width` bits, written in the domain `source` and read in `target`.

    The block alone takes most of a fast clock's cycle to put out a word; with its register, which
    synthesis does not use of itself, next to nothing. So a board gets the blocks themselves, one
    for each BLOCK_BITS bits; a simulation, which has no platform, the same in Amaranth.

    Members
    -------
    write, write_address, write_data : In, in `source`
    read, read_address : In, in `target`
        The block fetches the word at the address.
    move : In(1), in `target`
        What was fetched last before this cycle goes into the register.
    read_data : Out
        The register. It has no reset. A word that was fetched while it was written is undefined.
    """

    def __init__(self, width, *, depth, source, target):
        for name, value, most in (("width", width, MAX_BITS), ("depth", depth, BLOCK_DEPTH)):
            if not isinstance(value, int) or not 1 <= value <= most:
                raise ValueError(f"Block memory {name} must be in 1..{most}, not {value!r}")
        self._width, self._depth, self._source, self._target = width, depth, source, target
        address = range(depth)
        super().__init__(
            {
                "write": In(1),
                "write_address": In(address),
                "write_data": In(width),
                "read": In(1),
                "read_address": In(address),
                "move": In(1),
                "read_data": Out(width),
            }
        )

    def elaborate(self, platform):
        m = Module()
        if platform is None or self._depth <= DISTRIBUTED_DEPTH:
            m.submodules.memory = memory = Memory(shape=self._width, depth=self._depth, init=[])
            store = memory.write_port(domain=self._source)
            load = memory.read_port(domain=self._target)
            moved = Signal(self._width, reset_less=True)
            m.d.comb += [
                store.en.eq(self.write),
                store.addr.eq(self.write_address),
                store.data.eq(self.write_data),
                load.en.eq(self.read),
                load.addr.eq(self.read_address),
                self.read_data.eq(moved),
            ]
            with m.If(self.move):
                m.d[self._target] += moved.eq(load.data)
            return m

        store, load = Signal(14), Signal(14)
        # At this width, the lowest two bits of an address enable a byte each, and the next two do
        # not count.
        m.d.comb += [
            store.eq(Cat(self.write.replicate(2), Const(0, 2), self.write_address)),
            load.eq(Cat(Const(0, 4), self.read_address)),
        ]
        for number, start in enumerate(range(0, self._width, BLOCK_BITS)):
            stored = Signal(BLOCK_BITS, name=f"stored{number}")
            loaded = Signal(BLOCK_BITS, name=f"loaded{number}")
            m.d.comb += [
                stored.eq(self.write_data[start : start + BLOCK_BITS]),
                self.read_data[start : start + BLOCK_BITS].eq(loaded),
            ]
            m.submodules[f"block{number}"] = self._block(store, stored, load, loaded)
        return m

    def _block(self, store, stored, load, loaded):
        """One port writes, the other reads."""
        ports = {}
        for letter, address in (("A", store), ("B", load)):
            ports |= {f"i_AD{letter}{bit}": address[bit] for bit in range(len(address))}
            ports |= {f"i_CS{letter}{bit}": Const(0) for bit in range(3)}
            ports |= {
                f"i_RST{letter}": Const(0),
                f"p_CSDECODE_{letter}": "0b000",
                f"p_DATA_WIDTH_{letter}": BLOCK_BITS,
                f"p_CLK{letter}MUX": f"CLK{letter}",
            }
        for bit in range(BLOCK_BITS):
            ports |= {f"i_DIA{bit}": stored[bit], f"o_DOB{bit}": loaded[bit]}
        return Instance(
            "DP16KD",
            p_REGMODE_A="NOREG",
            p_REGMODE_B="OUTREG",
            p_RESETMODE="SYNC",
            p_ASYNC_RESET_RELEASE="SYNC",
            p_GSR="DISABLED",
            i_CLKA=ClockSignal(self._source),
            i_CEA=Const(1),
            i_WEA=self.write,
            i_OCEA=Const(0),
            i_CLKB=ClockSignal(self._target),
            i_CEB=self.read,
            i_WEB=Const(0),
            i_OCEB=self.move,
            **ports,
        )
