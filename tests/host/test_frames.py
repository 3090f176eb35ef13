"""Frames as words."""

import numpy as np

from host.frames import pack_frame, sign_extended


def test_words_of_a_frame():
    frame = np.arange(1, 7, dtype=np.uint8).reshape(1, 2, 3)
    assert pack_frame(frame) == [0x04030201, 0x0605]
    assert sign_extended(0xFFFF_FFFE) == -2
    assert sign_extended(5) == 5
