"""Noise processes, guidance and samplers: pure array functions; the network comes as a callable."""
