# Amaranth has no types. Without these, its enumerations would pass for plain integers.
import enum
from typing import Any

class Enum(enum.Enum):  # type: ignore[misc]  # members come with subclasses
    def __init_subclass__(cls, *, shape: Any = ..., view_class: Any = ...) -> None: ...

class IntEnum(enum.IntEnum):  # type: ignore[misc]
    def __init_subclass__(cls, *, shape: Any = ..., view_class: Any = ...) -> None: ...
