"""A board's stand-in behind a pseudo-terminal: the framed protocol around the register map."""

import os
import threading
import tty

from host.golden_transport import GoldenTransport
from isa import checked, link
from isa.link import Command, Status


class SerialDevice:
    """Answers on the pseudo-terminal ``name`` until the `with` block ends.

    ``silent_after``: START commands after which it no longer answers; None: never.
    """

    def __init__(self, geometry, *, silent_after=None):
        self.transport = GoldenTransport(geometry)
        self.silent_after = silent_after
        self.frames = 0

    def __enter__(self):
        self._ours, theirs = os.openpty()
        tty.setraw(theirs)
        self._theirs = theirs  # kept open, so that the host may come and go
        self.name = os.ttyname(theirs)
        self._wake, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_):
        os.close(self._stop)
        self._thread.join(5)
        for descriptor in (self._wake, self._ours, self._theirs):
            os.close(descriptor)

    def _serve(self):
        import select

        buffer = b""
        while True:
            ready, _, _ = select.select([self._ours, self._wake], [], [])
            if self._wake in ready:
                return
            buffer += os.read(self._ours, 4096)
            while (length := self._length(buffer)) and len(buffer) >= length:
                answer = self._execute(buffer[1 : length - link.CRC_BYTES])
                buffer = buffer[length:]
                if self.silent_after is None or self.frames < self.silent_after:
                    os.write(self._ours, answer)

    @staticmethod
    def _length(buffer):
        """Bytes of the request at the start of ``buffer``; 0 while that is unknown."""
        if len(buffer) < 1 + link.REQUEST_BYTES:
            return 0
        assert buffer[0] == link.REQUEST_SYNC
        head = buffer[1 : 1 + link.REQUEST_BYTES]
        fields = checked.decode(link.REQUEST, int.from_bytes(head, "little"))
        words = fields["count"] if fields["command"] == Command.WRITE.value else 0
        return 1 + link.REQUEST_BYTES + link.WORD_BYTES * words + link.CRC_BYTES

    def _execute(self, body):
        head = int.from_bytes(body[: link.REQUEST_BYTES], "little")
        fields = checked.decode(link.REQUEST, head)
        command, payload = Command(fields["command"]), 0
        if command is Command.SYNC:
            payload = [link.VERSION]
        elif command is Command.READ:
            payload = self.transport.read(fields["address"], fields["count"])
        else:
            words = link.bytes_to_words(body[link.REQUEST_BYTES :])
            before = self.transport._state
            self.transport.write(fields["address"], words)
            payload = len(words)
            self.frames += before.name in ("READY", "DONE") and fields["address"] == 3
        return link.response(fields["sequence"], command, Status.OK, payload)
