"""The vision-language branch: frozen CLIP embeddings, a light temporal transformer, and class texts, (2) and (3).

Legend: B videos, T snippets, C classes, D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from feature_extraction.errors import UserError
from feature_extraction.networks.clip import FrozenClip
from feature_extraction.seal import check_archive
from wtal.config.models import VLPSettings
from wtal.models.branch import Branch, BranchOutput, squash
from wtal.models.layers import Packing, TransformerBlock, topk_mean


class VLP(Branch):
    """`P_vl = sigma(scale * cos(F_vid, F_txt) + bias)`, equation (3).

    The prompts (where `text` has some), the temporal layers, the scale and the bias train, as the settings say; CLIP
    itself does not. The temporal transformer begins as the identity, so that training starts from frozen CLIP. A
    cosine of CLIP lies near 0.2 for every text, and CLIP's scale (100) was made for a softmax over classes; so that a
    sigmoid of it can be a probability, a learnt bias starts at minus the scaled mean cosine (`start_at`), or the bias
    is left out, which is the equation as printed.
    """

    def __init__(self, settings: VLPSettings, text: nn.Module, width: int, scale: float) -> None:
        """`scale`: CLIP's own, unless the settings give another."""
        super().__init__()
        self.text, self.settings = text, settings
        self.feature_dim = width
        self.input_length = width**0.5 if settings.input_length == "root_width" else 1.0
        self.blocks = nn.ModuleList(
            TransformerBlock(width, settings.heads, settings.window, settings.dropout, quiet_start=True)
            for _ in range(settings.layers)
        )
        self.scale = settings.scale or scale
        self.log_scale = nn.Parameter(torch.tensor(self.scale).log(), requires_grad=settings.learn_scale)
        self.bias = nn.Parameter(torch.tensor(0.0), requires_grad=settings.bias == "learned")

    @torch.no_grad()
    def start_at(self, cosines: Sequence[float]) -> None:
        """Place a learnt bias where the mean frame has the logit 0: `cosines` holds its cosine with the texts."""
        if self.bias.requires_grad:
            self.bias.fill_(-self.scale * cosines[0])

    def class_texts(self) -> Tensor:
        """Class embeddings `[C, D]`: what is the same for every video, for callers that pass many one by one."""
        return self.text()

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor, text_CD: Tensor | None = None) -> BranchOutput:
        """`text_CD`: what `class_texts` returned; none: made here."""
        text_CD = self.class_texts() if text_CD is None else text_CD
        hidden_BTD = F.normalize(feature_BTD, dim=-1) * self.input_length
        if self.blocks:
            packing = Packing(mask_BT)
            hidden_RD = packing.pack(hidden_BTD)
            for block in self.blocks:
                hidden_RD = block(hidden_RD, packing)
            hidden_BTD = packing.unpack(hidden_RD)
        # bf16 keeps a cosine to 1/256, which CLIP's scale of 100 would make 0.4 of a logit
        precise = torch.promote_types(hidden_BTD.dtype, torch.float32)
        with torch.autocast(hidden_BTD.device.type, enabled=False):
            cosine_BTC = F.normalize(hidden_BTD.to(precise), dim=-1) @ F.normalize(text_CD.to(precise), dim=-1).T
        logit_BTC = self.log_scale.exp() * cosine_BTC + self.bias
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.settings.activation), hidden_BTD)

    def video_probability(self, output: BranchOutput, mask_BT: Tensor, ratio: int = 8) -> Tensor:
        """Softmax over classes of the mean of the top `ceil(T / ratio)` frame scores: `[B, C]`.

        Where there is one class alone, a softmax would be 1 for every video: the mean is over the frames' P there.
        """
        if output.logit_BTC.shape[-1] == 1:
            return topk_mean(output.p_BTC, mask_BT, ratio, up=True)
        return topk_mean(output.logit_BTC, mask_BT, ratio, up=True).softmax(-1)


PROMPT_STD = 0.01


def spaced(name: str) -> str:
    """A class name as words: `CleanAndJerk` and `clean_and_jerk` both become `clean and jerk`."""
    words, previous = [], ""
    for letter in name.replace("_", " "):
        if letter.isupper() and previous.islower():
            words.append(" ")
        words.append(letter)
        previous = letter
    return " ".join("".join(words).split()).lower()


class LearnedPrompts(nn.Module):
    """`length` learnt vectors before and after each class name's tokens, shared by all classes, equation (2).

    The layout of a text is [start][P prompts][name tokens][P prompts][end]; the vectors begin as N(0, 0.01). Only
    they are trained: the text tower stays frozen, and gradients go through it. Raises `UserError` where a name does
    not fit between the prompts in CLIP's context.
    """

    def __init__(self, clip: FrozenClip, class_names: Sequence[str], length: int) -> None:
        super().__init__()
        tokens_CL = clip.tokenize([spaced(name) for name in class_names])
        with torch.no_grad():
            embedding_CLW = clip.token_embeddings(tokens_CL).float()
        ends = tokens_CL.argmax(-1).tolist()
        longest = max(ends) - 1
        if longest + 2 * length + 2 > clip.context_length:
            name = class_names[ends.index(max(ends))]
            raise UserError(
                f"class name {name!r} has {longest} tokens: with {length} prompt vectors on each side it exceeds "
                f"CLIP's context of {clip.context_length}; set vlp.prompt_length to at most "
                f"{(clip.context_length - 2 - longest) // 2}"
            )
        # a frozen tower is no part of this module's state: it must not enter checkpoints or optimisers
        self._frozen = [clip]
        self.register_buffer("embedding_CLW", embedding_CLW, persistent=False)
        self.ends = ends
        # what stands behind the end mark is not read, and changes nothing before it where attention looks back alone
        self.positions = max(ends) + 2 * length + 1 if clip.causal else clip.context_length
        width = embedding_CLW.shape[-1]
        self.before_PW = nn.Parameter(torch.randn(length, width) * PROMPT_STD)
        self.after_PW = nn.Parameter(torch.randn(length, width) * PROMPT_STD)

    def forward(self) -> Tensor:
        """Class embeddings `[C, D]`, not normalised."""
        length = len(self.before_PW)
        rows, eot = [], [end + 2 * length for end in self.ends]
        for embedding_LW, end in zip(self.embedding_CLW, self.ends, strict=True):
            parts = [embedding_LW[:1], self.before_PW, embedding_LW[1:end], self.after_PW, embedding_LW[end : end + 1]]
            text_LW = torch.cat(parts)
            rows.append(torch.cat([text_LW, text_LW.new_zeros(self.positions - len(text_LW), text_LW.shape[1])]))
        return self._frozen[0].encode_embeddings(torch.stack(rows), torch.tensor(eot, device=self.before_PW.device))


class FixedText(nn.Module):
    """Class embeddings `[C, D]` that do not change: from a template or from a file."""

    def __init__(self, embedding_CD: Tensor) -> None:
        super().__init__()
        self.register_buffer("embedding_CD", embedding_CD)

    def forward(self) -> Tensor:
        return self.embedding_CD


def template_embeddings(clip: FrozenClip, class_names: Sequence[str], template: str) -> Tensor:
    """Embeddings `[C, D]` of `template` with `{}` replaced by each class name. Raises `UserError` without a `{}`."""
    if "{}" not in template:
        raise UserError(f"vlp.template {template!r} has no {{}} for the class name; for example 'a video of {{}}'")
    with torch.no_grad():
        return clip.encode_texts([template.replace("{}", spaced(name)) for name in class_names]).float()


def precomputed_embeddings(path: Path, class_names: Sequence[str]) -> Tensor:
    """Embeddings `[C, D]` from an npz file with `names` (text) and `embeddings` (`[C', D]`), rows picked by name.

    Lets the system run without a text tower. Raises `UserError` naming a class that the file does not have.
    """
    try:
        with open(path, "rb") as stream:
            check_archive(stream)
            file = np.load(stream, allow_pickle=False)
            rows = dict(zip(file["names"].tolist(), file["embeddings"], strict=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: expected an npz file with 'names' and 'embeddings' ({error})") from None
    if missing := [name for name in class_names if name not in rows]:
        raise UserError(f"{path}: no text embedding for class {missing[0]!r}; it has {', '.join(list(rows)[:5])}, ...")
    return torch.from_numpy(np.stack([rows[name] for name in class_names]).astype(np.float32))


class SeveralVLP(Branch):
    """VLP branches side by side over their embeddings joined along D, in the order of `members`.

    The mean logit of the members goes through their common activation, so that one model alone is that model.
    """

    def __init__(self, members: Sequence[VLP]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.widths = [member.feature_dim for member in members]
        self.feature_dim, self.settings = sum(self.widths), members[0].settings
        self.video_probability = members[0].video_probability

    def class_texts(self) -> Tensor:
        """Class embeddings of all members, `[C, D]`."""
        return torch.cat([member.class_texts() for member in self.members], dim=-1)

    def start_at(self, cosines: Sequence[float]) -> None:
        """As for one model; one mean cosine a member."""
        for member, cosine in zip(self.members, cosines, strict=True):
            member.start_at([cosine])

    def forward(self, feature_BTD: Tensor, mask_BT: Tensor, text_CD: Tensor | None = None) -> BranchOutput:
        """`text_CD`: what `class_texts` returned; none: made here."""
        text_CD = self.class_texts() if text_CD is None else text_CD
        parts = zip(self.members, feature_BTD.split(self.widths, -1), text_CD.split(self.widths, -1), strict=True)
        outputs = [member(part_BTD, mask_BT, part_CD) for member, part_BTD, part_CD in parts]
        logit_BTC = torch.stack([output.logit_BTC for output in outputs]).mean(0)
        hidden_BTD = torch.cat([output.feature_BTD for output in outputs], dim=-1)
        return BranchOutput(logit_BTC, *squash(logit_BTC, self.settings.activation), hidden_BTD)
