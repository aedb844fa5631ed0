"""Files that come with the package: `configs/*.yaml` and the sandbox's tower weights.

In a checkout they are the folders `configs/` and `data/sandbox/`; the build carries them into the installed package.
"""

from pathlib import Path

from feature_extraction.errors import UserError
from feature_extraction.settings import ExtractionSettings

PREFIX = "shipped:"
WEAK_TOWERS = (
    "They were trained on rendered figures of 64 pixels and know little of real video: good for trying the commands "
    "out, not for results. What would help: Kinetics I3D and CLIP ViT-B/16 (`wtal weights fetch i3d-rgb i3d-flow "
    "clip`, then `wtal init` with --towers public), or features of a network of your own (docs/own_features.md)."
)
"""What to know of the shipped networks where they look at videos that are not the sandbox's."""


def shipped_folder(name: str) -> Path:
    """Folder of shipped files: `configs` or `data/sandbox`."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_shipped" / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise UserError(f"the installation lacks its folder {name!r}; install wtal again")


def shipped_file(name: str) -> Path:
    """A file of `data/sandbox` by name, as `shipped:NAME` means it. Raises `UserError` naming what there is."""
    folder = shipped_folder("data/sandbox")
    path = folder / name
    if not path.is_file():
        raise UserError(f"no shipped file {name!r}; there are: {', '.join(sorted(p.name for p in folder.iterdir()))}")
    return path


def resolve(place: str) -> str:
    """A path or name from a configuration, with `shipped:NAME` replaced by the file's path."""
    return str(shipped_file(place.removeprefix(PREFIX))) if place.startswith(PREFIX) else place


def config_file(name: str) -> Path:
    """The YAML file that `name` stands for: a path, or a shipped configuration's name (`sandbox`)."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise UserError(f"{name}: no such file")
        return path
    folder = shipped_folder("configs")
    shipped = folder / f"{name}.yaml"
    if not shipped.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise UserError(f"{name!r} is neither a YAML file nor a shipped configuration ({known})")
    return shipped


def weak_towers(extraction: ExtractionSettings, videos: str) -> bool:
    """Whether the shipped networks of the sandbox look at videos (`data.videos`) that are not a sandbox's."""
    rgb = extraction.i3d_rgb if extraction.rgb_model == "i3d" else ""
    towers = (rgb, extraction.i3d_flow, extraction.clip_pretrained or "")
    own = bool(videos) and not (Path(videos).parent / "world.json").is_file()
    return own and any(name.startswith(PREFIX) for name in towers)
