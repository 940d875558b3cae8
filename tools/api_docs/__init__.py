"""Writes docs/api.md from the table of fields of the HTTP interface."""
