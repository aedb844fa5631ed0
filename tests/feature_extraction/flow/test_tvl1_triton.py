"""The Triton version: in its interpreter, in a process of its own, and on a GPU where there is one."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from feature_extraction.errors import UserError
from feature_extraction.flow import compute as flow
from feature_extraction.flow.compute import compute_flow, cuda_backend
from feature_extraction.flow.settings import TVL1Settings

from ...places import ROOT

HAS_TRITON = importlib.util.find_spec("triton") is not None
needs_cuda = pytest.mark.skipif(not (HAS_TRITON and torch.cuda.is_available()), reason="requires cuda and triton")


@pytest.mark.skipif(not HAS_TRITON, reason="requires triton")
def test_in_the_interpreter():
    """Triton reads its mode when the kernels are defined."""
    root = ROOT
    paths = [str(root), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-rs", "-p", "no:cacheprovider", "--rootdir", str(root),
         str(Path(__file__).with_name("interpreted_tvl1_triton.py"))],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip(next(line for line in done.stdout.splitlines() if line.startswith("SKIPPED")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not HAS_TRITON, reason="requires triton")
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") == "1", reason="Triton interprets here")
@pytest.mark.parametrize("name", ["_level", "_resize"])
def test_compiles_for_a_gpu_that_is_not_here(name, tmp_path, monkeypatch):
    """Down to machine code of compute capability 9.0, each thread with its own pixels: no exchange of layouts."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from feature_extraction.flow import tvl1_triton

    if tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3) or "nvidia" not in triton.backends.backends:
        pytest.skip("requires Triton 3.3 or newer with its backend for NVIDIA")
    kernel = getattr(tvl1_triton, name)
    pointers = {"planes": "*fp32", "frames": "*fp32", "work": "*i64", "source": "*fp32", "target": "*fp32",
                "lines": "*i32", "columns": "*i32", "line_weights": "*fp32", "column_weights": "*fp32",
                "factor": "*fp64"}  # fmt: skip
    numbers = dict.fromkeys(("taut", "limit", "theta", "tolerance", "doubt"), "fp32")
    constants = {"MEDIAN": 5, "BLOCK": tvl1_triton._BLOCK}
    kinds = {**pointers, **numbers, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(
        kernel,
        {argument: kinds.get(argument, "i32") for argument in kernel.arg_names},
        {key: value for key, value in constants.items() if key in kernel.arg_names},
        {(at,): [["tt.divisibility", 16]] for at, key in enumerate(kernel.arg_names) if key in pointers},
    )
    options = {"num_warps": tvl1_triton._WARPS if name == "_level" else 4, "enable_fp_fusion": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert len(compiled.asm["cubin"]) > 0
    assert "convert_layout" not in compiled.asm["ttgir"]


@pytest.mark.skipif(HAS_TRITON, reason="requires that triton is absent")
def test_absent_triton_is_named():
    frames = np.zeros((1, 16, 16), np.float32)
    with pytest.raises(UserError, match="needs the package triton"):
        compute_flow(frames, frames, TVL1Settings(), algorithm="tvl1_triton", device="cuda")


def test_backend_of_other_devices_is_pytorch():
    assert cuda_backend("mps") == ("torch", "Triton is for CUDA devices, not mps")
    if not torch.cuda.is_available():
        assert cuda_backend("cuda")[0] == "torch"


def real_size_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Textures of 340 x 256 that move by up to three pixels, under noise as cameras have it."""
    generator = np.random.default_rng(0)
    previous, following = [], []
    for _ in range(count):
        texture = cv2.GaussianBlur(generator.random((272, 356), np.float32), (0, 0), 3)
        texture = (texture - texture.min()) / np.ptp(texture) * 235 + 10
        matrix = np.float32([[1, 0, generator.uniform(-3, 3)], [0, 1, generator.uniform(-3, 3)]])
        moved = cv2.warpAffine(texture, matrix, (356, 272), borderMode=cv2.BORDER_REFLECT)
        for frames, frame in ((previous, texture), (following, moved)):
            frames.append(np.rint(frame[8:-8, 8:-8] + generator.normal(0, 1, (256, 340))).clip(0, 255))
    return np.stack(previous).astype(np.uint8), np.stack(following).astype(np.uint8)


@needs_cuda
def test_cuda_takes_triton():
    assert cuda_backend("cuda") == ("triton", "")


@needs_cuda
@pytest.mark.parametrize("algorithm", ["tvl1_triton", "tvl1_torch"])
def test_cuda_equals_the_compiled_version_at_real_size(algorithm):
    previous, following = real_size_pairs(6)
    expected = compute_flow(previous, following, TVL1Settings())
    found = compute_flow(previous, following, TVL1Settings(), algorithm=algorithm, device="cuda")
    error = np.sqrt(((found - expected) ** 2).sum(1))
    assert error.mean() <= 0.02 and np.percentile(error, 99) <= 0.1


@needs_cuda
@pytest.mark.parametrize("median", [1, 3, 5])
def test_cuda_equals_the_compiled_version_at_fixed_iterations(median):
    previous, following = real_size_pairs(2)
    settings = TVL1Settings(epsilon=0, warps=2, inner_iterations=5, outer_iterations=2, median=median)
    expected = compute_flow(previous, following, settings)
    found = compute_flow(previous, following, settings, algorithm="tvl1_triton", device="cuda")
    assert np.abs(found - expected).max() < 1e-4


@needs_cuda
def test_cuda_pair_does_not_depend_on_its_batch_nor_on_parts(monkeypatch):
    previous, following = real_size_pairs(5)
    arguments = {"algorithm": "tvl1_triton", "device": "cuda"}
    batch = compute_flow(previous, following, TVL1Settings(), **arguments)
    np.testing.assert_array_equal(compute_flow(previous, following, TVL1Settings(), **arguments), batch)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    np.testing.assert_array_equal(compute_flow(previous, following, TVL1Settings(), **arguments), batch)
    for pair in (0, 4):
        part = slice(pair, pair + 1)
        single = compute_flow(previous[part], following[part], TVL1Settings(), **arguments)
        np.testing.assert_array_equal(single, batch[part])


@needs_cuda
def test_cuda_tensors_stay_on_the_device():
    frames = [torch.from_numpy(batch).cuda() for batch in real_size_pairs(2)]
    result = flow.tvl1_flow(*frames)
    assert result.is_cuda and result.shape == (2, 2, 256, 340) and torch.isfinite(result).all()
