"""Geometries that exist in tests only."""

import dataclasses

from isa.geometry import TINY, ULX3S_25F

TINY_SDRAM = dataclasses.replace(TINY, name="tiny-sdram", image_words=0, sdram_bytes=1 << 17)
"""The image in an SDRAM, as on the large board: 16,384 words, and 64 KiB of input frames."""

MIDDLE_SDRAM = dataclasses.replace(
    ULX3S_25F, name="middle-sdram", image_words=0, sdram_bytes=1 << 20
)
"""Large enough for layers that wait for their weights."""

TINY_STEM = dataclasses.replace(TINY, name="tiny-stem", taps=2, stem_taps=3)
"""More products for the stem than for other layers, as on the large board."""
