"""Has an accelerator hold an image, and prove which one it holds."""

from collections.abc import Callable

from host.device_errors import DeviceError
from host.register_access import RegisterAccess
from isa.geometry import Geometry
from isa.image import Image
from isa.registers import Register, Source, State

CHECK_TIMEOUT = 5.0  # seconds; checking the largest image takes milliseconds


class ImageLoader:
    """The image of a device, and the way to it.

    ``source``: where the image is kept: RAM or SDRAM on the device, or LINK, which streams it again
    for every frame. ``progress(done, total)`` is called with words while an image is sent.
    ``image``: what the device was last made to hold; None before that, and after an error.
    """

    def __init__(
        self,
        registers: RegisterAccess,
        *,
        source: Source,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.image: Image | None = None
        self._registers = registers
        self._source = source
        self._progress = progress

    def load(self, image: Image, geometry: Geometry) -> None:
        """Has a device of this geometry hold and check a parsed image. Raises DeviceError.

        One that it holds already, from its bitstream or from an earlier session, is not sent again.
        """
        if self._source is Source.SDRAM:
            self._registers.await_memory()
        self._check_room(image, geometry)
        self.image = image
        self._registers.command("abort")
        self._registers.write(Register.SOURCE, self._source.value)
        try:
            if self._source is Source.LINK or not self._holds(image):
                self._send(image)
        except DeviceError:
            self.image = None
            raise

    def restore(self) -> None:
        """Has the image checked once more, and sends it again if that fails. Raises DeviceError.

        For a device that is IDLE; does nothing if there is no image.
        """
        if self.image is not None and not self._holds(self.image):
            self._send(self.image)

    def _check_room(self, image: Image, geometry: Geometry) -> None:
        room = {Source.RAM: geometry.image_words, Source.SDRAM: geometry.sdram_image_words}
        words = room.get(self._source)
        if words == 0:
            raise DeviceError("Device must have a block RAM to keep its image there: it has none")
        if words is not None and len(image.words) > words:
            raise DeviceError(
                f"Image must fit the {words} words of the device's image memory, "
                f"not {len(image.words)}: {len(image.words) - words} too many"
            )

    def _holds(self, image: Image) -> bool:
        """Whether the device proves to hold the image."""
        try:
            self._check(image)
        except DeviceError:
            return False
        return True

    def _send(self, image: Image) -> None:
        self._registers.command("abort")
        if self._source is not Source.LINK:
            self._registers.write_window(Register.IMAGE, image.words, self._progress)
        self._check(image)

    def _check(self, image: Image) -> None:
        """Has the device check the image it holds, and confirms which image that is."""
        self._registers.command("check")
        if self._source is Source.LINK:
            self._registers.write_port(Register.STREAM, image.words)
        self._registers.await_state(State.READY, CHECK_TIMEOUT, "check its image")
        crc = self._registers.read(Register.IMAGE_CRC)
        if crc != image.crc32:
            raise DeviceError(
                f"Device must have the image with CRC-32 {image.crc32:#010x} after loading "
                f"it, not the one with {crc:#010x}"
            )
