"""CO2-Net, DELU and UM against the numbers of their authors' code: networks, every loss term, gradients, in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from wtal.config.models import CBPSettings, ConsensusSettings, EvidentialSettings, MagnitudeSettings
from wtal.models.branch import Inputs
from wtal.models.build import CBP_BRANCHES
from wtal.models.cbp.um import scaled_magnitude
from wtal.models.layers import BatchDropout

from ...parity import below, cases, read

LAYERS = {
    "attention.": "attend.",
    "global_conv": "globally.layer",
    "local_conv": "locally.layer",
    "fusion": "fuse.layer",
    "classifier.0": "hidden.layer",
    "classifier.1": "classify.layer",
    "embed": "embed.convolution",
    "classifier.": "classify.",
}
"""Beginnings of the published names -> ours."""


def ours(name):
    """Our name of a layer's weight or bias."""
    for published, own in LAYERS.items():
        name = name.replace(published, own) if own not in name else name
    stem, _, kind = name.rpartition(".")
    return f"{stem}.layer.{kind}" if ".attend." in name else name


def network_of(name, arrays):
    """Our network in float64 with the given weights, and the batch: features, mask, labels."""
    setting = {key: value.item() for key, value in below(arrays, "setting").items()}
    if name == "um":
        group = MagnitudeSettings(
            margin=setting["margin"], action_ratio=int(setting["action_ratio"]),
            background_ratio=int(setting["background_ratio"]), magnitude_weight=setting["weight_magnitude"],
            background_weight=setting["weight_background_entropy"],
        )  # fmt: skip
    else:
        kind = {"co2net": ConsensusSettings, "delu": EvidentialSettings}[name]
        own = {key.removeprefix("weight_"): value for key, value in setting.items() if key != "weight_mil"}
        own = {key: value for key, value in own.items() if key in kind.__dataclass_fields__}
        group = kind(**{key: int(value) if key.endswith("ratio") else value for key, value in own.items()})
    settings = CBPSettings(name=name, activation="softmax", dropout_in=0.0, dropout_out=0.7, **{name: group})
    rgb, flow = torch.from_numpy(arrays["input/rgb"]), torch.from_numpy(arrays["input/flow"])
    widths = (rgb.shape[-1], flow.shape[-1])
    network = CBP_BRANCHES[name].make(settings, Inputs(widths, sum(widths)), arrays["input/labels"].shape[1]).double()
    own = network.network if name == "delu" else network
    weights = {ours(key): torch.from_numpy(value) for key, value in below(arrays, "weights").items()}
    own.load_state_dict({key: value.double().view(own.state_dict()[key].shape) for key, value in weights.items()})
    feature = torch.cat([rgb, flow], -1)
    return network, feature, torch.ones(feature.shape[:2], dtype=torch.bool), torch.from_numpy(arrays["input/labels"])


def close(got, expected, tolerance=1e-9):
    """Both equal to `tolerance` of the largest entry."""
    got = got.detach().numpy() if isinstance(got, torch.Tensor) else np.asarray(got)
    scale = max(1e-30, float(np.abs(expected).max()))
    assert float(np.abs(got.reshape(expected.shape) - expected).max()) <= tolerance * scale


def mark_dropouts(monkeypatch, marked):
    """Each dropout of probability p multiplies with 1 - p / 4, or does nothing."""
    factor = (lambda self, x: x * (1 - self.probability / 4)) if marked else (lambda self, x: x)
    monkeypatch.setattr(BatchDropout, "forward", factor)


def gradients_are_equal(network, loss, arrays, prefix):
    network.zero_grad()
    loss.backward(retain_graph=True)
    expected = below(arrays, prefix)
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    assert expected
    for name, value in expected.items():
        close(gradients[ours(name)], value)


@pytest.mark.parametrize("path", cases("co2net_network.npz", "delu_network.npz"))
@pytest.mark.parametrize("marked", [False, True], ids=["still", "marked"])
def test_consensus_network(path, marked, monkeypatch):
    arrays = read(path)
    mark_dropouts(monkeypatch, marked)
    network, feature, mask, _ = network_of(path.name.partition("_")[0], arrays)
    output = network(feature, mask)
    got = {
        "cas": output.extra["logit_BTK"], "pair_feature": output.feature_BTD, "attention": output.attention_BT,
        "attention_rgb": output.extra["rgb_attention_BT"], "attention_flow": output.extra["flow_attention_BT"],
        "cas_suppressed": output.extra["suppressed_BTK"],
    }  # fmt: skip
    expected = below(arrays, "output_marked" if marked else "output")
    known = [name for name in got if name in expected]
    assert "attention" in known
    for name in known:
        close(got[name][: len(expected[name])], expected[name])
    close(output.raw_BTC, (output.extra["logit_BTK"][..., :-1] * output.attention_BT[..., None]).detach().numpy())


@pytest.mark.parametrize("path", cases("co2net_network.npz", "delu_network.npz"))
def test_consensus_losses(path, monkeypatch):
    arrays, name = read(path), path.name.partition("_")[0]
    mark_dropouts(monkeypatch, False)
    network, feature, mask, label = network_of(name, arrays)
    output = network(feature, mask)
    for place in ("start", "end") if name == "delu" else ("",):
        at = f"{place}/" if place else ""
        progress = arrays[f"{at}iteration"].item() / arrays["setting/max_iteration"].item() if place else 0.0
        loss, terms = network.own_loss(output, label, mask, progress)
        expected = below(arrays, "loss") | (below(arrays, f"{place}/loss") if place else {})
        close(terms["mil"], expected["mil_plain"] + expected["mil_suppressed"])
        for term in [term for term in terms if term != "mil"]:
            close(terms[term], expected[term])
        close(loss, expected["total"])
        own = network.network if name == "delu" else network
        gradients_are_equal(own, loss, arrays, f"{at}gradients")


@pytest.mark.parametrize("path", cases("um_network.npz"))
@pytest.mark.parametrize("marked", [False, True], ids=["still", "marked"])
def test_um_network(path, marked, monkeypatch):
    arrays = read(path)
    mark_dropouts(monkeypatch, marked)
    network, feature, mask, _ = network_of("um", arrays)
    output = network(feature, mask)
    expected = below(arrays, "output_marked" if marked else "output")
    got = {"class_score": output.extra["class_BTC"], "features": output.feature_BTD,
           "magnitude": output.extra["magnitude_BT"]}  # fmt: skip
    known = [name for name in got if name in expected]
    assert "class_score" in known
    for name in known:
        close(got[name][: len(expected[name])], expected[name])


@pytest.mark.parametrize("path", cases("um_network.npz"))
@pytest.mark.parametrize("case", ["all_kept", "selection"])
def test_um_losses(path, case, monkeypatch):
    arrays = read(path)
    if f"{case}/keep" not in arrays:
        pytest.skip("not in the small copy")
    mark_dropouts(monkeypatch, False)
    network, feature, mask, label = network_of("um", arrays)
    output = network(feature, mask)
    output.extra["keep_BT"] = torch.from_numpy(arrays[f"{case}/keep"])
    loss, terms = network.own_loss(output, label, mask, 0.0)
    expected = below(arrays, f"{case}/loss")
    close(terms["bag"], expected["classification"])
    close(terms["magnitude"], expected["magnitude"])
    close(terms["uniform"], expected["background_entropy"])
    close(loss, expected["total"])
    gradients_are_equal(network, loss, arrays, f"{case}/gradients")


@pytest.mark.parametrize("path", cases("co2net_inference.npz", "delu_inference.npz", "um_inference.npz"))
def test_video_scores(path):
    arrays, name = read(path), path.name.partition("_")[0]
    settings = CBPSettings(name=name, activation="softmax", dropout_in=0.0, dropout_out=0.7)
    network = CBP_BRANCHES[name].make(settings, Inputs((2, 2), 4), 1)
    checked = 0
    for video in sorted({key.partition("/")[0] for key in arrays}):
        own = {key: torch.from_numpy(np.atleast_1d(value)) for key, value in below(arrays, video).items()}
        if not torch.isfinite(own["video_score"]).all():
            continue  # UM divides by T // 9, which is 0 there
        mask = torch.ones(1, len(own["magnitude" if name == "um" else "attention"]), dtype=torch.bool)
        output = network(torch.zeros(*mask.shape, 4), mask)
        if name == "um":
            close(scaled_magnitude(own["magnitude"][None], mask, 9, 4)[0], own["scaled_magnitude"].numpy(), 1e-5)
            output.extra["class_BTC"] = own["class_score"][None]
        else:
            output = replace(output, attention_BT=own["attention"][None], extra={"logit_BTK": own["cas"][None]})
        close(network.video_probability(output, mask)[0], own["video_score"].numpy(), 1e-5)
        checked += 1
    assert checked
