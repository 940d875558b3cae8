"""Attention over the paged cache: one op, implementations by name."""
