"""Messages on a byte stream: four bytes of length, little-endian, then so many bytes."""

from __future__ import annotations

_PREFIX_BYTES = 4


def framed(payload: bytes) -> bytes:
    """A payload with its length before it."""
    return len(payload).to_bytes(_PREFIX_BYTES, "little") + payload


class FrameBuffer:
    """Cuts what arrives, in pieces of any size, into payloads."""

    def __init__(self) -> None:
        """Nothing has arrived."""
        self._rest = bytearray()
        self._wanted = _PREFIX_BYTES  # no frame can be whole before the rest has so many bytes

    def feed(self, data: bytes) -> list[bytes]:
        """Payloads that are whole with these bytes."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return []
            data = bytes(self._rest)
        payloads, start, size = [], 0, len(data)
        self._wanted = _PREFIX_BYTES
        while size - start >= _PREFIX_BYTES:
            end = start + _PREFIX_BYTES + int.from_bytes(data[start : start + _PREFIX_BYTES], "little")
            if end > size:
                self._wanted = end - start
                break
            payloads.append(data[start + _PREFIX_BYTES : end])
            start = end
        self._rest = bytearray(data[start:])
        return payloads
