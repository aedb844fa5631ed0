"""Losses of pooled video scores: bag cross-entropy from log p, bag+instance, class-summed.

Legend: B videos, T snippets, C classes. Labels count as positive where they are over 0.
"""

from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class VideoLogProbabilities(Protocol):
    """Anything that knows log p and log(1 - p) of each video and class, such as
    `wtal.models.pooling.head.Pooled`."""

    log_p_BC: Tensor
    log_1mp_BC: Tensor


class FrameAndVideo(VideoLogProbabilities, Protocol):
    """The same with the frame logits that were pooled."""

    frame_logit_BTC: Tensor


def bag_terms(scores: VideoLogProbabilities, label_BC: Tensor) -> Tensor:
    """Binary cross-entropy of each video and class, `[B, C]`: -log p where labelled, -log(1 - p)
    elsewhere."""
    return -scores.log_p_BC.where(label_BC > 0, scores.log_1mp_BC)


def binary_bag_loss(scores: VideoLogProbabilities, label_BC: Tensor) -> Tensor:
    """Binary cross-entropy, mean over videos and classes."""
    return bag_terms(scores, label_BC).mean()


def class_summed_loss(scores: VideoLogProbabilities, label_BC: Tensor) -> Tensor:
    """Binary cross-entropy summed over classes, mean over videos (YouTube-8M's reduction)."""
    return bag_terms(scores, label_BC).sum(dim=1).mean()


def bag_instance_terms(pooled: FrameAndVideo, label_BC: Tensor, mask_BT: Tensor, weight: float) -> Tensor:
    """The bag+instance loss of each video and class, `[B, C]` (Zhou et al., ICCVW 2017).

    Positive bag: l + weight * (l - mean_t R_t)^2, with l = -log p and R_t the cross-entropy of frame t with
    its own pseudo-label 1[q_t >= 0.5], that is -log max(q_t, 1 - q_t), between 0 and ln 2. Negative bag:
    every frame is negative, so mean_t -log(1 - q_t) alone; the pooling head gets no gradient from it. The
    paper does not say whether negatives are averaged or summed over frames; averaged here.
    """
    z_BTC = pooled.frame_logit_BTC.to(pooled.log_p_BC.dtype).masked_fill(~mask_BT.bool().unsqueeze(2), 0)
    real_BT1 = mask_BT.to(z_BTC.dtype).unsqueeze(2)
    length_B1 = real_BT1.sum(dim=1)
    certainty_BC = (F.softplus(-z_BTC.abs()) * real_BT1).sum(dim=1) / length_B1
    bag_BC = -pooled.log_p_BC
    positive_BC = bag_BC + weight * (bag_BC - certainty_BC).square()
    negative_BC = (F.softplus(z_BTC) * real_BT1).sum(dim=1) / length_B1
    return positive_BC.where(label_BC > 0, negative_BC)


def bag_instance_loss(pooled: FrameAndVideo, label_BC: Tensor, mask_BT: Tensor, weight: float = 0.5) -> Tensor:
    """`bag_instance_terms`, mean over videos and classes. With `weight` under 1 / (2 ln 2) = 0.72 no video
    can lower an exponent r of generalised-mean pooling, so r only grows in training."""
    return bag_instance_terms(pooled, label_BC, mask_BT, weight).mean()


def bag_cross_entropy(video_logit_BC: Tensor, label_BC: Tensor) -> Tensor:
    """Equation (1): `-sum_c y_c log softmax_c(video score)`, mean over videos.

    `video_logit_BC` is the top-k mean of the frame logits. `y` is normalised to sum 1, so a video of several classes
    counts as much as one of a single class. A sum, not a mean, over classes: its size does not fall with C.
    """
    target_BC = label_BC / label_BC.sum(-1, keepdim=True).clamp(min=1)
    return -(target_BC * video_logit_BC.log_softmax(-1)).sum(-1).mean()
