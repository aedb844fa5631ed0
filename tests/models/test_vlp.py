"""The vision-language branch: prompts through the frozen text tower, the scores, what trains and what not."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from feature_extraction.errors import UserError
from feature_extraction.networks.clip import import_open_clip, load_clip
from wtal.config.models import VLPSettings
from wtal.models.build import build_vlp, fixed_text
from wtal.models.vlp import VLP, FixedText, LearnedPrompts, precomputed_embeddings, spaced, template_embeddings

NAMES = ("CleanAndJerk", "Golf_Swing", "jump")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
    }
    folder = tmp_path_factory.mktemp("clip")
    (folder / "clip.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    network = import_open_clip().CLIP(**config)
    torch.save(network.state_dict(), folder / "clip.pt")
    return load_clip(str(folder / "clip.json"), str(folder / "clip.pt"), torch.device("cpu"))


@pytest.mark.parametrize(
    "name,words",
    [
        ("CleanAndJerk", "clean and jerk"),
        ("golf_swing", "golf swing"),
        ("Doing  karate", "doing karate"),
        ("BMX", "bmx"),
    ],
)
def test_class_names_become_words(name, words):
    assert spaced(name) == words


def test_no_prompts_is_the_plain_class_name(clip):
    prompts = LearnedPrompts(clip, NAMES, 0)
    expected = clip.encode_texts([spaced(name) for name in NAMES])
    torch.testing.assert_close(prompts(), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("looks_back", [True, False])
def test_prompts_stand_before_and_after_the_name(clip, monkeypatch, looks_back):
    """As in texts of the whole context, of which nothing behind the end is worked on where attention looks back."""
    torch.manual_seed(1)
    if not looks_back:
        monkeypatch.setitem(clip._tower()._buffers, "attn_mask", None)
    read = []
    whole = clip.encode_embeddings
    monkeypatch.setattr(clip, "encode_embeddings", lambda x, end: read.append(x.shape[1]) or whole(x, end))
    prompts = LearnedPrompts(clip, NAMES, 3)
    tokens = clip.tokenize([spaced(name) for name in NAMES])
    embedding = clip.token_embeddings(tokens)
    rows, ends = [], []
    for row, end in zip(embedding, tokens.argmax(-1).tolist(), strict=True):
        parts = [row[0:1], prompts.before_PW, row[1:end], prompts.after_PW, row[end : end + 1]]
        text = torch.cat(parts)
        rows.append(F.pad(text, (0, 0, 0, 77 - len(text))))
        ends.append(len(text) - 1)
    expected = clip.encode_embeddings(torch.stack(rows), torch.tensor(ends))
    torch.testing.assert_close(prompts(), expected)
    assert read[-1] == (max(ends) + 1 if looks_back else 77)
    assert prompts.before_PW.std().item() == pytest.approx(0.01, rel=0.5)


def test_only_the_prompts_are_trained(clip):
    prompts = LearnedPrompts(clip, NAMES, 2)
    assert {name for name, p in prompts.named_parameters() if p.requires_grad} == {"before_PW", "after_PW"}
    assert set(prompts.state_dict()) == {"before_PW", "after_PW"}
    prompts().square().sum().backward()
    assert prompts.before_PW.grad.abs().sum() > 0 and prompts.after_PW.grad.abs().sum() > 0


def test_prompts_too_long_for_the_context_are_refused(clip):
    with pytest.raises(UserError, match="'CleanAndJerk' has .* set vlp.prompt_length to at most 3[0-9]"):
        LearnedPrompts(clip, NAMES, 60)


def test_template_and_file_give_the_same_rows(clip, tmp_path):
    texts = template_embeddings(clip, NAMES, "a video of {}")
    torch.testing.assert_close(texts[2], clip.encode_texts(["a video of jump"])[0])
    np.savez(tmp_path / "t.npz", names=np.array(NAMES[::-1]), embeddings=texts.flip(0).numpy())
    torch.testing.assert_close(precomputed_embeddings(tmp_path / "t.npz", NAMES), texts)
    with pytest.raises(UserError, match="no text embedding for class 'Run'"):
        precomputed_embeddings(tmp_path / "t.npz", ("Run",))
    with pytest.raises(UserError, match=r"no \{\} for the class name"):
        template_embeddings(clip, NAMES, "a video")
    (tmp_path / "bad.npz").write_bytes(b"no")
    with pytest.raises(UserError, match="expected an npz file"):
        precomputed_embeddings(tmp_path / "bad.npz", NAMES)


def make_vlp(text, **options):
    branch = VLP(VLPSettings(heads=2, window=2, input_length="one", **options), FixedText(text), 8, 10.0)
    branch.start_at([0.2])
    return branch


def test_it_begins_as_frozen_clip():
    text, feature = torch.randn(3, 8), torch.randn(2, 9, 8)
    mask = torch.ones(2, 9, dtype=torch.bool)
    cosine = F.cosine_similarity(feature[:, :, None], text[None, None], dim=-1)
    output = make_vlp(text)(feature, mask)
    torch.testing.assert_close(output.p_BTC, torch.sigmoid(10 * cosine - 2), atol=1e-6, rtol=1e-5)
    as_printed = make_vlp(text, bias="none")
    torch.testing.assert_close(as_printed(feature, mask).p_BTC, torch.sigmoid(10 * cosine), atol=1e-6, rtol=1e-5)
    assert not as_printed.bias.requires_grad and make_vlp(text).bias.requires_grad
    assert not make_vlp(text, learn_scale=False).log_scale.requires_grad


@pytest.mark.parametrize("options,length", [({}, 4.0), ({"input_length": "one"}, 1.0)])
def test_embeddings_enter_with_the_length_that_is_set(options, length, tmp_path):
    np.savez(tmp_path / "text.npz", names=np.array(["a", "b"]), embeddings=np.eye(2, 16, dtype=np.float32))
    settings = VLPSettings(text="precomputed", text_embeddings=str(tmp_path / "text.npz"), heads=2, **options)
    branch = build_vlp(settings, 16, ("a", "b"), None, torch.eye(2, 16), 10.0)
    branch.start_at([0.2])
    entered = []
    branch.blocks[0].register_forward_pre_hook(lambda module, inputs: entered.append(inputs[0]))
    feature = 7 * torch.randn(2, 5, 16)
    output = branch(feature, torch.ones(2, 5, dtype=torch.bool))
    torch.testing.assert_close(entered[0].norm(dim=-1), torch.full((10,), length))
    # frozen CLIP at its start, whatever the length
    expected = 10 * F.normalize(feature, dim=-1)[..., :2] - 2
    torch.testing.assert_close(output.logit_BTC, expected, atol=1e-5, rtol=1e-5)


def test_padding_does_not_matter_and_video_probability_is_of_the_top():
    branch = make_vlp(torch.randn(3, 8))
    for block in branch.blocks:
        torch.nn.init.normal_(block.attention.project_out.weight)
    feature = torch.randn(1, 16, 8)
    mask = torch.arange(24)[None] < 16
    padded = branch(F.pad(feature, (0, 0, 0, 8), value=5.0), mask)
    alone = branch(feature, torch.ones(1, 16, dtype=torch.bool))
    torch.testing.assert_close(padded.p_BTC[:, :16], alone.p_BTC)
    expected = alone.logit_BTC[0].sort(0, descending=True).values[:2].mean(0).softmax(-1)
    torch.testing.assert_close(branch.video_probability(padded, mask)[0], expected)


def test_bf16_does_not_touch_the_cosine():
    # without temporal layers nothing else is computed: frozen CLIP scores the same in both precisions
    torch.manual_seed(0)
    branch = VLP(VLPSettings(layers=0), FixedText(torch.randn(3, 32)), 32, 100.0)
    feature, mask = torch.randn(1, 50, 32), torch.ones(1, 50, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = branch(feature, mask)
    torch.testing.assert_close(half.logit_BTC, branch(feature, mask).logit_BTC)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_bf16_scores_and_gradients_are_finite(activation):
    torch.manual_seed(0)
    settings = VLPSettings(layers=1, heads=2, window=2, activation=activation, input_length="one")
    branch = VLP(settings, FixedText(torch.eye(3, 8)), 8, 100.0)
    branch.start_at([0.2])
    feature = torch.eye(3, 8)[torch.tensor([[0, 1, 2, 0, 1]])] + 0.01 * torch.randn(1, 5, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = branch(feature, torch.ones(1, 5, dtype=torch.bool))
    assert output.log_p_BTC.dtype == output.log_not_p_BTC.dtype == torch.float32
    assert torch.isfinite(output.log_p_BTC).all() and torch.isfinite(output.log_not_p_BTC).all()
    (output.log_p_BTC + output.log_not_p_BTC).mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in branch.parameters() if p.grad is not None)


def test_texts_are_those_that_vlp_text_names(clip, tmp_path):
    template = VLPSettings(text="template", template="a clip of {}", heads=2)
    expected = clip.encode_texts([f"a clip of {spaced(name)}" for name in NAMES])
    torch.testing.assert_close(fixed_text(template, NAMES, clip), expected)
    own = torch.randn(3, 16)
    np.savez(tmp_path / "t.npz", names=np.array(NAMES), embeddings=own.numpy())
    precomputed = VLPSettings(text="precomputed", text_embeddings=str(tmp_path / "t.npz"), heads=2)
    torch.testing.assert_close(fixed_text(precomputed, NAMES, None), own)


def test_heads_that_do_not_divide_the_embedding_are_named(clip):
    with pytest.raises(UserError, match="vlp.heads 3 does not divide 16, the width of stream 'clip'"):
        build_vlp(VLPSettings(text="template", heads=3), 16, NAMES, clip, torch.eye(3, 16), 10.0)
    assert (
        build_vlp(VLPSettings(text="template", heads=3, layers=0), 16, NAMES, clip, torch.eye(3, 16), 10.0).feature_dim
        == 16
    )
