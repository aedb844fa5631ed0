"""Layers both branches share: attention inside a window, masked convolution, dropout that shards with the batch.

Legend: B videos, T snippets, D width, H heads, K head width, N blocks, W window; R real snippets of the batch, G those
with gaps between the videos, O width out, S taps of a kernel.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Packing:
    """The real snippets of a padded batch one behind the other, so that layers that see one snippet at a time, which
    do most of the work, spend none on padding."""

    mask_BT: Tensor

    @cached_property
    def place_R(self) -> Tensor:
        """Where each real snippet stands in `[B * T]`."""
        return self.mask_BT.flatten().nonzero()[:, 0]

    @property
    def whole(self) -> bool:
        """Whether nothing is padded."""
        return len(self.place_R) == self.mask_BT.numel()

    def pack(self, x_BTD: Tensor) -> Tensor:
        """`[R, D]`."""
        x = x_BTD.flatten(0, 1)
        return x if self.whole else x.index_select(0, self.place_R)

    def unpack(self, x_RD: Tensor) -> Tensor:
        """`[B, T, D]`, zero at padding."""
        shape = (*self.mask_BT.shape, x_RD.shape[-1])
        if self.whole:
            return x_RD.view(shape)
        return x_RD.new_zeros(self.mask_BT.numel(), shape[-1]).index_copy(0, self.place_R, x_RD).view(shape)


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

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """`x` is `[B, ...]`, or with `packing` `[R, D]`."""
        if not self.training or self.probability == 0:
            return x
        shape = x.shape if packing is None else (*packing.mask_BT.shape, x.shape[-1])
        keep = kept((shape[0] * self.world, *shape[1:]), self.probability, x.device)
        keep = keep[self.rank * shape[0] : (self.rank + 1) * shape[0]]
        if packing is not None:
            keep = packing.pack(keep)
        return (x * keep).mul_(1 / (1 - self.probability))


def kept(shape: tuple[int, ...], probability: float, device: torch.device) -> Tensor:
    """Which entries a dropout keeps, bool. The state of torch's generator alone decides.

    On a CPU torch draws one float at a time; four entries out of 64 random bits of a generator that torch's seeds
    take a sixth of the time. The probability is met to 1/65536.
    """
    if device.type != "cpu":
        return torch.rand(shape, device=device) >= probability
    seed = int(torch.randint(2**63 - 1, ()))
    count = math.prod(shape)
    generator = np.random.Generator(np.random.SFC64(seed))
    bits = generator.integers(0, 2**64 - 1, -(-count // 4), dtype=np.uint64, endpoint=True).view(np.uint16)
    # a bound of 65536, from a probability next to 1, would not fit
    return torch.from_numpy(bits[:count] >= np.uint16(min(round(probability * 65536), 65535))).view(shape)


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
        return convolve(self.convolution, x_BTD, mask_BT)


def convolve(layer: nn.Conv1d, x_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """What `layer` (same length out as in) makes of each video alone, zero at padding: `[B, T, O]`.

    The videos stand one behind the other with zeros between them, and each tap of the kernel is one matrix product
    with all of them, shifted: no work on padding and no change of layout.
    """
    (taps,), (dilation,) = layer.kernel_size, layer.dilation
    gap = dilation * (taps // 2)
    packing = Packing(mask_BT)
    before_R = gap * (1 + packing.place_R // mask_BT.shape[1])
    place_R = torch.arange(len(before_R), device=mask_BT.device) + before_R
    length = len(place_R) + gap * (len(mask_BT) + 1)
    source_G = place_R.new_zeros(length).index_copy_(0, place_R, packing.place_R)
    is_gap_G = torch.ones(length, dtype=torch.bool, device=mask_BT.device).index_fill_(0, place_R, False)
    x_GD = x_BTD.flatten(0, 1).index_select(0, source_G).index_fill(0, is_gap_G.nonzero()[:, 0], 0)
    weight_SOD = layer.weight.permute(2, 0, 1).contiguous()
    rows = length - 2 * gap
    y_GO = F.linear(x_GD[:rows], weight_SOD[0], layer.bias)
    for tap in range(1, taps):
        y_GO = torch.addmm(y_GO, x_GD[tap * dilation : tap * dilation + rows], weight_SOD[tap].T)
    return packing.unpack(y_GO.index_select(0, place_R - gap))


def convolve_rows(layer: nn.Conv1d, x_BTD: Tensor) -> Tensor:
    """What `layer` (same length out as in, no dilation) makes of each row alone, padding like any snippet: `[B, T, O]`.

    One matrix product a tap, as `convolve`, for networks whose code convolves over padding too.
    """
    taps, (B, T, _) = layer.kernel_size[0], x_BTD.shape
    gap = taps // 2
    x_GD = F.pad(x_BTD, (0, 0, gap, gap)).flatten(0, 1) if gap else x_BTD.flatten(0, 1)
    rows = len(x_GD) - 2 * gap
    y_GO = F.linear(x_GD[:rows], layer.weight[..., 0], layer.bias)
    for tap in range(1, taps):
        y_GO = torch.addmm(y_GO, x_GD[tap : tap + rows], layer.weight[..., tap].T)
    return F.pad(y_GO, (0, 0, 0, 2 * gap)).unflatten(0, (B, T + 2 * gap))[:, :T] if gap else y_GO.unflatten(0, (B, T))


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

    def forward(self, x_RD: Tensor, packing: Packing) -> Tensor:
        mask_BT, D = packing.mask_BT, x_RD.shape[-1]
        B, T = mask_BT.shape
        if not self.window:
            x_RD = x_RD + sinusoids(T, D).to(x_RD)[packing.place_R % T]
        qkv_BTE = packing.unpack(self.project_in(x_RD))
        qkv = qkv_BTE.view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)
        query_BHTK, key_BHTK, value_BHTK = qkv
        if self.window:
            out_BHTK = self._within_window(query_BHTK, key_BHTK, value_BHTK, mask_BT)
        else:
            out_BHTK = F.scaled_dot_product_attention(
                query_BHTK, key_BHTK, value_BHTK, attn_mask=mask_BT[:, None, None, :]
            )
        return self.project_out(packing.pack(out_BHTK.transpose(1, 2).reshape(B, T, D)))

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

    def forward(self, x_RD: Tensor, packing: Packing) -> Tensor:
        x_RD = x_RD + self.dropout(self.attention(self.norm_attention(x_RD), packing), packing)
        return x_RD + self.dropout(self.mlp_out(F.gelu(self.mlp_in(self.norm_mlp(x_RD)))), packing)
