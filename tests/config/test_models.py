"""Settings of the branches: what cannot be is refused in one line that names it, and so is what would do nothing."""

import pytest

from feature_extraction.errors import UserError
from wtal.config.models import CBPSettings, VLPSettings
from wtal.config.strict import build

NOT_CBP = [
    ({"heads": 0}, "cbp.heads must be .* at least 1, got 0"),
    ({"width": 0}, "cbp.width must be .* at least 1, got 0"),
    ({"layers": -1}, "cbp.layers must be .* at least 0, got -1"),
    ({"window": -1}, "cbp.window must be .* at least 0, got -1"),
    ({"kernel": 2}, "cbp.kernel must be an odd number .*, got 2"),
    ({"kernel": -1}, "cbp.kernel must be .* at least 1, got -1"),
    ({"dilations": []}, r"cbp.dilations must be one or more .*, got \[\]"),
    ({"dilations": [1, 0]}, r"cbp.dilations .*, got \[1, 0\]"),
    ({"streams": []}, "cbp.streams is empty"),
    ({"streams": ["rgb", "rgb"]}, "cbp.streams names a stream twice: rgb, rgb"),
    ({"dropout_in": 1.0}, r"cbp.dropout_in must be in \[0, 1\), got 1.0"),
    ({"dropout_out": float("nan")}, "cbp.dropout_out must be"),
    ({"instance_weight": -1.0, "pooling": {"name": "mean"}}, "cbp.instance_weight must be .* at least 0"),
    ({"name": "umm"}, "cbp.name: 'umm' is not one of 'transformer', .*'delu'"),
    ({"um": {"width": 0}}, "cbp.um.width must be .* at least 1"),
    ({"um": {"margin": -1.0}}, "cbp.um.margin must be a positive number"),
    ({"um": {"action_ratio": 0}}, "cbp.um.action_ratio must be"),
    ({"um": {"magnitude_weight": float("nan")}}, "cbp.um.magnitude_weight must be"),
    ({"co2net": {"topk_ratio": 0}}, "cbp.co2net.topk_ratio must be"),
    ({"co2net": {"smooth": 4}}, "cbp.co2net.smooth must be 0 or an odd number of snippets, got 4"),
    ({"co2net": {"smooth": -1}}, "cbp.co2net.smooth must be"),
    ({"delu": {"guide": -0.1}}, "cbp.delu.guide must be"),
    ({"delu": {"amplitude": 1.5}}, r"cbp.delu.amplitude must be in \[0, 1\], got 1.5"),
    ({"delu": {"attention_ratio": 0}}, "cbp.delu.attention_ratio must be"),
    ({"delu": {"amplitud": 0.5}}, "unknown setting 'cbp.delu.amplitud'; did you mean 'cbp.delu.amplitude'"),
]

NOT_VLP = [
    ({"heads": 0}, "vlp.heads must be .* at least 1, got 0"),
    ({"layers": -1}, "vlp.layers must be .* at least 0, got -1"),
    ({"window": -1}, "vlp.window must be .* at least 0, got -1"),
    ({"dropout": 1.5}, r"vlp.dropout must be in \[0, 1\), got 1.5"),
    ({"scale": 0.0}, "vlp.scale must be a positive number, got 0.0"),
    ({"scale": -1.0}, "vlp.scale must be a positive number, got -1.0"),
    ({"scale": float("inf")}, "vlp.scale must be a positive number"),
    ({"more": [{"stream": "b", "text_embeddings": "t.npz", "scale": 0}]}, "scale of stream 'b' must be a positive"),
    ({"text": "template", "text_embeddings": "t.npz"}, "vlp.text_embeddings is for .*'precomputed', .*'template'"),
    ({"text": "learned", "text_embeddings": "t.npz"}, "vlp.text_embeddings is for .*'precomputed', .*'learned'"),
    ({"more": [{"stream": "b", "text_embeddings": "t.npz"}]}, "vlp.text_embeddings is for"),
    ({"text": "precomputed"}, "set vlp.text_embeddings"),
]


@pytest.mark.parametrize("values,words", NOT_CBP, ids=[str(values) for values, _ in NOT_CBP])
def test_cbp_settings_that_cannot_be(values, words):
    with pytest.raises(UserError, match=words) as caught:
        build(CBPSettings, values, "cbp")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("values,words", NOT_VLP, ids=[str(values) for values, _ in NOT_VLP])
def test_vlp_settings_that_cannot_be(values, words):
    with pytest.raises(UserError, match=words) as caught:
        build(VLPSettings, values, "vlp")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["co2net", "um", "delu"])
def test_published_methods_refuse_what_they_do_not_use(name):
    for values, words in (
        ({"pooling": {"name": "max"}}, f"cbp.pooling is for transformer, .* cbp.name '{name}'"),
        ({"pooling": {"topk_ratio": 4}}, "cbp.pooling is for"),
        ({"pooling": {"name": "mean"}, "instance_weight": 0.1}, "cbp.pooling is for"),
    ):
        assert build(CBPSettings, values, "cbp")
        with pytest.raises(UserError, match=words):
            build(CBPSettings, {**values, "name": name}, "cbp")
    # what names another architecture may stay in a configuration that is shared
    assert build(CBPSettings, {"name": name, "window": 3, "kernel": 5, "heads": 4, "width": 128}, "cbp").name == name
