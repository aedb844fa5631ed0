"""A CLIP model config as data from a stranger: the keys that are known, and nothing that names code or another file.

open_clip hands some keys to other libraries, which fetch repositories and may run code from them (`hf_*`,
`tokenizer_kwargs`) or build any network of theirs (`timm_*`). A config file here describes open_clip's own towers.
"""

from pathlib import Path
from typing import Any

from feature_extraction.errors import UserError
from feature_extraction.files import read_json
from feature_extraction.seal import check_listed

REQUIRED = ("embed_dim", "vision_cfg", "text_cfg")

_TOWER = {
    "layers", "width", "mlp_ratio", "ls_init_value", "final_ln_after_pool", "pool_type", "output_tokens", "act_kwargs",
    "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn",
    "scale_fc",
}  # fmt: skip
KNOWN: dict[str, set[str]] = {
    "": {*REQUIRED, "quick_gelu", "custom_text", "init_logit_scale", "init_logit_bias", "nonscalar_logit_scale"},
    "vision_cfg": _TOWER | {
        "head_width", "patch_size", "image_size", "patch_dropout", "attentional_pool", "attn_pooler_queries",
        "attn_pooler_heads", "no_ln_pre", "pos_embed_type",
    },
    "text_cfg": _TOWER | {
        "context_length", "vocab_size", "heads", "embed_cls", "pad_id", "eos_id", "no_causal_mask", "proj_bias",
        "proj_type",
    },
    "preprocess_cfg": {"size", "mode", "mean", "std", "interpolation", "resize_mode", "fill_color"},
}  # fmt: skip
FURTHER = {"act_kwargs", "norm_kwargs"}
"""Keys whose value may be a mapping, of names to plain values."""


def read_config_file(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The model config of a JSON file and the preprocessing that it asks for (`{}` where it asks for none).

    Both the layout of open_clip and that of files on the Hugging Face hub are read. Raises `UserError` for a key that
    is not known here, and for a value that is no plain number, text, truth value or list of numbers.
    """
    check_listed(path)
    config, overrides = read_json(path), {}
    if isinstance(config, dict) and "model_cfg" in config:
        config, overrides = config["model_cfg"], config.get("preprocess_cfg", {})
    if not isinstance(config, dict) or any(key not in config for key in REQUIRED):
        raise UserError(f"{path}: an open_clip model config has the keys {', '.join(REQUIRED)}")
    for name, group in {"": config, "preprocess_cfg": overrides, **{k: config[k] for k in REQUIRED[1:]}}.items():
        if not isinstance(group, dict):
            raise UserError(f"{path}: {name} must be an object, got {str(group)[:60]!r}")
        _check(path, name, group)
    for key in {"mean", "std"} & set(overrides):
        value = overrides[key]
        if not isinstance(value, list) or len(value) != 3 or not all(isinstance(v, int | float) for v in value):
            raise UserError(f"{path}: preprocess_cfg.{key} is {str(value)[:60]!r}; expected three numbers")
    return config, overrides


def _check(path: Path, name: str, group: dict[str, Any]) -> None:
    for key, value in group.items():
        where = f"{name}.{key}" if name else key
        if key not in KNOWN[name]:
            raise UserError(
                f"{path}: the key {where!r} is not accepted; a model config file describes open_clip's own towers "
                f"({', '.join(sorted(KNOWN[name]))}); for towers of other libraries give an open_clip name"
            )
        if key in FURTHER and isinstance(value, dict):
            plain = all(_plain(inner) for inner in value.values())
        else:
            plain = key in REQUIRED[1:] or _plain(value) or (isinstance(value, list) and all(map(_plain, value)))
        if not plain:
            raise UserError(f"{path}: {where} is {str(value)[:60]!r}; expected a number, text, truth value or list")


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)
