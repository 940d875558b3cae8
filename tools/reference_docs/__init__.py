"""Writes the reference pages of settings and metrics."""
