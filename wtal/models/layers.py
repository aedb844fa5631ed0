"""Layers both branches share: attention inside a window, masked convolution, dropout that shards with the batch.

Legend: B videos, T snippets, D width, H heads, K head width, N blocks, W window.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BatchDropout(nn.Module):
    """Dropout whose mask is drawn for the whole global batch, of which this process holds a slice.

    Two processes with half a batch each, seeded alike, drop the very entries that one process with the whole batch
    drops. `place_in_batch` says which slice is ours; on one process it is the whole.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"dropout probability must be in [0, 1), got {probability}")
        self.probability = probability
        self.rank, self.world = 0, 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return x
        size = (x.shape[0] * self.world, *x.shape[1:])
        keep = torch.rand(size, device=x.device) >= self.probability
        keep = keep[self.rank * x.shape[0] : (self.rank + 1) * x.shape[0]]
        return x * keep / (1 - self.probability)


def place_in_batch(model: nn.Module, rank: int, world: int) -> None:
    """Tell every `BatchDropout` of `model` which of `world` equal slices of the global batch this process holds."""
    for module in model.modules():
        if isinstance(module, BatchDropout):
            module.rank, module.world = rank, world


class MaskedConv1d(nn.Module):
    """Convolution over time that sees zeros, never padding's content, beyond a video's end. `[B, T, D]` in and out."""

    def __init__(self, width_in: int, width_out: int, kernel: int) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, got {kernel}")
        self.convolution = nn.Conv1d(width_in, width_out, kernel, padding=kernel // 2)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BDT = (x_BTD * mask_BT[..., None]).transpose(1, 2)
        return self.convolution(x_BDT).transpose(1, 2)


def topk_mean(score_BTK: Tensor, mask_BT: Tensor, ratio: int, up: bool = False) -> Tensor:
    """Mean over time of the largest `max(1, T // ratio)` scores (`up`: rounded up), T each video's length: `[B, K]`."""
    masked_BTK = score_BTK.masked_fill(~mask_BT[..., None], float("-inf"))
    count_B = ((mask_BT.sum(1) + (ratio - 1 if up else 0)) // ratio).clamp(min=1)
    most = int(count_B.max())
    top_BkK = masked_BTK.topk(most, dim=1).values
    kept_Bk1 = (torch.arange(most, device=score_BTK.device)[None] < count_B[:, None])[..., None]
    return torch.where(kept_Bk1, top_BkK, 0).sum(1) / count_B[:, None]


class LocalAttention(nn.Module):
    """Multi-head self-attention in which a snippet sees `window` snippets to each side; 0 means the whole video.

    A frame score that has seen the whole bag learns the bag's label instead of its own, so the window is the guard
    of localisation. Cost is linear in T: queries go in blocks of `window`, each against three blocks of keys. A
    learnt bias per head and offset tells the heads where they look; without a window snippets carry sinusoids of their
    position, inside the attention alone.
    """

    def __init__(self, width: int, heads: int, window: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads, self.window = heads, window
        self.project_in = nn.Linear(width, 3 * width)
        self.project_out = nn.Linear(width, width)
        self.offset_bias_HW = nn.Parameter(torch.zeros(heads, 2 * window + 1)) if window else None

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        B, T, D = x_BTD.shape
        if not self.window:
            x_BTD = x_BTD + sinusoids(T, D).to(x_BTD)
        qkv = self.project_in(x_BTD).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        query_BHTK, key_BHTK, value_BHTK = qkv
        if self.window:
            out_BHTK = self._within_window(query_BHTK, key_BHTK, value_BHTK, mask_BT)
        else:
            out_BHTK = F.scaled_dot_product_attention(
                query_BHTK, key_BHTK, value_BHTK, attn_mask=mask_BT[:, None, None, :]
            )
        return self.project_out(out_BHTK.transpose(1, 2).reshape(B, T, D))

    def _within_window(self, query_BHTK: Tensor, key_BHTK: Tensor, value_BHTK: Tensor, mask_BT: Tensor) -> Tensor:
        B, H, T, K = query_BHTK.shape
        W = self.window
        blocks = math.ceil(T / W)
        tail = blocks * W - T
        query_BHNWK = F.pad(query_BHTK, (0, 0, 0, tail)).view(B, H, blocks, W, K)
        key_BHNVK = F.pad(key_BHTK, (0, 0, W, W + tail)).unfold(2, 3 * W, W).transpose(-1, -2)
        value_BHNVK = F.pad(value_BHTK, (0, 0, W, W + tail)).unfold(2, 3 * W, W).transpose(-1, -2)
        score_BHNWV = query_BHNWK @ key_BHNVK.transpose(-1, -2) / math.sqrt(K)

        position = torch.arange(3 * W, device=mask_BT.device)
        offset_WV = position[None, :] - W - position[:W, None]
        near_WV = offset_WV.abs() <= W
        bias_HWV = self.offset_bias_HW[:, offset_WV.clamp(-W, W) + W]
        real_BNV = F.pad(mask_BT, (W, W + tail)).unfold(1, 3 * W, W)
        seen_BHNWV = (near_WV & real_BNV[:, :, None, :])[:, None]
        score_BHNWV = (score_BHNWV + bias_HWV[None, :, None]).masked_fill(~seen_BHNWV, -1e9)
        out_BHNWK = score_BHNWV.softmax(-1) @ value_BHNVK
        return out_BHNWK.reshape(B, H, blocks * W, K)[:, :, :T]


def sinusoids(length: int, width: int) -> Tensor:
    """Positions `[T, D]` (Vaswani et al., 2017): sines and cosines in turn, wavelengths to 20,000 pi."""
    position_T1 = torch.arange(length)[:, None]
    column_D = torch.arange(width)
    angle_TD = position_T1 / 10_000 ** ((column_D - column_D % 2) / width)
    return torch.where(column_D % 2 == 0, angle_TD.sin(), angle_TD.cos())


class TransformerBlock(nn.Module):
    """Pre-norm transformer block: attention inside a window, then an MLP, each added to its input.

    With `quiet_start` both additions begin at zero, so that the block begins as the identity.
    """

    def __init__(
        self, width: int, heads: int, window: int, dropout: float = 0.0, expansion: int = 4, quiet_start: bool = False
    ) -> None:
        super().__init__()
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = LocalAttention(width, heads, window)
        self.mlp_in, self.mlp_out = nn.Linear(width, expansion * width), nn.Linear(expansion * width, width)
        self.dropout = BatchDropout(dropout)
        if quiet_start:
            for layer in (self.attention.project_out, self.mlp_out):
                nn.init.zeros_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        x_BTD = x_BTD + self.dropout(self.attention(self.norm_attention(x_BTD), mask_BT))
        return x_BTD + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x_BTD)))))
