"""Runs every decoder class of transformers, in a tiny random configuration, and writes `docs/models.md`."""
