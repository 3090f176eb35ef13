"""The gateware: an accelerator in Amaranth, and its way to a bitstream. Imports only `isa`."""
