"""Streams that one server begins and another one ends."""
