"""The pure core: semantics without I/O, clock, randomness or framework."""
