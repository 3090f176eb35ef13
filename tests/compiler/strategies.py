"""Random small networks that fit every geometry."""

from hypothesis import strategies as st

from isa.network import Network, Stem


@st.composite
def networks(draw: st.DrawFn) -> Network:
    stem = draw(st.sampled_from([Stem(), Stem(), Stem(3, 1, True), Stem(7, 2), Stem(7, 2, True)]))
    stages = draw(st.integers(1, 3))
    widths = [draw(st.integers(1, 10))]
    for _ in range(stages - 1):
        widths.append(draw(st.integers(widths[-1], 2 * widths[-1])))
    multiple = stem.stride * (2 if stem.pool else 1) << (stages - 1)
    largest = max(1, 12 // multiple)
    size = tuple(multiple * draw(st.integers(1, largest)) for _ in range(2))
    channels = draw(st.integers(1, 4))
    return Network(
        name="random",
        input_size=size,
        input_channels=channels,
        classes=draw(st.integers(1, 16)),
        widths=tuple(widths),
        blocks_per_stage=tuple(draw(st.integers(1, 2)) for _ in widths),
        mean=tuple(draw(st.floats(0, 1)) for _ in range(channels)),
        std=tuple(draw(st.floats(0.1, 1)) for _ in range(channels)),
        stem=stem,
    )
