"""The memories that a frame lives in: residual map, bit maps, input ring, features.

Every read port has the same latency, ``READ_LATENCY`` cycles from address to data: a register
before the memory, the memory's own, one behind it, and one behind the multiplexer of its banks.
"""

from amaranth import Cat, Module, Mux, Signal, Value, signed
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from hw.adder import add
from hw.copies import copy, kept
from isa.bits import WORD_BITS
from isa.fixed import FEATURE_BITS
from isa.layer import ADDRESS_BITS, LAYER, SIZE_BITS, STRIDE_BITS

READ_LATENCY = 4

# Nothing here reads a word in the cycle in which it is written. Without this, synthesis spends
# a hundred cells a block to define what such a read would give.
UNCHECKED = {"no_rw_check": 1}


class WordMap(wiring.Component):
    """A memory with one read and one write port, for words of ``shape``.

    No flow control. A word that is written can be read ``WRITE_LATENCY`` cycles later. An address
    at or beyond ``depth`` reads an undefined word; the compiler never writes one. It consists of
    banks of BANK_WORDS words: blocks of 2048 x 9, which need no multiplexer between their slow
    outputs and the register of the bank. Where there are several, a word is stored in parts of
    PART_BITS, each with all its banks and with addresses of its own: they lie far from each other.
    """

    BANK_WORDS = 2048
    PART_BITS = 18
    WRITE_LATENCY = 2  # from the cycle of the write to that of the read's address

    def __init__(self, *, shape, depth: int):
        self._shape = shape
        self._depth = depth
        super().__init__(
            {
                "read_address": In(ADDRESS_BITS),
                "read_data": Out(shape),
                "write": In(1),
                "write_address": In(ADDRESS_BITS),
                "write_data": In(shape),
            }
        )

    def elaborate(self, platform):
        m = Module()
        result = Signal(self._shape, reset_less=True)
        data_in = Signal(self._shape, reset_less=True)
        m.d.sync += data_in.eq(self.write_data)
        m.d.comb += self.read_data.eq(result)
        result_bits, data_bits = Value.cast(result), Value.cast(data_in)
        bits = len(data_bits)
        part_bits = self.PART_BITS if self._depth > self.BANK_WORDS else bits
        for start in range(0, bits, part_bits):
            part = slice(start, min(start + part_bits, bits))
            self._part(m, start // part_bits, result_bits[part], data_bits[part])
        return m

    def _part(self, m, index, result, data_in):
        """Some bits of all words; ``data_in`` is registered, and so is ``result``."""
        bank_bits = (self.BANK_WORDS - 1).bit_length()
        number, address = self.write_address[bank_bits:], self.write_address[:bank_bits]
        read_address = copy(m, self.read_address[:bank_bits], f"read_address_{index}")
        write_address = copy(m, copy(m, address, f"address_{index}"), f"write_address_{index}")
        write_data = copy(m, data_in, f"write_data_{index}")
        found = []
        for start in range(0, self._depth, self.BANK_WORDS):
            bank_number = start // self.BANK_WORDS
            name = f"{bank_number}_{index}"
            depth = min(self.BANK_WORDS, self._depth - start)
            bank = Memory(shape=len(result), depth=depth, init=[], attrs=UNCHECKED)
            m.submodules[f"bank{name}"] = bank
            read_port, write_port = bank.read_port(), bank.write_port()
            meant, here = kept(1, f"meant{name}"), Signal(name=f"here{name}")
            found.append(Signal(len(result), name=f"found{name}", reset_less=True))
            m.d.sync += [
                meant.eq(self.write & (number == bank_number)),
                here.eq(meant),
                found[-1].eq(read_port.data),
            ]
            m.d.comb += [
                read_port.addr.eq(read_address),
                write_port.addr.eq(write_address),
                write_port.data.eq(write_data),
                write_port.en.eq(here),
            ]
        selected = self.read_address[bank_bits:][: (len(found) - 1).bit_length()]
        for n in range(3):
            selected = copy(m, selected, f"selected_{index}_{n}")
        with m.Switch(selected):
            for number, word in enumerate(found[:-1]):
                with m.Case(number):
                    m.d.sync += result.eq(word)
            with m.Default():
                m.d.sync += result.eq(found[-1])


class BitMaps(wiring.Component):
    """K-bit words of sign bits, written M bits at a time: one sub-word, ``lanes`` wide.

    Writing sub-word 0 clears the other sub-words of that word, so that bits of channels that do not
    exist are 0.
    """

    def __init__(self, *, word_bits: int, lanes: int, depth: int):
        self._word_bits = word_bits
        self._lanes = lanes
        self._depth = depth
        self._sub_words = word_bits // lanes
        super().__init__(
            {
                "read_address": In(ADDRESS_BITS),
                "read_data": Out(word_bits),
                "write": In(1),
                "write_address": In(ADDRESS_BITS),
                "write_sub_word": In(range(self._sub_words)),
                "write_data": In(lanes),
            }
        )

    def elaborate(self, platform):
        m = Module()
        for i in range(self._sub_words):
            bank = WordMap(shape=self._lanes, depth=self._depth)
            m.submodules[f"bank{i}"] = bank
            mine = self.write_sub_word == i
            m.d.comb += [
                bank.read_address.eq(self.read_address),
                self.read_data.word_select(i, self._lanes).eq(bank.read_data),
                bank.write.eq(self.write & (mine | (self.write_sub_word == 0))),
                bank.write_address.eq(self.write_address),
                bank.write_data.eq(Mux(mine, self.write_data, 0)),
            ]
        return m


class InputRing(wiring.Component):
    """A ring of input bytes: filled word by word by the host, read S bytes at a time by the stem.

    A frame begins on a multiple of four bytes, and may be longer than the ring: the rows that the
    stem has left behind make room for later ones.

    Members
    -------
    write : In(stream of 32-bit words)
        Four bytes each, lowest first; taken when the word before has been stored (every fourth
        cycle) and there is room.
    frame_bytes, row_bytes, rows, rows_ahead : In
        Of the layer, see ``isa.layer``. Constant from ``start`` to ``release``.
    start : In(1)
        A stem begins with the oldest frame.
    active, row : In(1), In(signed)
        The stem's block begins with this input row, which never goes back within a frame.
    ready : Out(1)
        The rows that the block of READY_LATENCY cycles ago wants are there.
    release : In(1)
        Frees what is left of the frame.
    read_address, read_data
        Counts from the frame's first byte; data follow after READ_LATENCY cycles.
    """

    READY_LATENCY = 2

    def __init__(self, *, depth: int, stem_taps: int):
        if depth % WORD_BITS:
            raise ValueError(f"Input ring depth must be a multiple of {WORD_BITS}, not {depth!r}")
        self._depth = depth
        self._stem_taps = stem_taps
        super().__init__(
            {
                "write": In(stream.Signature(WORD_BITS)),
                "frame_bytes": In(ADDRESS_BITS),
                "row_bytes": In(STRIDE_BITS),
                "rows": In(SIZE_BITS),
                "rows_ahead": In(LAYER["rows_ahead"].shape),
                "start": In(1),
                "active": In(1),
                "row": In(signed(SIZE_BITS + 1)),
                "ready": Out(1),
                "release": In(1),
                "read_address": In(ADDRESS_BITS),
                "read_data": Out(data.ArrayLayout(8, stem_taps)),
            }
        )

    def elaborate(self, platform):
        m = Module()
        depth, taps = self._depth, self._stem_taps
        address_bits = (depth - 1).bit_length()
        head, base = Signal(address_bits), Signal(address_bits)
        count = Signal(range(depth + 1))  # bytes stored and not yet freed
        word, bytes_left = Signal(WORD_BITS), Signal(range(5))
        store, room = Signal(), Signal()
        m.d.sync += room.eq(Mux(store, count < depth - 4, count <= depth - 4))
        m.d.comb += [
            self.write.ready.eq((bytes_left == 0) & room),
            store.eq(bytes_left != 0),
        ]
        with m.If(store):
            m.d.sync += [word.eq(word >> 8), bytes_left.eq(bytes_left - 1), head.eq(head + 1)]
        with m.Elif(self.write.valid & self.write.ready):
            m.d.sync += [word.eq(self.write.payload), bytes_left.eq(4)]

        # Rows that are freed and rows that are wanted follow `row`, one a cycle.
        following = Signal()
        first, last = Signal(SIZE_BITS), Signal(SIZE_BITS)  # targets of the two
        freed, wanted = Signal(SIZE_BITS), Signal(SIZE_BITS)
        free_row, want_row = Signal(), Signal()
        frame_size, rest = Signal(ADDRESS_BITS), Signal(ADDRESS_BITS)
        lacking = Signal(ADDRESS_BITS + 1)  # bytes from the first row not freed to the last wanted
        end = Signal(signed(SIZE_BITS + 2))
        # Rows that move pass two registers on their way to `count` and `lacking`, and these another
        # one to `enough`; so nothing is ready until nothing has moved for as long.
        more, less, gone = Signal(STRIDE_BITS), Signal(STRIDE_BITS), Signal(ADDRESS_BITS)
        change, loss = Signal(signed(STRIDE_BITS + 1)), Signal(signed(ADDRESS_BITS + 1))
        enough, moved = Signal(), Signal(3)
        by_rows = self.rows_ahead != 0
        freed_bytes = Mux(free_row, self.row_bytes, 0)
        m.d.comb += [
            frame_size.eq((self.frame_bytes + 3) & ~3),
            end.eq(self.row + self.rows_ahead),
            free_row.eq(following & (freed != first)),
            want_row.eq(following & (wanted != last)),
        ]
        m.d.sync += [
            following.eq(self.active),
            first.eq(Mux(by_rows & (self.row > 0), self.row, 0)),
            last.eq(Mux(by_rows & (end < self.rows), end, self.rows)),
            freed.eq(freed + free_row),
            wanted.eq(wanted + want_row),
            rest.eq(rest - freed_bytes),
            more.eq(Mux(want_row, self.row_bytes, 0)),
            less.eq(freed_bytes),
            gone.eq(Mux(self.release, rest, freed_bytes)),
            change.eq(more - less),
            loss.eq(-gone),
            lacking.eq(lacking + change),
            count.eq(add(m, platform, "count_next", count, loss, bits=len(count), carry=store)),
            enough.eq(count >= lacking),
            moved.eq(Cat(free_row | want_row, moved)),
            self.ready.eq(following & ~free_row & ~want_row & (moved == 0) & enough),
        ]
        with m.If(self.start):
            m.d.sync += [freed.eq(0), wanted.eq(0), lacking.eq(0), rest.eq(frame_size)]
        with m.If(self.release):
            m.d.sync += base.eq(base + frame_size)

        # Byte a stands in bank a % (a power of two), so S consecutive bytes in S different banks.
        bank_bits = (taps - 1).bit_length()
        first = Signal(address_bits)
        m.d.comb += first.eq(self.read_address + base)
        rotation = first[:bank_bits]
        banks = []
        for i in range(1 << bank_bits):
            memory = Memory(shape=8, depth=depth >> bank_bits, init=[], attrs=UNCHECKED)
            m.submodules[f"bank{i}"] = memory
            write_port, read_port = memory.write_port(), memory.read_port()
            row = Signal(address_bits - bank_bits, name=f"row{i}", reset_less=True)
            m.d.sync += row.eq(first[bank_bits:] + (i < rotation))
            m.d.comb += [
                write_port.en.eq(store & (head[:bank_bits] == i)),
                write_port.addr.eq(head[bank_bits:]),
                write_port.data.eq(word[:8]),
                # banks below the first byte's hold the bytes of the next row of banks
                read_port.addr.eq(row),
            ]
            banks.append(Signal(8, name=f"found{i}", reset_less=True))
            m.d.sync += banks[i].eq(read_port.data)
        if taps == 1:
            m.d.sync += self.read_data[0].eq(banks[0])
        else:
            for _ in range(READ_LATENCY - 1):
                later = Signal(bank_bits, name="rotation", reset_less=True)
                m.d.sync += later.eq(rotation)
                rotation = later
            rotated = (Cat(*banks, *banks) >> (rotation << 3))[: 8 * taps]
            m.d.sync += self.read_data.eq(rotated)
        return m


def feature_layout(post_lanes: int) -> data.ArrayLayout:
    """A word of the feature memory: L global sums."""
    return data.ArrayLayout(signed(FEATURE_BITS), post_lanes)
