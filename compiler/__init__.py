"""From a checkpoint to a model image, by passes over a small intermediate representation."""
