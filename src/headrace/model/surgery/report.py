"""What surgery did to a model, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field


@dataclass(slots=True)
class SurgeryReport:
    """Counts per kind of replacement and class of module.

    Attributes:
        fused: replaced modules, by (kind, class name); kinds are "attention", "mlp", "experts", "linear", "product"
            (a matrix in a module's own code), "embedding" (tied to a linear), "norm", "layer".
        dropped: modules that stay the model's own, by (kind, class name, reason).
        packed_bytes: memory of the packed weights. seconds: how long it all took.
    """

    fused: Counter[tuple[str, str]] = field(default_factory=Counter)
    dropped: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    packed_bytes: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line: `attention 8 LlamaAttention, linear 1 Linear; kept: …`."""
        fused = ", ".join(f"{kind} {count} {name}" for (kind, name), count in self.fused.items()) or "nothing"
        kept = "; ".join(f"{count} {name} not as {kind}: {why}" for (kind, name, why), count in self.dropped.items())
        return fused + (f"; kept: {kept}" if kept else "")

    def as_dict(self) -> dict[str, object]:
        """For `headrace doctor`."""
        return {
            "fused": [
                {"kind": kind, "class": name, "num_modules": count} for (kind, name), count in self.fused.items()
            ],
            "kept": [
                {"kind": kind, "class": name, "num_modules": count, "reason": reason}
                for (kind, name, reason), count in self.dropped.items()
            ],
            "packed_bytes": self.packed_bytes,
            "seconds": round(self.seconds, 2),
        }
