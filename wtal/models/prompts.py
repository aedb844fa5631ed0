"""Text side of the VLP branch: class names to class embeddings through the frozen CLIP text tower.

Legend: C classes, L tokens of a text, P prompt vectors on each side, W token width, D embedding width.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from feature_extraction.clip import FrozenClip
from feature_extraction.errors import UserError

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
        width = embedding_CLW.shape[-1]
        self.before_PW = nn.Parameter(torch.randn(length, width) * PROMPT_STD)
        self.after_PW = nn.Parameter(torch.randn(length, width) * PROMPT_STD)

    def forward(self) -> Tensor:
        """Class embeddings `[C, D]`, not normalised."""
        length, context = len(self.before_PW), self.embedding_CLW.shape[1]
        rows, eot = [], []
        for embedding_LW, end in zip(self.embedding_CLW, self.ends, strict=True):
            parts = [embedding_LW[:1], self.before_PW, embedding_LW[1:end], self.after_PW, embedding_LW[end : end + 1]]
            text_LW = torch.cat(parts)
            rows.append(torch.cat([text_LW, text_LW.new_zeros(context - len(text_LW), text_LW.shape[1])]))
            eot.append(end + 2 * length)
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
        with np.load(path, allow_pickle=False) as file:
            rows = dict(zip(file["names"].tolist(), file["embeddings"], strict=True))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: expected an npz file with 'names' and 'embeddings' ({error})") from None
    if missing := [name for name in class_names if name not in rows]:
        raise UserError(f"{path}: no text embedding for class {missing[0]!r}; it has {', '.join(list(rows)[:5])}, ...")
    return torch.from_numpy(np.stack([rows[name] for name in class_names]).astype(np.float32))
