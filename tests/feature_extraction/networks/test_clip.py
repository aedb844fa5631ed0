"""Frozen CLIP against open_clip itself, on tiny random models: nothing is downloaded.

Shape suffixes: N images or texts, H and W pixels, L tokens, W token width, D embedding width.
"""

import json
import pickle
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from feature_extraction.errors import RunFailure, UserError
from feature_extraction.files import sha256_file
from feature_extraction.networks import clip_models
from feature_extraction.networks.clip import Preprocessing, import_open_clip, load_clip, resize_like_8_bit, save_clip
from feature_extraction.networks.clip_models import make_tokenizer
from feature_extraction.networks.towers import load_towers
from feature_extraction.settings import ExtractionSettings

TEXTS = ["a person opens a door", "javelin throw", "x"]


def config_file(folder, name="clip.json", **changes):
    config = {
        "embed_dim": 24,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
        "text_cfg": {"context_length": 32, "vocab_size": 900, "width": 32, "heads": 2, "layers": 2},
    }
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path = folder / name
    path.write_text(json.dumps(config))
    return str(path)


def tiny(folder, **changes):
    torch.manual_seed(0)
    clip = load_clip(config_file(folder, **changes), None)
    for value in clip.model.parameters():  # open_clip starts projections and positions near zero
        value.add_(0.1 * torch.randn(value.shape))
    return clip


POOLINGS = {
    "argmax": {},
    "eos": {"text_cfg": {"pool_type": "eos", "eos_id": 899}},
    "last": {"text_cfg": {"pool_type": "last"}},
    "first": {"text_cfg": {"pool_type": "first"}},
    "custom text class": {"custom_text": True},
    "both directions": {"custom_text": True, "text_cfg": {"no_causal_mask": True, "proj_bias": True}},
    "no projection": {"embed_dim": 32, "custom_text": True, "text_cfg": {"proj_type": "none"}},
}


@pytest.mark.parametrize("changes", POOLINGS.values(), ids=POOLINGS)
def test_embeddings_path_equals_encode_text(tmp_path, changes):
    clip = tiny(tmp_path, **changes)
    tokens_NL = clip.tokenize(TEXTS)
    with torch.no_grad():
        wanted_ND = clip.model.encode_text(tokens_NL)
        got_ND = clip.encode_embeddings(clip.token_embeddings(tokens_NL), clip.end_positions(tokens_NL))
    torch.testing.assert_close(got_ND, wanted_ND, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(clip.encode_texts(TEXTS), wanted_ND, rtol=1e-5, atol=1e-5)
    assert got_ND.shape == (3, clip.embed_dim)


@pytest.mark.parametrize("kind", ["argmax", "eos"])
def test_positions_after_the_end_change_nothing(tmp_path, kind):
    clip = tiny(tmp_path, **POOLINGS[kind])
    tokens_NL = clip.tokenize(TEXTS)
    end_N = clip.end_positions(tokens_NL)
    assert (tokens_NL.gather(1, end_N[:, None]) == 899).all()
    short = int(end_N.max()) + 1
    with torch.no_grad():
        cut = clip.encode_embeddings(clip.token_embeddings(tokens_NL[:, :short]), end_N)
    torch.testing.assert_close(cut, clip.encode_texts(TEXTS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["argmax", "eos"])
def test_gradient_reaches_the_embeddings_and_nothing_else(tmp_path, kind):
    clip = tiny(tmp_path, **POOLINGS[kind])
    tokens_NL = clip.tokenize(TEXTS)
    end_N = clip.end_positions(tokens_NL)
    embeddings_NLW = clip.token_embeddings(tokens_NL).double().requires_grad_()
    clip.model.double()
    direction_ND = torch.randn(3, clip.embed_dim, dtype=torch.double)
    loss = (clip.encode_embeddings(embeddings_NLW, end_N) * direction_ND).sum()
    loss.backward()
    gradient_NLW = embeddings_NLW.grad
    for row, end in enumerate(end_N.tolist()):  # causal attention: what is after the end does not count
        assert (gradient_NLW[row, : end + 1].abs().sum(1) > 0).all()
        assert (gradient_NLW[row, end + 1 :] == 0).all()
    assert all(value.grad is None for value in clip.model.parameters())
    # The slope along one direction, against a central difference
    step_NLW = torch.randn_like(embeddings_NLW)
    with torch.no_grad():
        high, low = (
            (clip.encode_embeddings(embeddings_NLW + sign * 1e-5 * step_NLW, end_N) * direction_ND).sum()
            for sign in (1, -1)
        )
    torch.testing.assert_close((gradient_NLW * step_NLW).sum(), (high - low) / 2e-5, rtol=1e-5, atol=1e-7)


def test_learnt_vectors_may_stand_around_the_name(tmp_path):
    # Vectors of the vocabulary, put where a prompt learner puts its own, are the text in one piece
    clip = tiny(tmp_path)
    tokens_NL = clip.tokenize(["a person opens a door"])
    vectors_NLW = clip.token_embeddings(tokens_NL)
    parts = [vectors_NLW[:, :1], vectors_NLW[:, 1:4], vectors_NLW[:, 4:8], vectors_NLW[:, 8:]]
    end_N = clip.end_positions(tokens_NL)
    joined = clip.encode_embeddings(torch.cat(parts, 1), end_N)
    torch.testing.assert_close(joined, clip.encode_texts(["a person opens a door"]), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="33 token positions, but the text tower has 32"):
        clip.encode_embeddings(torch.zeros(1, 33, 32), end_N)


def test_towers_that_take_no_prompts_say_so(tmp_path):
    clip = tiny(tmp_path, custom_text=True, text_cfg={"embed_cls": True})
    assert clip.encode_texts(TEXTS).shape == (3, 24)
    with pytest.raises(UserError, match="takes no learnt prompts"):
        clip.token_embeddings(clip.tokenize(TEXTS))


def test_images_equal_open_clip(tmp_path):
    clip = tiny(tmp_path)
    frames_NHWC = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    transform = import_open_clip().image_transform(32, is_train=False)
    images_NCHW = torch.stack([transform(Image.fromarray(frame)) for frame in frames_NHWC])
    with torch.no_grad():
        wanted = clip.model.encode_image(images_NCHW)
    got = clip.encode_images(frames_NHWC)
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert got.dtype == torch.float32 and (got.norm(dim=1) - 1).abs().min() > 1e-3  # not normalised
    torch.testing.assert_close(clip.encode_images(torch.from_numpy(frames_NHWC)), got)
    assert clip.encode_images(frames_NHWC[:0]).shape == (0, 24)


@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("sides", [(240, 320), (321, 241), (64, 64), (50, 41), (64, 97), (720, 1280)])
def test_preprocessing_is_that_of_open_clip(mode, interpolation, sides):
    height, width = sides
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[: height // 2] = np.linspace(0, 255, width).astype(np.uint8)[None, :, None]
    open_clip = import_open_clip()
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    transform = open_clip.image_transform(64, is_train=False, resize_mode=mode, interpolation=interpolation)
    wanted_CHW = transform(Image.fromarray(image))
    got_CHW = Preprocessing(64, mean, std, mode, interpolation)(torch.from_numpy(image)[None])[0]
    levels_CHW = (got_CHW - wanted_CHW) * torch.tensor(std).view(3, 1, 1) * 255
    # One level of 255 in a few pixels: the two libraries round their filter weights differently
    assert got_CHW.shape == (3, 64, 64) and levels_CHW.abs().max() < 1.01
    assert (levels_CHW.abs() > 0.01).float().mean() < 0.01


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("target", [(48, 64), (150, 200), (33, 120), (90, 31)])
def test_the_resize_of_other_devices_agrees_with_the_8_bit_one(interpolation, target):
    noise = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (1, 3, 90, 120), dtype=np.uint8))
    wanted = torch.nn.functional.interpolate(noise, target, mode=interpolation, antialias=True).float()
    difference = (resize_like_8_bit(noise, target, interpolation) - wanted).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 0.02


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_images_on_a_gpu(tmp_path):
    clip = tiny(tmp_path)
    frames = np.random.default_rng(0).integers(0, 256, (4, 90, 120, 3), dtype=np.uint8)
    wanted = clip.encode_images(frames)
    texts = clip.encode_texts(TEXTS)
    clip.to("cuda")
    torch.testing.assert_close(clip.encode_images(frames).cpu(), wanted, rtol=0.02, atol=0.02)
    torch.testing.assert_close(clip.encode_texts(TEXTS).cpu(), texts, rtol=1e-3, atol=1e-3)


def test_unknown_preprocessing_is_refused():
    with pytest.raises(UserError, match="'longest', 'bicubic' is not supported"):
        Preprocessing(64, (0.0,) * 3, (1.0,) * 3, "longest")


@pytest.mark.parametrize("frames", [np.zeros((2, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8)])
def test_wrong_frames_are_refused(tmp_path, frames):
    with pytest.raises(UserError, match="expected uint8 frames"):
        tiny(tmp_path).encode_images(frames)


def test_saved_weights_load(tmp_path):
    clip = tiny(tmp_path)
    save_clip(clip, tmp_path / "w.safetensors", tmp_path / "again.json")
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8)
    again = load_clip(str(tmp_path / "again.json"), str(tmp_path / "w.safetensors"))
    assert torch.equal(again.encode_texts(TEXTS), clip.encode_texts(TEXTS))
    assert torch.equal(again.encode_images(frames), clip.encode_images(frames))
    assert (again.embed_dim, again.image_size, again.context_length) == (24, 32, 32)
    assert again.logit_scale == pytest.approx(float(clip.model.logit_scale.exp()))
    assert not any(value.requires_grad for value in again.model.parameters()) and not again.model.training
    # A plain state dict, and one wrapped by a trainer, hold the same
    torch.save(clip.model.state_dict(), tmp_path / "w.pt")
    state = {f"module.{name}": value for name, value in clip.model.state_dict().items()}
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / "trainer.pt")
    for name in ("w.pt", "trainer.pt"):
        other = load_clip(str(tmp_path / "again.json"), str(tmp_path / name))
        assert torch.equal(other.encode_texts(TEXTS), clip.encode_texts(TEXTS))


def test_activation_is_honoured_and_a_mismatch_is_an_error(tmp_path):
    clip = tiny(tmp_path)
    save_clip(clip, tmp_path / "w.safetensors")
    gelu = config_file(tmp_path, "gelu.json", quick_gelu=False)
    with pytest.raises(UserError, match="trained with quick_gelu true"):
        load_clip(gelu, str(tmp_path / "w.safetensors"))
    # The same numbers in a file that does not say so load, and the activation makes other embeddings
    save_file(load_file(tmp_path / "w.safetensors"), tmp_path / "bare.safetensors")
    other = load_clip(gelu, str(tmp_path / "bare.safetensors"))
    assert (other.encode_texts(TEXTS) - clip.encode_texts(TEXTS)).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("model", "tag", "words"),
    [
        ("ViT-B-16", "openai", "GELU, but the weights 'openai' .* QuickGELU.*use 'ViT-B-16-quickgelu'"),
        ("ViT-B-16-quickgelu", "laion400m_e32", "no such file; give a tag of ViT-B-16-quickgelu .openai, "),
        ("ViT-B-16", "no_such_tag", "no such file; give a tag of ViT-B-16 "),
        ("ViT-B-16-quickgel", "openai", "near names: ViT-B-16-quickgelu"),
        ("ViT-B-16-quickgelu", "weights/absent.safetensors", "no such file"),
        ("coca_ViT-B-32", None, "captioning models"),
    ],
)
def test_wrong_names_get_one_clear_line(model, tag, words):
    with pytest.raises(UserError, match=words) as caught:
        load_clip(model, tag, offline=True)
    assert "\n" not in str(caught.value)


def test_default_tag_agrees_with_its_activation_and_is_looked_for_offline(monkeypatch, tmp_path):
    import_open_clip()
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(file_download, "HF_HUB_CACHE", str(tmp_path), raising=False)
    monkeypatch.delenv("WTAL_WEIGHTS", raising=False)
    config, _ = clip_models.read_config("ViT-B-16-quickgelu")
    tag = clip_models.find_tag("ViT-B-16-quickgelu", "openai", config)
    with pytest.raises(RunFailure, match="not in the local cache, and downloads are off.*WTAL_WEIGHTS"):
        clip_models.fetch_tag("ViT-B-16-quickgelu", "openai", tag, offline=True)
    # The hub's own layout of a cache
    repository = tmp_path / f"models--{tag['hf_hub'].rstrip('/').replace('/', '--')}"
    cached = repository / "snapshots" / "abc" / "open_clip_model.safetensors"
    cached.parent.mkdir(parents=True)
    cached.touch()
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    assert clip_models.fetch_tag("ViT-B-16-quickgelu", "openai", tag, offline=True) == cached
    # A folder of the user's own goes first
    monkeypatch.setenv("WTAL_WEIGHTS", str(tmp_path))
    own = tmp_path / "ViT-B-16-quickgelu-openai.safetensors"
    own.touch()
    assert clip_models.fetch_tag("ViT-B-16-quickgelu", "openai", tag, offline=True) == own


def test_folder_of_weights_given_by_the_user_is_looked_into_first(monkeypatch, tmp_path):
    """`--weights FOLDER`: before $WTAL_WEIGHTS, with a tiny model and tag that open_clip is made to know."""
    open_clip = import_open_clip()
    config = {**json.loads(Path(config_file(tmp_path)).read_text()), "quick_gelu": False}
    config["text_cfg"]["vocab_size"] = clip_models.FULL_VOCABULARY
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "tiny", config)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny", {"own": {"hf_hub": "nobody/nothing/"}})
    variable, given, empty = (tmp_path / name for name in ("variable", "given", "empty"))
    for seed, folder in enumerate((variable, given)):
        folder.mkdir()
        torch.manual_seed(seed)
        save_clip(load_clip("tiny", None), folder / "tiny-own.safetensors")
    empty.mkdir()
    monkeypatch.setenv("WTAL_WEIGHTS", str(variable))
    settings = ExtractionSettings(streams=("clip",), clip_model="tiny", clip_pretrained="own")
    frames = list(np.random.default_rng(0).integers(0, 256, (2, 40, 50, 3), dtype=np.uint8))

    def features(weights):
        tower = load_towers(settings, torch.device("cpu"), weights=weights, offline=True)["clip"]
        return tower.run(frames), tower.network["weights_sha256"]

    for weights, folder in ((given, given), (empty, variable), (None, variable)):
        found_ND, digest = features(weights)
        wanted = load_clip("tiny", str(folder / "tiny-own.safetensors"))
        np.testing.assert_array_equal(found_ND, wanted.encode_images(np.stack(frames)).numpy())
        assert digest == sha256_file(folder / "tiny-own.safetensors")
    with pytest.raises(UserError, match="--weights .*absent: no such file or folder"):
        features(tmp_path / "absent")


def test_a_failed_download_is_one_line(monkeypatch):
    def fail(*arguments):
        raise ConnectionError("no route\nto host")

    monkeypatch.delenv("WTAL_WEIGHTS", raising=False)
    monkeypatch.setattr(import_open_clip().pretrained, "download_pretrained", fail)
    with pytest.raises(RunFailure, match=r"could not be fetched \(no route\); give a file's path") as caught:
        load_clip()
    assert "\n" not in str(caught.value)


class Bomb:
    """Unpickled, it would make a file: the proof that code was run."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_wrong_files_get_one_clear_line_and_run_nothing(tmp_path):
    model = config_file(tmp_path)
    save_clip(tiny(tmp_path), tmp_path / "good.safetensors")
    wider = tiny(tmp_path, embed_dim=16)
    save_clip(wider, tmp_path / "wider.safetensors")
    torch.save({"visual": Bomb(tmp_path / "ran")}, tmp_path / "bomb.pt")
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
    whole = (tmp_path / "good.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pt").write_text("<html>404</html>")
    (tmp_path / "empty.pt").touch()
    torch.save({}, tmp_path / "nothing.pt")
    (tmp_path / "big_vision.npz").touch()
    config_file(tmp_path)
    for name, words in {
        "wider.safetensors": "do not fit",
        "bomb.pt": "code or objects",
        "plain.pt": "code or objects",
        "cut.safetensors": "cut short",
        "text.pt": "not a plain file of tensors",
        "empty.pt": "holds no weights",
        "nothing.pt": "holds no weights",
        "big_vision.npz": "as safetensors",
    }.items():
        with pytest.raises(UserError, match=words) as caught:
            load_clip(model, str(tmp_path / name))
        assert "\n" not in str(caught.value) and name in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ('{"embed_dim": 4}', "has the keys embed_dim, vision_cfg, text_cfg"),
        ("[]", "has the keys"),
        ('{"embed_dim": 4, "vision_cfg": {"nonsense": 1}, "text_cfg": {}}', "nonsense"),
        ('{"embed_dim": 4, "vision_cfg": {"patch_size": 0}, "text_cfg": {}}', "not a usable CLIP model"),
    ],
)
def test_wrong_configs_get_one_clear_line(tmp_path, text, words):
    (tmp_path / "wrong.json").write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        load_clip(str(tmp_path / "wrong.json"), None)
    assert "\n" not in str(caught.value)


def test_wrong_vocabularies_and_shapes_are_refused(tmp_path):
    for size in (513, 49409):
        with pytest.raises(UserError, match=f"vocab_size must be from 514 to 49408, got {size}"):
            load_clip(config_file(tmp_path, text_cfg={"vocab_size": size}), None)
    with pytest.raises(UserError, match="are not square"):
        load_clip(config_file(tmp_path, vision_cfg={"image_size": [32, 48]}), None)
    with pytest.raises(UserError, match="no such file"):
        load_clip(str(tmp_path / "absent.json"), None)


def test_a_config_in_the_layout_of_the_hub_sets_the_preprocessing(tmp_path):
    with open(config_file(tmp_path)) as stream:
        plain = json.load(stream)
    own = {"mean": [0.5] * 3, "std": [0.25, 0.5, 0.5], "interpolation": "bilinear", "resize_mode": "squash"}
    (tmp_path / "hub.json").write_text(json.dumps({"model_cfg": plain, "preprocess_cfg": own}))
    got = load_clip(str(tmp_path / "hub.json"), None).preprocessing
    assert got == Preprocessing(32, (0.5, 0.5, 0.5), (0.25, 0.5, 0.5), "squash", "bilinear")


def test_the_full_vocabulary_is_that_of_open_clip(tmp_path):
    text = {"vocab_size": 49408, "context_length": 77}
    clip = load_clip(config_file(tmp_path, text_cfg=text), None)
    texts = ["A person opens a door!", "jump", "déjà vu 42"]
    assert torch.equal(clip.tokenize(texts), import_open_clip().tokenize(texts))


@pytest.mark.parametrize("size", [514, 700, 5000])
def test_a_small_vocabulary_reads_the_same_text(tmp_path, size):
    clip = load_clip(config_file(tmp_path, text_cfg={"vocab_size": size}), None)
    tokens = clip.tokenize(["opens the door"])[0].tolist()
    assert tokens[0] == size - 2 and max(tokens) == size - 1
    inside = tokens[1 : tokens.index(size - 1)]
    assert clip._tokenizer.decode(inside).split() == ["opens", "the", "door"]
    assert len(inside) == 12 if size == 514 else len(inside) < 12


def test_a_text_that_does_not_fit_is_not_cut(tmp_path):
    with pytest.raises(UserError, match="is over 32 tokens long"):
        tiny(tmp_path).tokenize(["door " * 40])


def test_a_config_from_a_stranger_reaches_no_other_library(tmp_path, monkeypatch):
    asked = []

    class AutoTokenizer:
        @staticmethod
        def from_pretrained(*names, **settings):
            asked.append((names, settings))  # with trust_remote_code the library runs the folder's Python files

    monkeypatch.setitem(sys.modules, "transformers", types.SimpleNamespace(AutoTokenizer=AutoTokenizer))
    evil = {"hf_tokenizer_name": str(tmp_path), "tokenizer_kwargs": {"trust_remote_code": True}}
    for changes, key in (
        ({"text_cfg": evil}, "text_cfg.hf_tokenizer_name"),
        ({"text_cfg": {"hf_model_name": str(tmp_path)}}, "text_cfg.hf_model_name"),
        ({"vision_cfg": {"timm_model_name": f"local-dir:{tmp_path}"}}, "vision_cfg.timm_model_name"),
        ({"text_cfg": {"norm_kwargs": {"eps": {"deep": 1}}}}, "text_cfg.norm_kwargs"),
        ({"multimodal_cfg": {}}, "multimodal_cfg"),
    ):
        with pytest.raises(UserError, match=re.escape(key)) as caught:
            load_clip(config_file(tmp_path, **changes), None)
        assert "\n" not in str(caught.value)
    hub = {"model_cfg": json.loads(Path(config_file(tmp_path)).read_text()), "preprocess_cfg": {"mean": "x"}}
    (tmp_path / "hub.json").write_text(json.dumps(hub))
    with pytest.raises(UserError, match="three numbers"):
        load_clip(str(tmp_path / "hub.json"), None)
    assert not asked


def test_a_tokenizer_of_another_package_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(UserError, match="package 'transformers', which is not installed"):
        make_tokenizer("ViT-B-16-SigLIP", {})
