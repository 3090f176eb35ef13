"""What the compiler refuses."""


class CompileError(ValueError):
    """A network that cannot be compiled; one line that says what, by how much, and what would."""
