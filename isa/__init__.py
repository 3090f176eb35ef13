"""The contract between training, compiler, gateware and host: all that they must agree on."""
