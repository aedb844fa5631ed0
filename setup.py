"""The build's one job that pyproject.toml cannot say: carry configs/ and data/sandbox/ into the package."""

from setuptools import find_packages, setup

setup(
    packages=find_packages(include=["wtal*", "feature_extraction*"])
    + ["wtal._shipped.configs", "wtal._shipped.data.sandbox"],
    package_dir={"wtal._shipped.configs": "configs", "wtal._shipped.data.sandbox": "data/sandbox"},
    package_data={
        "wtal._shipped.configs": ["*.yaml"],
        "wtal._shipped.data.sandbox": ["*.safetensors", "*.json", "*.md", "SHA256SUMS"],
        "wtal.report": ["templates/*", "static/*"],
    },
)
