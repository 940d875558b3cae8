"""The HTTP application of one engine."""
