"""The serial link: executes the requests of `isa.link` as a bus master and answers them."""

from amaranth.hdl import C, Cat, Module, Mux, Signal
from amaranth.lib import crc, data, enum, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.bus import BusSignature
from isa import link, registers
from isa.bits import WORD_BITS


class Link(wiring.Component):
    """Between a UART's byte streams and the bus.

    Members
    -------
    rx : In(stream of bytes)
        Always ready. What comes while a request is executed or answered is dropped: the host
        waits for its answer.
    tx : Out(stream of bytes)
    bus : Out(BusSignature)

    `byte_timeout` and `bus_timeout` are in seconds of a clock of `clock_hz`. An answer starts at
    most `bus_timeout` after the last byte of its request.
    """

    class State(enum.Enum, shape=4):
        HUNT = 0  # for a sync byte
        HEADER = 1
        PAYLOAD = 2
        CRC = 3
        DECIDE = 4
        FETCH = 5  # the word to write, from the buffer
        ACCESS = 6
        ANSWER = 7
        SEND_HEADER = 8
        SEND_PAYLOAD = 9
        SEND_CRC = 10

    def __init__(self, *, clock_hz, byte_timeout=link.BYTE_TIMEOUT, bus_timeout=link.BUS_TIMEOUT):
        if not isinstance(clock_hz, int) or clock_hz < 1:
            raise ValueError(f"Link clock_hz must be a positive integer, not {clock_hz!r}")
        for name, value in (("byte_timeout", byte_timeout), ("bus_timeout", bus_timeout)):
            if not clock_hz * value >= 1:
                raise ValueError(f"Link {name} must be at least one clock cycle, not {value!r} s")
        self._byte_cycles = int(clock_hz * byte_timeout)
        self._bus_cycles = int(clock_hz * bus_timeout)
        super().__init__(
            {
                "rx": In(stream.Signature(8)),
                "tx": Out(stream.Signature(8)),
                "bus": Out(BusSignature()),
            }
        )

    def elaborate(self, platform):
        m = Module()
        State, Command, Status = self.State, link.Command, link.Status
        rx, tx, bus = self.rx, self.tx, self.bus

        state = Signal(State)
        request = Signal(link.REQUEST)
        index = Signal(8)  # of a word, or of a byte of header or CRC
        lane = Signal(2)  # of a byte in its word
        word = Signal(WORD_BITS - 8)  # the bytes of a word so far
        last_byte = Signal()  # of a word
        # These are a cycle late: what they depend on has changed some cycles before they are asked.
        last_word, last_answer, is_port = Signal(), Signal(), Signal()

        # Words of a WRITE until the CRC has proved them right, or of a READ until they are sent
        m.submodules.buffer = buffer = Memory(shape=WORD_BITS, depth=link.MAX_WORDS, init=[])
        store, fetch = buffer.write_port(), buffer.read_port(domain="comb")
        m.d.comb += [store.addr.eq(index), fetch.addr.eq(index), store.data.eq(bus.read_data)]

        # Bytes leave through a register, so that the UART's `ready` ends here
        byte = Signal(8)
        sends = Signal()  # `byte` enters the register
        sending = Signal()
        m.d.comb += [
            sending.eq(
                (state == State.SEND_HEADER)
                | (state == State.SEND_PAYLOAD)
                | (state == State.SEND_CRC)
            ),
            sends.eq(sending & ~tx.valid),
        ]
        with m.If(sends):
            m.d.sync += [tx.payload.eq(byte), tx.valid.eq(1)]
        with m.Elif(tx.ready):
            m.d.sync += tx.valid.eq(0)

        receiving = Signal()
        m.submodules.rx_crc = rx_crc = crc.Processor(link.CRC16(8))
        m.submodules.tx_crc = tx_crc = crc.Processor(link.CRC16(8))
        m.d.comb += [
            receiving.eq((state == State.HEADER) | (state == State.PAYLOAD) | (state == State.CRC)),
            rx.ready.eq(1),
            rx_crc.data.eq(rx.payload),
            rx_crc.valid.eq(rx.valid & receiving),
            rx_crc.start.eq(state == State.HUNT),
            tx_crc.data.eq(byte),
            tx_crc.start.eq(state == State.ANSWER),
        ]

        patience = Signal(range(max(self._byte_cycles, self._bus_cycles) + 1))
        expired = Signal()
        m.d.comb += expired.eq(patience == 0)
        with m.If(~expired):
            m.d.sync += patience.eq(patience - 1)

        answer = Signal(link.RESPONSE)
        m.d.comb += last_byte.eq(lane == 3)
        m.d.sync += [
            last_word.eq(index == request.count - 1),
            last_answer.eq(index == answer.count - 1),
            is_port.eq(Cat(bus.address == port for port in registers.PORTS).any()),
        ]
        executed = Signal()  # `answer` tells of a request that was not refused
        last_write = Signal(link.RESPONSE)  # the answer to the last request, if that was a WRITE
        last_valid = Signal()
        outgoing = Signal(8 + link.RESPONSE.size)

        def finish(status, count, *, executes=True):
            return [
                answer.sequence.eq(request.sequence),
                answer.command.eq(request.command),
                answer.status.eq(status),
                answer.count.eq(count),
                executed.eq(executes),
                state.eq(State.ANSWER),
            ]

        with m.Switch(state):
            with m.Case(State.HUNT):
                m.d.sync += [index.eq(0), lane.eq(0)]
                with m.If(rx.valid & (rx.payload == link.REQUEST_SYNC)):
                    m.d.sync += [state.eq(State.HEADER), patience.eq(self._byte_cycles)]

            with m.Case(State.HEADER):
                with m.If(rx.valid):
                    raw = request.as_value()
                    m.d.sync += [raw.eq(Cat(raw, rx.payload)[8:]), index.eq(index + 1)]
                    with m.If(index == link.REQUEST_BYTES - 1):
                        m.d.sync += [index.eq(0), state.eq(State.CRC)]
                        # The last byte is the count; the command has come before it.
                        shifted = data.View(link.REQUEST, Cat(raw, rx.payload)[8:])
                        with m.If((shifted.command == Command.WRITE) & (shifted.count != 0)):
                            m.d.sync += state.eq(State.PAYLOAD)

            with m.Case(State.PAYLOAD):
                m.d.comb += store.data.eq(Cat(word, rx.payload))
                with m.If(rx.valid):
                    m.d.sync += [word.eq(Cat(word, rx.payload)[8:]), lane.eq(lane + 1)]
                    with m.If(last_byte):
                        m.d.comb += store.en.eq(1)
                        m.d.sync += index.eq(index + 1)
                        with m.If(last_word):
                            m.d.sync += [index.eq(0), state.eq(State.CRC)]

            with m.Case(State.CRC):
                with m.If(rx.valid):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == link.CRC_BYTES - 1):
                        m.d.sync += [index.eq(0), state.eq(State.DECIDE)]

            with m.Case(State.DECIDE):
                m.d.comb += store.data.eq(link.VERSION)
                m.d.sync += [patience.eq(self._bus_cycles), bus.address.eq(request.address)]
                access = (request.command == Command.READ) | (request.command == Command.WRITE)
                with m.If(~rx_crc.match_detected):
                    m.d.sync += finish(Status.BAD_CRC, 0, executes=False)
                with m.Elif(request.command == Command.SYNC):
                    m.d.comb += store.en.eq(1)
                    m.d.sync += finish(Status.OK, 1)
                with m.Elif(
                    ~access
                    | (request.count == 0)
                    | (request.count > link.MAX_WORDS)
                    | (request.address >> registers.ADDRESS_BITS != 0)
                ):
                    m.d.sync += finish(Status.BAD_COMMAND, 0, executes=False)
                with m.Elif(
                    (request.command == Command.WRITE)
                    & last_valid
                    & (request.sequence == last_write.sequence)
                ):
                    m.d.sync += finish(last_write.status, last_write.count)
                with m.Else():
                    m.d.sync += [
                        state.eq(State.FETCH),
                        bus.write.eq(request.command == Command.WRITE),
                    ]

            with m.Case(State.FETCH):
                m.d.sync += [
                    bus.write_data.eq(fetch.data),
                    bus.valid.eq(1),
                    state.eq(State.ACCESS),
                ]

            with m.Case(State.ACCESS):
                m.d.comb += store.en.eq(bus.ack & ~bus.write)
                with m.If(bus.ack):
                    m.d.sync += [bus.valid.eq(0), index.eq(index + 1), state.eq(State.FETCH)]
                    m.d.sync += bus.address.eq(bus.address + ~is_port)
                    with m.If(last_word):
                        m.d.sync += finish(Status.OK, request.count)
                with m.Elif(expired):
                    m.d.sync += bus.valid.eq(0)
                    m.d.sync += finish(Status.BUSY, index)

            with m.Case(State.ANSWER):
                m.d.sync += [
                    outgoing.eq(Cat(C(link.RESPONSE_SYNC, 8), answer)),
                    index.eq(0),
                    lane.eq(0),
                    state.eq(State.SEND_HEADER),
                ]
                with m.If(executed):
                    m.d.sync += [
                        last_write.eq(answer),
                        last_valid.eq(answer.command == Command.WRITE),
                    ]

            with m.Case(State.SEND_HEADER):
                m.d.comb += byte.eq(outgoing[:8])
                with m.If(sends):
                    m.d.comb += tx_crc.valid.eq(index != 0)  # the sync byte is not covered
                    m.d.sync += [outgoing.eq(outgoing >> 8), index.eq(index + 1)]
                    with m.If(index == link.RESPONSE_BYTES):
                        m.d.sync += [index.eq(0), state.eq(State.SEND_PAYLOAD)]
                        with m.If((answer.command == Command.WRITE) | (answer.count == 0)):
                            m.d.sync += state.eq(State.SEND_CRC)

            with m.Case(State.SEND_PAYLOAD):
                m.d.comb += [byte.eq(fetch.data.word_select(lane, 8)), tx_crc.valid.eq(sends)]
                with m.If(sends):
                    m.d.sync += lane.eq(lane + 1)
                    with m.If(last_byte):
                        m.d.sync += index.eq(index + 1)
                        with m.If(last_answer):
                            m.d.sync += [index.eq(0), state.eq(State.SEND_CRC)]

            with m.Case(State.SEND_CRC):
                m.d.comb += byte.eq(Mux(index == 0, tx_crc.crc[8:], tx_crc.crc[:8]))
                with m.If(sends):
                    m.d.sync += index.eq(index + 1)
                    with m.If(index == link.CRC_BYTES - 1):
                        m.d.sync += state.eq(State.HUNT)

        with m.If(receiving):
            with m.If(rx.valid):
                m.d.sync += patience.eq(self._byte_cycles)
            with m.Elif(expired):
                m.d.sync += finish(Status.BAD_CRC, 0, executes=False)
        return m
