"""What every kind of value does."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from headrace.errors import InvalidField
from headrace.protocol.shown import shown

Schema = dict[str, Any]
INT64 = 2**63 - 1


@dataclass(slots=True)
class Reading:
    """One body that is being read.

    Attributes:
        strict: unknown fields are errors.
        ignored: paths of the unknown fields.
    """

    strict: bool = False
    ignored: list[str] = field(default_factory=list)


class Kind(ABC):
    """What a value may be."""

    @property
    @abstractmethod
    def words(self) -> str:
        """What is taken, to stand after "is not allowed: "."""

    @abstractmethod
    def takes(self, value: Any) -> bool:
        """Whether the value is of the right JSON type; its range is looked at by `read`."""

    @abstractmethod
    def schema(self) -> Schema:
        """As JSON schema."""

    def read(self, value: Any, at: str, reading: Reading) -> Any:
        """The value, normalised.

        Raises:
            InvalidField: it is not of this kind; `at` is its path.
        """
        if not self.takes(value):
            raise InvalidField(at, shown(value), self.words)
        return value
