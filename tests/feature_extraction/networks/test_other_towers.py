"""Towers of torchvision and of open_clip's other families, with random weights: features, identity, errors."""

import copy
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from feature_extraction.errors import UserError
from feature_extraction.networks.clip import load_clip
from feature_extraction.networks.clip_models import import_open_clip, read_config
from feature_extraction.networks.torchvision_video import load_video_network
from feature_extraction.networks.towers import identity, load_towers
from feature_extraction.settings import ExtractionSettings

CPU = torch.device("cpu")


def models():
    import_open_clip()
    from torchvision import models

    return models


def random_file(name, folder, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = models().get_model(name)
    path = folder / f"{name}-{seed}.safetensors"
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path)
    return path, module.eval()


def snippets(count, frames, height=72, width=96):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (frames, height, width, 3), dtype=np.uint8) for _ in range(count)]


@pytest.mark.parametrize(
    ("name", "frames", "dim"), [("r3d_18", 8, 512), ("s3d", 14, 1024), ("mvit_v2_s", 16, 768), ("swin3d_t", 8, 768)]
)
def test_features_are_what_the_classifier_of_torchvision_sees(name, frames, dim, tmp_path):
    path, module = random_file(name, tmp_path)
    network = load_video_network(name, str(path), frames, CPU)
    clips = snippets(1, frames)
    found = network.features(clips, CPU)
    assert network.dim == dim and found.shape == (1, dim) and found.dtype == torch.float32
    # torchvision's own way from frames to class scores, with the classifier put on what was found
    transform = models().get_model_weights(name).DEFAULT.transforms()
    with torch.inference_mode():
        scores = module(transform(torch.from_numpy(clips[0]).permute(0, 3, 1, 2)[None]))
        head = next(getattr(module, key) for key in ("fc", "head", "classifier") if hasattr(module, key))
        input_ = found.reshape(1, dim, 1, 1, 1) if name == "s3d" else found
        again = head(input_).flatten(1)
    torch.testing.assert_close(again, scores, rtol=1e-4, atol=1e-4)


def test_the_store_knows_which_network_it_was(tmp_path):
    first, second = (random_file("r3d_18", tmp_path, seed)[0] for seed in (0, 1))
    known = []
    for path in (first, second):
        settings = ExtractionSettings(streams=("rgb",), rgb_model="r3d_18", rgb_weights=str(path), window=8, stride=8)
        tower = load_towers(settings, CPU)["rgb"]
        known.append(identity(settings, "rgb", tower, "fp32"))
        assert tower.run(snippets(2, 8)).shape == (2, 512)
    assert known[0]["network"]["architecture"] == "torchvision r3d_18" and known[0] != known[1]
    assert known[0]["network"]["preprocessing"]["crop"] == [112, 112] and "crop" not in known[0]
    i3d = ExtractionSettings(streams=("rgb",))
    assert "rgb_model" not in json.dumps(known) and i3d.rgb_model == "i3d"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("resnet18", "DEFAULT", 16), "is not known; there are i3d and"),
        (("r3d_18", None, 16), "random weights make no features"),
        (("r3d_18", "KINETICS999", 16), "no such file, and weights of r3d_18 are called DEFAULT, KINETICS400_V1"),
    ],
)
def test_what_cannot_be_is_said(arguments, message):
    with pytest.raises(UserError, match=message):
        load_video_network(*arguments, CPU)


def test_a_window_that_the_network_does_not_take_and_foreign_weights(tmp_path):
    path, _ = random_file("r3d_18", tmp_path)
    with pytest.raises(UserError, match="not the weights of torchvision's s3d"):
        load_video_network("s3d", str(path), 16, CPU)
    path, _ = random_file("mvit_v2_s", tmp_path)
    with pytest.raises(UserError, match="does not take snippets of 8 frames"):
        load_video_network("mvit_v2_s", str(path), 8, CPU)
    (tmp_path / "x.pt").write_bytes(b"no weights")
    with pytest.raises(UserError, match="not a file of weights"):
        load_video_network("r3d_18", str(tmp_path / "x.pt"), 16, CPU)


@pytest.mark.parametrize("name", ["ViT-B-16-SigLIP2", "MobileCLIP-S1"])
def test_frames_through_other_families_of_open_clip(name, tmp_path, monkeypatch):
    """The real image towers with random weights; text towers made small. No tokenizer is fetched for frames."""
    config = copy.deepcopy(read_config(name)[0])
    config["text_cfg"] |= {"layers": 1, "vocab_size": 1000}
    (tmp_path / "model.json").write_text(json.dumps(config))
    monkeypatch.setattr("feature_extraction.networks.clip.make_tokenizer", lambda *a: pytest.fail("fetched"))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = load_clip(str(tmp_path / "model.json"), None)
    frames = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), dtype=np.uint8)
    found = clip.encode_images(frames)
    assert found.shape == (2, config["embed_dim"]) and torch.isfinite(found).all()
    assert not torch.equal(found[0], found[1])
