"""Checks of constructor arguments, so that every unit refuses the same things in the same words."""


def check_positive(subject, **values):
    """Raises TypeError or ValueError unless every value is an int of at least 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"{subject} {name} must be a positive integer, not {value!r}")
        if value < 1:
            raise ValueError(f"{subject} {name} must be a positive integer, not {value!r}")


def check_multiple(subject, name, value, other, divisor):
    """Raises ValueError unless ``value`` is a multiple of the one named ``other``."""
    if value % divisor:
        raise ValueError(
            f"{subject} {name} must be a multiple of {other} ({divisor}), not {value!r}"
        )


def check_at_least(subject, name, value, other, least):
    """Raises ValueError if ``value`` is less than the one named ``other``."""
    if value < least:
        raise ValueError(f"{subject} {name} must be at least {other} ({least}), not {value!r}")
