"""How unlike two images look: the distance between the features that a network makes of them.

As LPIPS (Zhang et al. 2018, equation 1), with all weights 1 and features of another network: the way down of one that denoises, which has
learned what brains look like, and needs no weights from elsewhere. LPIPS also scales the features of each voxel to length 1; here that hides
lesions, since dark tissue has short features that point anywhere (docs/decisions/0009). They are scaled by their mean length in the brain.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from anomri.nets.diffusion_unet import DiffusionUNet, conditions

MODES = {2: "bilinear", 3: "trilinear"}


class PerceptualDistance(nn.Module):
    """Two batches of images `(B, C, ...)` to how far apart they are at each voxel, `(B, 1, ...)`: 0 where they look alike.

    It is also given their brains `(B, 1, ...)` bool, by whose features the distance is scaled: background has features too, and slices
    with little brain would be the farthest apart.

    Parameters
    ----------
    net : whose way down makes the features; it is told t = 1, at which an image has next to no noise
    """

    def __init__(self, net: DiffusionUNet) -> None:
        super().__init__()
        self.net = net

    def forward(self, a: Tensor, b: Tensor, brain: Tensor) -> Tensor:
        images = torch.cat([a, b])
        known = torch.zeros(len(images), self.net.vector, device=images.device)
        known[:, : self.net.width] = conditions(torch.ones(1, device=images.device), self.net.width)
        return unlike([level.chunk(2) for level in self.net.maps(images, known)], brain)


def unlike(levels: Sequence[Sequence[Tensor]], brain: Tensor) -> Tensor:
    """Squared distance of features over their mean square in the first image's brain, `(B, 1, ...)` on the first level's grid; the mean
    over levels.

    Parameters
    ----------
    levels : pairs of features `(B, C_n, ...)`, the finest first
    brain : `(B, 1, ...)` bool, on the first level's grid; a coarser voxel counts by the share of brain in it, and where there is no
        brain all do
    """
    found, edges = [], levels[0][0].shape[2:]
    there = torch.where(brain.flatten(1).any(dim=1)[(..., *[None] * (brain.ndim - 1))], brain, True).float()
    for a, b in levels:
        off = (a.float() - b.float()).square().mean(dim=1, keepdim=True)
        share = F.interpolate(there, size=a.shape[2:], mode="area")
        long = a.float().square().mean(dim=1, keepdim=True) * share
        size = long.flatten(1).sum(dim=1) / share.flatten(1).sum(dim=1)
        # Features that are 0 throughout tell of nothing.
        far = off / size.clamp(min=1e-12)[(..., *[None] * (a.ndim - 1))]
        found.append(F.interpolate(far, size=edges, mode=MODES[len(edges)], align_corners=False))
    return torch.stack(found).mean(dim=0)
