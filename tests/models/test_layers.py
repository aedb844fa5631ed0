"""Locality, padding and permutation properties of the shared layers, against dense attention written plainly."""

import math

import pytest
import torch

from wtal.models.layers import (
    BatchDropout,
    LocalAttention,
    MaskedConv1d,
    Packing,
    TransformerBlock,
    convolve,
    convolve_rows,
    place_in_batch,
)


def padded(layer, x, mask):
    """A layer of packed snippets on a padded batch."""
    packing = Packing(mask)
    return packing.unpack(layer(packing.pack(x), packing))


def dense_attention(layer: LocalAttention, x, mask, window):
    """The same attention with a full T x T matrix, one head and one video at a time."""
    B, T, D = x.shape
    K = D // layer.heads
    if not window:
        # Vaswani et al., section 3.5, one number at a time
        place = [
            [(math.cos if i % 2 else math.sin)(t / 10_000 ** ((i - i % 2) / D)) for i in range(D)] for t in range(T)
        ]
        x = x + torch.tensor(place)
    q, k, v = layer.project_in(x).chunk(3, dim=-1)
    out = torch.zeros_like(x)
    for b in range(B):
        for h in range(layer.heads):
            part = slice(h * K, (h + 1) * K)
            score = q[b, :, part] @ k[b, :, part].T / math.sqrt(K)
            for i in range(T):
                for j in range(T):
                    far = window and abs(i - j) > window
                    if far or not mask[b, j]:
                        score[i, j] = -1e9
                    elif window:
                        score[i, j] += layer.offset_bias_HW[h, j - i + window]
            out[b, :, part] = score.softmax(-1) @ v[b, :, part]
    return layer.project_out(out)


@pytest.mark.parametrize("window,length", [(0, 7), (1, 7), (3, 7), (3, 9), (5, 4), (8, 8)])
def test_local_attention_equals_dense_attention(window, length):
    layer = LocalAttention(8, 2, window)
    if window:
        torch.nn.init.normal_(layer.offset_bias_HW)
    x = torch.randn(2, length, 8)
    mask = torch.arange(length)[None] < torch.tensor([[length], [length - 2]])
    with torch.no_grad():
        got, expected = padded(layer, x, mask), dense_attention(layer, x, mask, window)
    torch.testing.assert_close(got[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_a_frame_beyond_the_window_has_no_influence():
    block = TransformerBlock(8, 2, window=2).eval()
    x = torch.randn(1, 12, 8, requires_grad=True)
    mask = torch.ones(1, 12, dtype=torch.bool)
    padded(block, x, mask)[0, 6].sum().backward()
    reach = x.grad[0].abs().sum(-1) > 0
    assert reach.tolist() == [False] * 4 + [True] * 5 + [False] * 3


def test_whole_video_attention_reaches_everything():
    block = TransformerBlock(8, 2, window=0).eval()
    x = torch.randn(1, 12, 8, requires_grad=True)
    padded(block, x, torch.ones(1, 12, dtype=torch.bool))[0, 6].sum().backward()
    assert (x.grad[0].abs().sum(-1) > 0).all()


def test_quiet_start_is_the_identity_and_can_learn():
    block = TransformerBlock(8, 2, window=2, quiet_start=True)
    x, mask = torch.randn(2, 5, 8), torch.ones(2, 5, dtype=torch.bool)
    assert torch.equal(padded(block, x, mask), x)
    padded(block, x, mask).square().sum().backward()
    assert block.attention.project_out.weight.grad.abs().sum() > 0


def within_videos(layer, x, mask):
    return padded(layer, x, mask) if isinstance(layer, TransformerBlock) else layer(x, mask)


@pytest.mark.parametrize("make", [lambda: TransformerBlock(8, 2, window=3), lambda: MaskedConv1d(8, 8, 3)])
def test_padding_does_not_matter(make):
    layer = make().eval()
    x = torch.randn(2, 6, 8)
    short = within_videos(layer, x[:1], torch.ones(1, 6, dtype=torch.bool))
    longer = torch.cat([x, torch.full((2, 5, 8), math.nan)], dim=1)
    longer[1] = 7.0
    mask = torch.arange(11)[None] < torch.tensor([[6], [11]])
    out = within_videos(layer, longer, mask)
    torch.testing.assert_close(short, out[:1, :6], atol=1e-6, rtol=1e-5)
    assert not out[0, 6:].any()


@pytest.mark.parametrize("taps,dilation", [(1, 1), (3, 1), (3, 4), (5, 2)])
def test_a_packed_convolution_is_torchs_of_each_video_alone(taps, dilation):
    layer = torch.nn.Conv1d(4, 3, taps, padding=dilation * (taps // 2), dilation=dilation)
    lengths = (6, 1, 9)
    mask = torch.arange(9)[None] < torch.tensor(lengths)[:, None]
    x = torch.randn(3, 9, 4, requires_grad=True)
    weight = torch.randn(3, 9, 3)
    out = convolve(layer, x, mask)
    wanted = [layer(video[:length].T[None])[0].T for video, length in zip(x, lengths, strict=True)]
    torch.testing.assert_close(out[mask], torch.cat(wanted))
    leaves = [x, layer.weight, layer.bias]
    got = torch.autograd.grad((out * weight).sum(), leaves)
    expected = torch.autograd.grad((torch.cat(wanted) * weight[mask]).sum(), leaves)
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("taps", [1, 3, 5])
def test_a_convolution_of_rows_is_torchs(taps):
    layer = torch.nn.Conv1d(4, 3, taps, padding=taps // 2).double()
    x, weight = torch.randn(3, 9, 4, dtype=torch.float64, requires_grad=True), torch.randn(3, 9, 3)
    out, wanted = convolve_rows(layer, x), layer(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(out, wanted, atol=1e-13, rtol=1e-13)
    leaves = [x, layer.weight, layer.bias]
    got, expected = (torch.autograd.grad((each * weight).sum(), leaves) for each in (out, wanted))
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=1e-12)


def test_packing_is_undone_and_its_gradient_too():
    mask = torch.arange(5)[None] < torch.tensor([[3], [5]])
    x = torch.randn(2, 5, 4, requires_grad=True)
    packing = Packing(mask)
    assert packing.pack(x).shape == (8, 4)
    assert torch.equal(packing.unpack(packing.pack(x)), x * mask[..., None])
    packing.unpack(packing.pack(x)).sum().backward()
    assert torch.equal(x.grad, mask[..., None].expand(2, 5, 4).float())


def test_dropout_of_packed_snippets_is_that_of_the_padded_batch():
    x, mask = torch.ones(6, 5, 4), torch.arange(5)[None] < torch.tensor([[3], [5], [1], [5], [2], [4]])
    packing, drop = Packing(mask), BatchDropout(0.5)
    torch.manual_seed(5)
    expected = drop(x)
    torch.manual_seed(5)
    assert torch.equal(drop(packing.pack(x), packing), expected[mask])


def test_dropout_of_two_processes_is_that_of_one():
    x = torch.ones(6, 4, 3)
    whole = BatchDropout(0.5)
    torch.manual_seed(5)
    expected = whole(x)
    parts = []
    for rank in range(2):
        part = BatchDropout(0.5)
        place_in_batch(part, rank, 2)
        torch.manual_seed(5)
        parts.append(part(x[rank * 3 : rank * 3 + 3]))
    assert torch.equal(torch.cat(parts), expected)
    assert set(expected.unique().tolist()) == {0.0, 2.0}
    assert torch.equal(whole.eval()(x), x)


@pytest.mark.parametrize("probability", [0.1, 0.5, 0.7, 0.999_999])
def test_dropout_keeps_entries_with_its_probability_each_by_itself(probability):
    torch.manual_seed(0)
    kept = BatchDropout(probability)(torch.ones(3, 99_999)) > 0
    deviation = math.sqrt(probability * (1 - probability) / kept.numel())
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=4 * deviation + 2 / 65536)
    # neighbours, which share 64 random bits, agree as often as strangers do
    agree = (kept[:, 1:] == kept[:, :-1]).float().mean().item()
    assert agree == pytest.approx(probability**2 + (1 - probability) ** 2, abs=0.01)


def test_bad_sizes_are_named():
    with pytest.raises(ValueError, match="multiple of heads"):
        LocalAttention(10, 3, 2)
    with pytest.raises(ValueError, match="odd"):
        MaskedConv1d(4, 4, 2)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        BatchDropout(1.0)
