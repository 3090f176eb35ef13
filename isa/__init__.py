"""The contract between training, compiler, gateware and host: everything that two of them must agree on."""
