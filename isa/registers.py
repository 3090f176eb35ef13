"""The host's view of the accelerator: a space of 32-bit words, addressed by word.

The same map is seen through every transport. Windows marked as ports do not increment: every word
written to them is pushed into a queue, and the bus stalls while that queue is full. In state ERROR
such words are dropped: they belong to a frame that has failed. Words for STREAM are taken between
CHECK or START and the end of what that streams; those that came before are dropped.

Unknown addresses read 0 and ignore writes; so do logits and top-k in any state but DONE. A write to
IMAGE or SOURCE turns READY and DONE into IDLE, as what was checked is no longer what is there;
SOURCE keeps its value while the state is CHECKING or RUNNING. Where the network has fewer classes
than the top-k has entries, the others hold NO_CLASS and the smallest logit.
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
    # Perf counters of the last frame, in cycles
    CYCLES = 0x10  # from the start of the frame to its logits
    BINARY_CYCLES = 0x11  # during which a binary layer was being computed
    ARRAY_BUSY = 0x12  # ... and the XNOR array worked
    MAC_BUSY = 0x13  # during which the MAC array worked
    WAIT_WEIGHTS = 0x14  # a step waited for its weight set
    WAIT_INPUT = 0x15  # a step waited for input rows
    WAIT_POST = 0x16  # a step waited for the output RAM
    WAIT_LOAD = 0x17  # the sequencer waited for a descriptor
    STREAM_BUSY = 0x18  # the loader took a word of the image
    WAIT_STREAM = 0x19  # the loader waited for one; in all other cycles its buffers were full
    TOP_CLASS = 0x20  # TOP_CLASS + i: class of the i-th largest logit; ties: lower class first
    TOP_LOGIT = 0x28  # TOP_LOGIT + i: its logit, sign-extended
    INPUT = 0x100  # port: bytes of the next frame, 4 a word, lowest first, HWC order
    STREAM = 0x200  # port: image words, with Source.LINK
    LOGITS = 0x1000  # LOGITS + class, sign-extended
    # IMAGE + word: the image, in the memory that SOURCE names; write only
    IMAGE = 1 << IMAGE_ADDRESS_BITS


PORTS = frozenset({Register.INPUT, Register.STREAM})


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
