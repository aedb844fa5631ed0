"""Several vision-language models as one branch: the mean of their logits, from the configuration to predictions."""

import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.store.stream import create_stream, open_streams
from wtal.config.models import VLPSettings
from wtal.models.vlp import VLP, FixedText, SeveralVLP
from wtal.runs.predict import predict_run
from wtal.training.run import train


def vlp(width: int, seed: int) -> VLP:
    torch.manual_seed(seed)
    settings = VLPSettings(layers=1, heads=2, window=2, input_length="one")
    branch = VLP(settings, FixedText(torch.randn(3, width)), width, 10.0).eval()
    branch.start_at([0.1])
    for parameter in branch.blocks.parameters():
        torch.nn.init.normal_(parameter, std=0.1)  # a temporal layer that does something
    return branch


def test_logits_are_the_mean_of_the_models_own():
    first, second = vlp(8, 0), vlp(12, 1)
    feature, mask_BT = torch.randn(2, 9, 20), torch.ones(2, 9, dtype=torch.bool)
    alone = [first(feature[..., :8], mask_BT), second(feature[..., 8:], mask_BT)]
    output = SeveralVLP([first, second])(feature, mask_BT)
    torch.testing.assert_close(output.logit_BTC, (alone[0].logit_BTC + alone[1].logit_BTC) / 2)
    torch.testing.assert_close(output.p_BTC, output.logit_BTC.sigmoid())
    assert output.feature_BTD.shape == (2, 9, 20)


def test_one_model_twice_is_that_model():
    branch = vlp(8, 0)
    feature, mask_BT = torch.randn(2, 9, 8), torch.ones(2, 9, dtype=torch.bool)
    several = SeveralVLP([branch, branch])
    output = several(feature.repeat(1, 1, 2), mask_BT, several.class_texts())
    torch.testing.assert_close(output.logit_BTC, branch(feature, mask_BT).logit_BTC)


@pytest.fixture
def second(world):
    """A second CLIP-like stream of other widths, and its texts; the names of both streams."""
    first = open_streams(world / "features", ["clip"])["clip"]
    identity = {"fps": 25.0, "window": 16, "stride": 16, "dim": 12, "model": "another"}
    stream = create_stream(world / "features", "clip", identity)
    with np.load(world / "text.npz", allow_pickle=False) as text:
        names, embeddings_CD = text["names"], text["embeddings"]
    mapping_DE = np.random.default_rng(0).normal(size=(8, 12)) / np.sqrt(8)
    for video_id in first.ids():
        stream.write(video_id, first.read(video_id).astype(np.float64) @ mapping_DE, first.sidecar(video_id))
    np.savez(world / "text2.npz", names=names, embeddings=(embeddings_CD @ mapping_DE).astype(np.float32))
    return first.folder.name, stream.folder.name


def sections(world, second, **more) -> dict:
    entry = {"stream": second[1], "text_embeddings": str(world / "text2.npz"), **more}
    return {"data": {"streams": ["rgb", "flow", *second]}, "vlp": {"more": [entry]}}


def test_a_store_gives_two_streams_of_one_name_where_both_are_named(world, second):
    streams = open_streams(world / "features", second)
    assert [(name, stream.dim) for name, stream in streams.items()] == [("clip", 8), (second[1], 12)]
    with pytest.raises(UserError, match="several clip streams"):
        open_streams(world / "features", ["clip"])


def test_training_and_prediction_with_two_models(make_config, world, second):
    config = make_config("two", **sections(world, second))
    run, excluded = train(config)
    assert not excluded
    for row in ("ours", "vlp", "vlp_raw"):
        assert predict_run(run, world / f"{row}.json", row, (), None) == 0
    last = torch.load(run.path / "checkpoints" / "B2.pt", weights_only=True)
    assert any("members.1." in name for name in last["vlp"])


def test_what_cannot_be(make_config, world, second):
    with pytest.raises(UserError, match="a stream of its own"):
        make_config("x", vlp={"more": [{"stream": "clip", "text_embeddings": "t.npz"}]})
    with pytest.raises(UserError, match="has no texts; set clip_model"):
        make_config("x", vlp={"more": [{"stream": "clip-1"}]})
    with pytest.raises(UserError, match="vlp.stream 'clip-0' is not in the feature store"):
        train(make_config("x", **sections(world, second, stream="clip-0")))
