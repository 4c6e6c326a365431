"""Autoencoders, plain and variational, of slices and of volumes.

What a decoder makes of a few numbers cannot hold what is rare. A variational one learns `q(z | x) = N(mean, exp(logvar))`, held near
`N(0, 1)` by the Kullback-Leibler divergence, and decodes the mean (Behrendt, thesis, section 2.2, equations 2.10 and 2.13).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from anomri.errors import BadCall, BadInput
from anomri.nets.attention_unet import divisible
from anomri.nets.layers import Dropout, UpConv3d
from anomri.nets.unet import REDUCTION, ResidualUnit, _block, _conv

LAYERS = {
    2: (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d),
    3: (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d),
}


def kl(mean: Tensor, logvar: Tensor) -> Tensor:
    """Divergence of `N(mean, exp(logvar))` from `N(0, 1)` in nats, summed over the latent: `(B, ...)` to `(B,)`.

    Source: Kingma and Welling 2014, appendix B.
    """
    return 0.5 * (mean.square() + logvar.expm1() - logvar).flatten(1).sum(dim=1)


def draw(mean: Tensor, logvar: Tensor, rng: torch.Generator | None = None) -> Tensor:
    """A draw of `N(mean, exp(logvar))` through which gradients pass; by torch's global generator where `rng` is None.

    With a generator of a CPU, the same on every device. Source: Behrendt, thesis, equation 2.12.
    """
    if rng is None:
        noise = torch.randn_like(mean)
    else:
        noise = torch.randn(mean.shape, generator=rng, device=rng.device, dtype=mean.dtype).to(mean.device)
    return mean + (0.5 * logvar).exp() * noise


LATENT = {2: 128, 3: 512}
"""Numbers of a latent of slices, and of volumes (Bengs et al. 2021)."""


class Autoencoder(nn.Module):
    """`(B, c_in, I, J)` or `(B, c_in, I, J, K)` to a latent and back to the same shape.

    Each convolution of the encoder, the first too, halves the grid; each transposed one of the decoder doubles it.

    Parameters
    ----------
    axes : 2 for slices, 3 for volumes
    width : channels of the first level, doubled at each of the others; Behrendt's are in a figure without numbers, these are ours
    levels : halvings of the grid
    latent : None is `LATENT`, the papers'; numbers in a dense latent, `(B, latent)`; channels of a spatial one, `(B, latent, I / 2^levels, ...)`
    dense : whether the latent is dense
    variational : whether it is a distribution
    edges : grid of the input, which a dense latent needs; multiples of 2^levels
    dropout : probability of dropping an element of what a dense latent is made of

    Raises `BadCall` for arguments that contradict each other, `BadInput` for an input on another grid.

    Source: Behrendt, thesis, chapter 8.1, figure 2 (Bengs et al. 2021: 64³, dense, variational, latents of 512 in 3D, 128 in 2D); Baur
    et al. 2021 (128², 4 levels to 8², latent of 128, dropout 0.1).
    """

    def __init__(
        self,
        axes: int,
        c_in: int,
        width: int = 32,
        levels: int = 4,
        latent: int | None = None,
        dense: bool = True,
        variational: bool = False,
        edges: tuple[int, ...] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if axes not in LAYERS:
            raise BadCall(f"an autoencoder of {axes} axes; 2 are slices, 3 are volumes")
        if dense and edges is None:
            raise BadCall("a dense latent needs the grid of the input; give 'edges', or dense=False")
        if edges is not None and (len(edges) != axes or any(edge % 2**levels for edge in edges)):
            raise BadCall(f"edges {edges} for {axes} axes and {levels} levels; give {axes} multiples of {2**levels}")
        latent = LATENT[axes] if latent is None else latent
        self.variational, self.edges, self.reduction = variational, edges, 2**levels
        conv, transposed, norm = LAYERS[axes]
        c = [width * 2**level for level in range(levels)]
        top, made = c[-1], latent * (2 if variational else 1)

        def block(layer: nn.Module, channels: int) -> nn.Sequential:
            return nn.Sequential(layer, norm(channels), nn.LeakyReLU())

        self.encoder = nn.Sequential(
            *(block(conv(a, b, 4, 2, 1), b) for a, b in zip([c_in, *c[:-1]], c, strict=True)),
        )
        if dense:
            assert edges is not None
            small = [edge // 2**levels for edge in edges]
            size = top * math.prod(small)
            self.narrow = nn.Sequential(nn.Flatten(), Dropout(dropout), nn.Linear(size, made))
            self.widen = nn.Sequential(
                nn.Linear(latent, size), nn.Unflatten(1, (top, *small)), norm(top), nn.LeakyReLU()
            )
        else:
            self.narrow = nn.Sequential(conv(top, made, 1))
            self.widen = block(conv(latent, top, 1), top)
        self.decoder = nn.Sequential(
            *(block(transposed(b, a, 4, 2, 1), a) for a, b in zip(c[-2::-1], c[:0:-1], strict=True)),
            transposed(width, c_in, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Mean and logarithm of the variance of the latent, float32; the variance of one that is not variational is None."""
        if self.edges is None:
            divisible(x, self.reduction)
        elif tuple(x.shape[2:]) != self.edges:
            raise BadInput(
                f"the autoencoder was made for grid {self.edges}, the input has {tuple(x.shape[2:])}; pad or crop it"
            )
        z: Tensor = self.narrow(self.encoder(x)).float()
        if not self.variational:
            return z, None
        mean, logvar = z.chunk(2, dim=1)
        return mean, logvar

    def decode(self, z: Tensor) -> Tensor:
        """An image of a latent."""
        x: Tensor = self.decoder(self.widen(z))
        return x

    def forward(self, x: Tensor, full: bool = False) -> Tensor | tuple[Tensor, Tensor, Tensor | None]:
        """The image of the latent's mean; in training, where it is variational, of a draw by torch's global generator.

        `full`: also the latent's mean and the logarithm of its variance, which a loss needs.
        """
        mean, logvar = self.encode(x)
        y = self.decode(draw(mean, logvar) if self.training and logvar is not None else mean)
        return (y, mean, logvar) if full else y

    def sample(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """The image of a draw from the latent. Raises `BadCall` where it is not variational."""
        mean, logvar = self.encode(x)
        if logvar is None:
            raise BadCall("this autoencoder has nothing to draw from; make it with variational=True")
        return self.decode(draw(mean, logvar, rng))


class Encoder(nn.Module):
    """Half of an `Autoencoder`, to be run by itself: images to their latent, the mean where it is a distribution."""

    def __init__(self, of: Autoencoder) -> None:
        super().__init__()
        self.parts, self.variational = nn.Sequential(of.encoder, of.narrow), of.variational
        self.reduction = of.reduction

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.parts(x)
        return z.chunk(2, dim=1)[0] if self.variational else z


class Decoder(nn.Module):
    """The other half: latents to images."""

    def __init__(self, of: Autoencoder) -> None:
        super().__init__()
        self.parts = nn.Sequential(of.widen, of.decoder)

    def forward(self, z: Tensor) -> Tensor:
        x: Tensor = self.parts(z)
        return x


class SkiplessUNet(nn.Module):
    """IterMask3D's residual UNet without its skips, an autoencoder with a spatial latent `(B, 16 width, I/16, J/16, K/16)`.

    `(B, c_in, I, J, K)` to `(B, c_out, I, J, K)`; raises `BadInput` for edges that are not multiples of 16. The arguments are those
    of `anomri.nets.unet.ResidualUNet`.

    Source: IterMask3D, section 4.4, "Skip connections are removed in AE".
    """

    def __init__(self, c_in: int = 1, c_out: int = 1, width: int = 16, dropout: float = 0.2) -> None:
        super().__init__()
        self.reduction = REDUCTION
        c, strides = [width * 2**level for level in range(5)], (2, 2, 2, 2, 1)
        self.down = nn.Sequential(
            *(ResidualUnit(a, b, stride, dropout) for a, b, stride in zip([c_in, *c[:4]], c, strides, strict=True))
        )
        stages: list[nn.Module] = []
        for level, a, b in zip((3, 2, 1, 0), [c[4], *c[2::-1]], [*c[2::-1], c_out], strict=True):
            last = _conv(a, b)
            stages += [_block(UpConv3d(a, a), dropout), _block(last, dropout) if level > 0 else last]
        self.up = nn.Sequential(*stages)

    def encode(self, x: Tensor) -> Tensor:
        """The latent of an image."""
        divisible(x, self.reduction)
        z: Tensor = self.down(x)
        return z

    def decode(self, z: Tensor) -> Tensor:
        """The image of a latent."""
        x: Tensor = self.up(z)
        return x

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))
