"""Noise, samplers and guidance, each apart from the network."""
