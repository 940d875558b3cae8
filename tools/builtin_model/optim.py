"""The optimiser: Muon for the matrices, AdamW for the rest, and a running mean of the weights.

Muon makes each update of a matrix close to orthogonal, which is known to need fewer
steps than AdamW; here the steps are what is scarce. torch.optim.Muon computes in
bfloat16, which a CPU without bf16 units emulates, so the few lines are here in fp32,
for all matrices of one shape at once.
"""

from __future__ import annotations

from collections import defaultdict

import torch

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def orthogonalize(grads: torch.Tensor, steps: int = 4) -> torch.Tensor:
    """Push the singular values of a stack of matrices towards one."""
    a, b, c = NEWTON_SCHULZ
    tall = grads.shape[-2] > grads.shape[-1]
    x = grads.mT if tall else grads
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class Muon:
    """Momentum with orthogonalized updates, for two-dimensional parameters."""

    def __init__(self, params: list[torch.nn.Parameter], momentum: float = 0.95, decay: float = 0.01) -> None:
        """Group the parameters by shape, so that one batched product serves all of a shape."""
        groups: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
        for param in params:
            groups[param.shape].append(param)
        self.groups = list(groups.values())
        self.buffers = [torch.zeros(len(group), *group[0].shape) for group in self.groups]
        self.momentum, self.decay = momentum, decay

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update all parameters from their gradients, and drop the gradients."""
        for group, buffer in zip(self.groups, self.buffers, strict=True):
            grads = torch.stack([param.grad for param in group if param.grad is not None])
            buffer.lerp_(grads, 1 - self.momentum)
            update = orthogonalize(grads.lerp(buffer, self.momentum))
            rows, cols = group[0].shape
            scale = lr * max(1.0, rows / cols) ** 0.5
            for param, delta in zip(group, update, strict=True):
                param.mul_(1 - lr * self.decay).add_(delta, alpha=-scale)
                param.grad = None


class Optimizer:
    """Both optimisers behind one step, and the mean of the weights that is evaluated and saved."""

    def __init__(self, model: torch.nn.Module, muon_lr: float, adam_lr: float, mean_decay: float) -> None:
        """Split the parameters: matrices inside the layers go to Muon, embedding and norms to AdamW."""
        named = list(model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        others = [p for name, p in named if p.ndim != 2 or "embed" in name]
        self.muon, self.muon_lr, self.adam_lr = Muon(matrices), muon_lr, adam_lr
        self.adam = torch.optim.AdamW(others, lr=adam_lr, betas=(0.9, 0.98), weight_decay=0.0, fused=True)
        self.params = [p for _, p in named]
        self.mean = [p.detach().clone() for p in self.params]
        self.mean_decay, self.count = mean_decay, 0

    def step(self, factor: float) -> None:
        """One update with both learning rates scaled by `factor`."""
        for group in self.adam.param_groups:
            group["lr"] = self.adam_lr * factor
        self.adam.step()
        self.adam.zero_grad()
        self.muon.step(self.muon_lr * factor)
        self.count += 1
        decay = min(self.mean_decay, self.count / (self.count + 10))
        torch._foreach_lerp_(self.mean, [p.detach() for p in self.params], 1 - decay)

    @torch.no_grad()
    def swap_mean(self) -> None:
        """Exchange the weights with their mean; a second call undoes it."""
        for param, mean in zip(self.params, self.mean, strict=True):
            kept = param.detach().clone()
            param.copy_(mean)
            mean.copy_(kept)
