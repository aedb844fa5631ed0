"""The vision-language branch: frozen CLIP embeddings, a light temporal transformer, and class texts, (2) and (3).

Legend: B videos, T snippets, C classes, D embedding width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wtal.models.branch import BranchOutput, squash
from wtal.models.layers import TransformerBlock


class VLP(nn.Module):
    """`P_vl = sigma(scale * cos(F_vid, F_txt) + bias)`, equation (3).

    The prompts (where `text` has some), the temporal layers, the scale (`learn_scale`) and the bias (`bias_start`)
    train; CLIP itself does not. The temporal transformer begins as the identity, so that training starts from frozen
    CLIP. A cosine of CLIP lies near 0.2 for every text, and CLIP's scale (100) was made for a softmax over classes; so
    that a sigmoid of it can be a probability, a learnt bias starts at minus the scaled mean cosine that is handed in
    (`bias_start`), or the bias is left out (`bias_start=None`), which is the equation as printed.
    """

    def __init__(
        self,
        text: nn.Module,
        width: int,
        layers: int,
        heads: int,
        window: int,
        dropout: float,
        scale: float,
        learn_scale: bool,
        bias_start: float | None,
        activation: str,
        input_length: float = 1.0,
    ) -> None:
        super().__init__()
        self.text = text
        self.feature_dim = width
        self.activation = activation
        self.input_length = input_length
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, window, dropout, quiet_start=True) for _ in range(layers)
        )
        self.log_scale = nn.Parameter(torch.tensor(scale).log(), requires_grad=learn_scale)
        self.bias = nn.Parameter(torch.tensor(bias_start or 0.0), requires_grad=bias_start is not None)

    def once(self) -> Tensor:
        """Class embeddings `[C, D]`: what is the same for every video, for callers that pass many one by one."""
        return self.text()

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor, text_CD: Tensor | None = None) -> BranchOutput:
        """`text_CD`: what `once` returned; none: made here."""
        text_CD = self.once() if text_CD is None else text_CD
        hidden_BTD = F.normalize(feature_BTD, dim=-1) * self.input_length
        for block in self.blocks:
            hidden_BTD = block(hidden_BTD, mask_BT)
        # bf16 keeps a cosine to 1/256, which CLIP's scale of 100 would make 0.4 of a logit
        precise = torch.promote_types(hidden_BTD.dtype, torch.float32)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            cosine_BTC = F.normalize(hidden_BTD.to(precise), dim=-1) @ F.normalize(text_CD.to(precise), dim=-1).T
        logit_BTC = self.log_scale.exp() * cosine_BTC + self.bias
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.activation), hidden_BTD)

    def video_probability(self, output: BranchOutput, mask_BT: Tensor, ratio: int = 8) -> Tensor:
        """Softmax over classes of the mean of the top `ceil(T / ratio)` frame scores: `[B, C]`."""
        score_BTC = output.logit_BTC.masked_fill(~mask_BT[..., None], float("-inf"))
        probability_BC = [
            score_TC.topk(max(1, -(-int(length) // ratio)), dim=0).values.mean(0).softmax(-1)
            for score_TC, length in zip(score_BTC, mask_BT.sum(1), strict=True)
        ]
        return torch.stack(probability_BC)
