"""Tokens on their way from the device to the host."""

from __future__ import annotations

import torch


class OnItsWay:
    """A copy that has begun."""

    def __init__(self, host: torch.Tensor, arrived: torch.cuda.Event | None) -> None:
        """`arrived` is None where it is there already."""
        self._host = host
        self._arrived = arrived

    def wait(self) -> list[int]:
        """The integers, when they are there. Raises what the device raised meanwhile."""
        if self._arrived is not None:
            self._arrived.synchronize()
        values: list[int] = self._host.tolist()
        return values


class ReadBack:
    """Copies integers into locked memory of the host, without waiting; two copies at most are on their way."""

    def __init__(self, max_rows: int, device: torch.device) -> None:
        """Allocate for copies of up to `max_rows`."""
        self._is_apart = device.type == "cuda"
        self._hosts = [torch.zeros(max_rows, dtype=torch.int64, pin_memory=self._is_apart) for _ in range(2)]

    def begin(self, values: torch.Tensor) -> OnItsWay:
        """Start to copy int64 values of the device."""
        self._hosts.reverse()
        host = self._hosts[0][: len(values)]
        host.copy_(values, non_blocking=True)
        if not self._is_apart:
            return OnItsWay(host, None)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        return OnItsWay(host, arrived)
