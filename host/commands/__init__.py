"""The commands of `rbonn`, one module each; see :data:`host.cli.COMMANDS`."""
