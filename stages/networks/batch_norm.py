"""Batch norm with statistics over the batches of all processes."""

import torch
from torch import Tensor, nn

from stages.core import processes


class BatchNorm(nn.BatchNorm2d):
    """Batch norm of (B, C, H, W) over the joined batch of all processes.

    In training with several processes, a channel's mean μ and variance σ² are computed over the
    positions of all samples in all processes: y = γ (x − μ) / √(σ² + ε) + β. The running
    statistics move towards μ and the unbiased variance and are the same in all processes. In all
    other cases this is torch's batch norm. (torch's SyncBatchNorm does not run on a CPU.)
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or processes.world_size() == 1:
            return super().forward(input)
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None and self.momentum is not None
        # A sum over many positions needs more digits than half precision has.
        x = input.to(self.weight.dtype)
        positions = x.new_full((1,), x.numel() / x.shape[1])
        sums = processes.all_reduce_sum(torch.cat([x.sum(dim=(0, 2, 3)), positions]))
        n = sums[-1].detach()
        mean = sums[:-1] / n
        centred = x - mean[:, None, None]
        # A second sum: "mean of squares minus squared mean" would lose digits.
        variance = processes.all_reduce_sum(centred.square().sum(dim=(0, 2, 3))) / n
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)


def synchronise(module: nn.Module) -> nn.Module:
    """Replace torch's batch norms in a module by ones over all processes; the weights stay."""
    for name, child in module.named_children():
        if type(child) is nn.BatchNorm2d:
            joint = BatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            joint.load_state_dict(child.state_dict())
            setattr(module, name, joint)
        else:
            synchronise(child)
    return module
