"""Simulation: gateware and golden model, joined."""
