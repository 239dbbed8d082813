"""Batch norm whose statistics are those of all processes' batches together."""

import torch
from torch import Tensor, nn

from stages.core import processes


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (B, C, H, W) over the joined batch of all processes.

    In training with several processes, the mean μ and the variance σ² of a channel are over the
    positions of all samples in all processes: y = γ (x − μ) / √(σ² + ε) + β, and the running
    statistics move towards μ and the unbiased variance, alike everywhere. Else it is torch's.
    (torch's SyncBatchNorm, for the same purpose, does not run on a CPU.)
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or processes.count() == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        # Sums over many positions need more digits than a half-precision feature has.
        x = input.to(self.weight.dtype)
        positions = x.new_full((1,), x.numel() / x.shape[1])
        sums = processes.total(torch.cat([x.sum(dim=(0, 2, 3)), positions]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = x - mean[:, None, None]
        # A second sum, as the mean of squares less the squared mean would lose digits.
        variance = processes.total(centred.square().sum(dim=(0, 2, 3))) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)
