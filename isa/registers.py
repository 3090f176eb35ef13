"""The host's view of the accelerator: a space of 32-bit words, addressed by word.

The same map is seen through every transport. Windows marked as ports do not increment: every word
written to them is pushed into a queue, and the bus stalls while that queue is full. In state ERROR
such words are dropped: they belong to a frame that has failed. Words for STREAM are taken between
CHECK or START and the end of what that streams; those that came before are dropped.

Unknown addresses read 0 and ignore writes; so do logits and top-k in any state but DONE. A write to
IMAGE or SOURCE turns READY and DONE into IDLE, as what was checked is no longer what is there;
SOURCE keeps its value while the state is CHECKING or RUNNING. Where the network has fewer classes
than the top-k has entries, the others hold NO_CLASS and the smallest logit.

The perf counters count cycles of the last frame. CYCLES are all of them, from the one in which the
state becomes RUNNING to the one in which the core has done. In each cycle exactly one of these
counts, so that their sum is CYCLES:

    ARRAY_BUSY     the XNOR array is given an operand
    MAC_BUSY       the MAC array is: stem (also the next frame's), 1x1 convolution, classifier
    REDUCE_BUSY    a word of the residual map is read for a 2x2 average or the global sum
    WAIT_WEIGHTS   a step waits for its weight set
    WAIT_INPUT     a step of the stem waits for input rows
    WAIT_POST      a block's last step waits for the output RAM: the post-process is behind
    WAIT_LOAD      the sequencer waits for a layer's descriptor; the first one's for a frame's start
    BEGIN_LAYER    a layer's descriptor has come, its units and addresses are being set up
    DRAIN_LAYER    a layer has made its last step, its last results are on their way to the maps
    SCAN_LOGITS    the largest logits are looked for
    WAIT_CRC       the CRC at the frame's end has yet to vouch for it; one cycle if it came before

BINARY_CYCLES sums up those of the layers on the XNOR array, whatever they do, from the cycle after
their descriptor's. STREAM_BUSY and WAIT_STREAM divide the loader's time: it took a word of the
image, or had room for one that did not come; in all other cycles its buffers were full.
"""

from amaranth.lib import data, enum

IMAGE_ADDRESS_BITS = 22
"""Bits of an image's word address, in whichever memory it is."""

ADDRESS_BITS = IMAGE_ADDRESS_BITS + 1
CLASS_BITS = 16
NO_CLASS = (1 << CLASS_BITS) - 1


class Register(enum.IntEnum):
    ID = 0x00  # reads image.MAGIC
    VERSION = 0x01  # reads image.VERSION
    GEOMETRY = 0x02  # reads the geometry's digest
    CONTROL = 0x03  # write: CONTROL layout, each bit acts once
    STATUS = 0x04  # read: State
    ERROR = 0x05  # read: ErrorCode of the last abort; cleared by CHECK, START and ABORT
    FRAMES = 0x06  # frames finished since reset
    WATCHDOG = 0x07  # read and write: cycles without progress after which a frame is aborted
    CLASSES = 0x08  # classes of the loaded image (known after CHECK)
    SOURCE = 0x09  # read and write: Source
    IMAGE_CRC = 0x0A  # frame_crc32 in the header of the loaded image (known after CHECK)
    MEMORY = 0x0B  # read: MEMORY layout, the external memory
    # Perf counters of the last frame, in cycles: see above
    CYCLES = 0x10
    BINARY_CYCLES = 0x11
    ARRAY_BUSY = 0x12
    MAC_BUSY = 0x13
    WAIT_WEIGHTS = 0x14
    WAIT_INPUT = 0x15
    WAIT_POST = 0x16
    WAIT_LOAD = 0x17
    STREAM_BUSY = 0x18
    WAIT_STREAM = 0x19
    REDUCE_BUSY = 0x1A
    BEGIN_LAYER = 0x1B
    DRAIN_LAYER = 0x1C
    SCAN_LOGITS = 0x1D
    WAIT_CRC = 0x1E
    TOP_CLASS = 0x20  # TOP_CLASS + i: class of the i-th largest logit; ties: lower class first
    TOP_LOGIT = 0x28  # TOP_LOGIT + i: its logit, sign-extended
    INPUT = 0x100  # port: bytes of the next frame, 4 a word, lowest first, HWC order
    STREAM = 0x200  # port: image words, with Source.LINK
    LOGITS = 0x1000  # LOGITS + class, sign-extended
    # IMAGE + word: the image, in the memory that SOURCE names; write only
    IMAGE = 1 << IMAGE_ADDRESS_BITS


PORTS = frozenset({Register.INPUT, Register.STREAM})

COUNTERS = tuple(Register(number) for number in range(Register.CYCLES, Register.WAIT_CRC + 1))
"""The perf counters."""

EXCLUSIVE = (
    Register.ARRAY_BUSY,
    Register.MAC_BUSY,
    Register.REDUCE_BUSY,
    Register.WAIT_WEIGHTS,
    Register.WAIT_INPUT,
    Register.WAIT_POST,
    Register.WAIT_LOAD,
    Register.BEGIN_LAYER,
    Register.DRAIN_LAYER,
    Register.SCAN_LOGITS,
    Register.WAIT_CRC,
)
"""Those of which one counts in each cycle of a frame."""


CONTROL = data.StructLayout(
    {
        "start": 1,  # compute a frame; state must be READY or DONE
        "check": 1,  # stream the image once, muted, through all checks
        "abort": 1,  # reset everything but control and link; clears the input
        # with start: another frame follows, whose pixels are or will be there; its stem may be
        # computed in this one, and the next start computes the rest of it
        "more": 1,
    }
)


MEMORY = data.StructLayout(
    {
        "present": 1,  # nothing else means anything where this is 0
        "ready": 1,  # initialised, and tested from end to end
        "fault": 1,  # the test has read something else than it had written
        "copying": 1,  # an image may still come from the flash; a host had better wait
        "unused": 4,
        "fault_address": 24,  # where first, in bursts of 16 bytes
    }
)


class Source(enum.Enum, shape=2):
    RAM = 0
    LINK = 1  # CHECK takes the whole image from STREAM, START its frame section
    SDRAM = 2  # where the board has an external memory


class State(enum.Enum, shape=3):
    IDLE = 0  # no image has been checked
    CHECKING = 1
    READY = 2
    RUNNING = 3
    DONE = 4  # READY, and logits and perf counters are those of the last frame
    ERROR = 5  # see ERROR; CHECK or ABORT leads out of it


class ErrorCode(enum.Enum, shape=4):
    NONE = 0
    MAGIC = 1  # the image does not begin with the magic word
    IMAGE_VERSION = 2
    FOREIGN_GEOMETRY = 3
    HEADER_CRC = 4
    PACKET = 5  # CRC-8, type or length of a packet header, or packets in the wrong order
    FRAME_CRC = 6
    WATCHDOG = 7  # no progress: input or stream did not arrive in time
    NOT_READY = 8  # START without a checked image; START or CHECK while CHECKING or RUNNING
    NO_MEMORY = 9  # CHECK with a SOURCE that is not there, or an SDRAM that has not passed its test
