"""What a network is: its shape, the names of its tensors, and what a checkpoint must contain.

A checkpoint is one safetensors file. Its tensors are named by :func:`tensor_shapes`; its metadata
holds one key, ``rbonn``, with the JSON of :class:`CheckpointInfo`.
"""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

CHECKPOINT_FORMAT = 1
BN_EPSILON = 1e-5


#: The key in a checkpoint's ``training`` of seeded weights; its value is the seed.
UNTRAINED = "untrained_seed"


class NetworkError(ValueError):
    """A network, or a checkpoint of it, that breaks the rules of this module."""


@dataclass(frozen=True)
class Stem:
    """The first, real-valued convolution: 3x3 stride 1 or 7x7 stride 2, perhaps 3x3/2 max-pool."""

    kernel: int = 3
    stride: int = 1
    pool: bool = False

    def __post_init__(self) -> None:
        if (self.kernel, self.stride) not in ((3, 1), (7, 2)):
            raise NetworkError(
                f"Stem must be 3x3 stride 1 or 7x7 stride 2, not {self.kernel}x{self.kernel} "
                f"stride {self.stride}"
            )

    @property
    def padding(self) -> int:
        return self.kernel // 2


@dataclass(frozen=True)
class Block:
    """One binary 3x3 convolution with its shortcut. Sizes are (height, width) in pixels."""

    index: int
    in_channels: int
    out_channels: int
    stride: int
    in_size: tuple[int, int]

    @property
    def name(self) -> str:
        return f"blocks.{self.index}"

    @property
    def out_size(self) -> tuple[int, int]:
        return self.in_size[0] // self.stride, self.in_size[1] // self.stride

    @property
    def downsamples(self) -> bool:
        """Whether the shortcut is AvgPool 2x2 + 1x1 convolution + BN instead of the identity."""
        return self.stride == 2


@dataclass(frozen=True)
class Network:
    """A Bi-Real / ReActNet style residual network with one binary convolution a block.

    ``mean`` and ``std`` normalise the uint8 input: x_real = (x / 255 - mean) / std, per channel.
    Every stage after the first begins with a stride-2 block.
    """

    name: str
    input_size: tuple[int, int]
    input_channels: int
    classes: int
    widths: tuple[int, ...]
    blocks_per_stage: tuple[int, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    stem: Stem = field(default_factory=Stem)

    def __post_init__(self) -> None:
        if not 1 <= len(self.name.encode()) <= 32:
            raise NetworkError(f"Network name must be 1 to 32 bytes long, not {self.name!r}")
        if len(self.widths) != len(self.blocks_per_stage) or not self.widths:
            raise NetworkError(
                f"Network must have one width per stage, not {self.widths!r} for "
                f"{self.blocks_per_stage!r}"
            )
        if min(self.blocks_per_stage) < 1 or min(self.widths) < 1:
            raise NetworkError(
                f"Stages must have at least one block and one channel, not "
                f"{self.blocks_per_stage!r} blocks of {self.widths!r} channels"
            )
        for narrow, wide in zip(self.widths, self.widths[1:], strict=False):
            if not narrow <= wide <= 2 * narrow:
                raise NetworkError(
                    f"A stage's width must be 1 to 2 times the one before it, not {wide} after "
                    f"{narrow}"
                )
        if not 1 <= self.input_channels <= 4:
            raise NetworkError(f"Input channels must be 1 to 4, not {self.input_channels!r}")
        if len(self.mean) != self.input_channels or len(self.std) != self.input_channels:
            raise NetworkError(
                f"mean and std must have one value per input channel ({self.input_channels}), not "
                f"{len(self.mean)} and {len(self.std)}"
            )
        if not all(math.isfinite(value) for value in self.mean):
            raise NetworkError(f"mean must be finite, not {self.mean!r}")
        if not all(math.isfinite(value) and value > 0 for value in self.std):
            raise NetworkError(f"std must be positive, not {self.std!r}")
        if not 1 <= self.classes <= 1024:
            raise NetworkError(f"Classes must be 1 to 1024, not {self.classes!r}")
        multiple = self.stem.stride * (2 if self.stem.pool else 1) << (len(self.widths) - 1)
        if len(self.input_size) != 2:
            raise NetworkError(f"Input size must be height and width, not {self.input_size!r}")
        for size in self.input_size:
            if size < multiple or size % multiple:
                raise NetworkError(
                    f"Input size must be a multiple of {multiple} for this stem and "
                    f"{len(self.widths)} stages, not {self.input_size[0]}x{self.input_size[1]}"
                )

    @property
    def stem_size(self) -> tuple[int, int]:
        """Size of the stem convolution's output, before the max-pool."""
        return self.input_size[0] // self.stem.stride, self.input_size[1] // self.stem.stride

    @property
    def map_size(self) -> tuple[int, int]:
        """Size of the residual map that the first block sees."""
        shrink = 2 if self.stem.pool else 1
        return self.stem_size[0] // shrink, self.stem_size[1] // shrink

    @property
    def final_size(self) -> tuple[int, int]:
        """Size of the map that the global average sees."""
        shrink = len(self.widths) - 1
        return self.map_size[0] >> shrink, self.map_size[1] >> shrink

    def blocks(self) -> Iterator[Block]:
        """The blocks in order."""
        index, channels, size = 0, self.widths[0], self.map_size
        for stage, (width, count) in enumerate(
            zip(self.widths, self.blocks_per_stage, strict=True)
        ):
            for position in range(count):
                stride = 2 if stage > 0 and position == 0 else 1
                block = Block(index, channels, width, stride, size)
                yield block
                index, channels, size = index + 1, width, block.out_size

    def residual_names(self) -> list[str]:
        """Names of the residual tensors that carry a scale, in order of computation."""
        names = ["stem"]
        for block in self.blocks():
            names += [f"{block.name}.shortcut"] * block.downsamples + [block.name]
        return names


def tensor_shapes(network: Network) -> dict[str, tuple[int, ...]]:
    """Every tensor of a checkpoint of ``network`` with its shape.

    ``conv.weight`` of a block is latent: only its sign counts (sign(0) = +1). ``conv.alpha`` is
    the scale that the forward pass multiplies the signs with, so a released 0.02 is already in it.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def bn(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{name}.{part}"] = (channels,)

    kernel = network.stem.kernel
    shapes["stem.conv.weight"] = (network.widths[0], network.input_channels, kernel, kernel)
    bn("stem.bn", network.widths[0])
    for block in network.blocks():
        cin, cout = block.in_channels, block.out_channels
        shapes[f"{block.name}.bias0"] = (cin,)
        shapes[f"{block.name}.conv.weight"] = (cout, cin, 3, 3)
        shapes[f"{block.name}.conv.alpha"] = (cout,)
        bn(f"{block.name}.bn", cout)
        if block.downsamples:
            shapes[f"{block.name}.shortcut.conv.weight"] = (cout, cin, 1, 1)
            bn(f"{block.name}.shortcut.bn", cout)
        for part in ("bias1", "prelu", "bias2"):
            shapes[f"{block.name}.{part}"] = (cout,)
    shapes["fc.weight"] = (network.classes, network.widths[-1])
    shapes["fc.bias"] = (network.classes,)
    return shapes


@dataclass(frozen=True)
class Quantisation:
    """Scales of the residual stream: one LSB of tensor ``x`` is ``scale * 2**exponents[x]``."""

    scale: float
    exponents: Mapping[str, int]

    def lsb(self, name: str) -> float:
        return math.ldexp(self.scale, self.exponents[name])


@dataclass(frozen=True)
class CheckpointInfo:
    """Metadata of a checkpoint. ``quantisation`` is None until the network has been calibrated."""

    network: Network
    quantisation: Quantisation | None
    training: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Any] = field(default_factory=dict)
    format: int = CHECKPOINT_FORMAT

    @property
    def untrained(self) -> bool:
        """Whether the weights are seeded ones: they serve to measure time, and classify nothing."""
        return UNTRAINED in self.training

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "CheckpointInfo":
        """Raises NetworkError where the text is not such metadata."""
        try:
            raw = json.loads(text)
            if raw["format"] != CHECKPOINT_FORMAT:
                raise NetworkError(
                    f"Checkpoint format must be {CHECKPOINT_FORMAT}, not {raw['format']!r}"
                )
            quantisation = raw["quantisation"]
            return cls(
                network=network_from_dict(raw["network"]),
                quantisation=None if quantisation is None else Quantisation(**quantisation),
                training=raw.get("training", {}),
                metrics=raw.get("metrics", {}),
            )
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise NetworkError(f"Checkpoint metadata must be complete JSON, not {error}") from error


def network_from_dict(raw: Mapping[str, Any]) -> Network:
    """A network from plain JSON or YAML data. Raises NetworkError for a wrong or unknown key."""
    known = {f.name for f in dataclasses.fields(Network)}
    if unknown := sorted(set(raw) - known):
        raise NetworkError(f"Network keys must be among {sorted(known)}, not {unknown}")
    try:
        values: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in raw.items()
        }
        values["stem"] = Stem(**raw.get("stem", {}))
        return Network(**values)
    except (TypeError, AttributeError) as error:
        raise NetworkError(f"Network description must be complete: {error}") from error
