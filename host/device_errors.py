"""What an accelerator may report, in words for the user."""

from isa.registers import ErrorCode

EXPLANATIONS = {
    ErrorCode.NONE: "it reports no error",
    ErrorCode.MAGIC: "the image in its memory does not begin with the magic word; load it again",
    ErrorCode.IMAGE_VERSION: "the image has another format version; compile it again",
    ErrorCode.FOREIGN_GEOMETRY: "the image is for another geometry; compile it for this board",
    ErrorCode.HEADER_CRC: "the image's header is corrupt; load it again",
    ErrorCode.PACKET: "a packet of the image is corrupt or out of order; load it again",
    ErrorCode.FRAME_CRC: "the image's CRC-32 is wrong; load it again",
    ErrorCode.WATCHDOG: "it saw no progress: pixels or image words did not arrive in time",
    ErrorCode.NOT_READY: "a frame was started before an image was loaded and checked",
    ErrorCode.NO_MEMORY: "it has no SDRAM, or none that passed the test at start-up",
}
"""What each code means and what to do; completes "Device reports an error: ..."."""

assert set(EXPLANATIONS) == set(ErrorCode)


class DeviceError(RuntimeError):
    """A device that is not ours, does not answer in time or reports an error.

    ``code`` is the error that the device reported, if it did.
    """

    def __init__(self, message: str, code: ErrorCode | None = None) -> None:
        super().__init__(message)
        self.code = code
