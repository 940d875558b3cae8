"""What keeps a program from doing what it was started for."""

from __future__ import annotations

from headrace.errors.base import HeadraceError


class ConfigError(HeadraceError, ValueError):
    """A setting is out of its range, or does not fit the machine."""

    code = "config_error"
    http_status = 400


class AddressNotAvailable(ConfigError):
    """An address to listen on that is taken, or is none of this machine."""

    code = "address_not_available"


class ModelNotSupported(HeadraceError, ValueError):
    """A model that cannot run here, with the reason."""

    code = "model_not_supported"
    http_status = 400


class BenchmarkFailed(HeadraceError):
    """What a benchmark started or drove did not do its part."""

    code = "benchmark_failed"
