"""Several vision-language models as one branch: each scores by its own text, their logits are averaged.

Legend: B videos, T snippets, C classes, D embedding width of all models together.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wtal.models.branch import BranchOutput, squash
from wtal.models.vlp import VLP


class SeveralVLP(nn.Module):
    """VLP branches side by side over their embeddings joined along D, in the order of `members`.

    The mean logit of the members goes through their common activation, so that one model alone is that model.
    """

    def __init__(self, members: Sequence[VLP]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.widths = [member.feature_dim for member in members]
        self.feature_dim = sum(self.widths)
        self.activation = members[0].activation

    def once(self) -> Tensor:
        """Class embeddings of all members, `[C, D]`."""
        return torch.cat([member.once() for member in self.members], dim=-1)

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor, text_CD: Tensor | None = None) -> BranchOutput:
        """`text_CD`: what `once` returned; none: made here."""
        text_CD = self.once() if text_CD is None else text_CD
        parts = zip(
            self.members, feature_BTD.split(self.widths, -1), text_CD.split(self.widths, -1), strict=True
        )
        outputs = [member(part_BTD, mask_BT, part_CD) for member, part_BTD, part_CD in parts]
        logit_BTC = torch.stack([output.logit_BTC for output in outputs]).mean(0)
        hidden_BTD = torch.cat([output.feature_BTD for output in outputs], dim=-1)
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.activation), hidden_BTD)

    def video_probability(self, output: BranchOutput, mask_BT: Tensor, ratio: int = 8) -> Tensor:
        """As for one model, `[B, C]`."""
        return self.members[0].video_probability(output, mask_BT, ratio)
