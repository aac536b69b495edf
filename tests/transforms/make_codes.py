"""Runs bitsandbytes and writes codes.npz: the values of its codes, and the codes of some numbers.

Run      python -m tests.transforms.make_codes     needs NumPy, PyTorch and bitsandbytes, neither JAX nor this package
Writes   tests/transforms/codes.npz: values_signed, values_unsigned float32 [256]; x float32 [6000], codes_signed of x
         and codes_unsigned of |x|, uint8 [6000], scale float32 [24], the largest |x| of each block of 256; versions

The kernel is that of the backend `default`, which is not the one that the package uses on CPU: its native kernel gives
other codes, not always the nearest. It is caught while it is registered. The last block, of 112 numbers, is not full.
"""

import importlib.metadata
import json
import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("codes.npz")


def default_kernels() -> dict[str, Any]:
    """The kernels of the backend `default` by the name of the operation."""
    import torch

    found: dict[str, Any] = {}
    register = torch.library.register_kernel

    def recording(op, device_types=None, func=None, **options):
        def keep(kernel):
            if device_types == "default":
                found[op] = kernel
            return register(op, device_types, kernel, **options)

        return keep if func is None else keep(func)

    torch.library.register_kernel = recording
    try:
        import bitsandbytes  # noqa: F401
    finally:
        torch.library.register_kernel = register
    return found


def main():
    import torch

    quantize = default_kernels()["bitsandbytes::quantize_blockwise"]
    from bitsandbytes.functional import create_dynamic_map

    random = np.random.default_rng(0)
    x = (random.normal(size=6000) * 10 ** random.uniform(-7, 0, 6000)).astype(np.float32)
    x[256:512] *= np.float32(1e-20)
    x[512:768] *= np.float32(1e20)
    values = {name: create_dynamic_map(signed=name == "signed") for name in ("signed", "unsigned")}
    codes, scale = quantize(torch.tensor(x), values["signed"], 256)
    unsigned, _ = quantize(torch.tensor(np.abs(x)), values["unsigned"], 256)
    versions = {name: importlib.metadata.version(name) for name in ("bitsandbytes", "torch", "numpy")}
    np.savez_compressed(
        FILE,
        **{f"values_{name}": v.numpy() for name, v in values.items()},
        x=x,
        codes_signed=codes.numpy(),
        codes_unsigned=unsigned.numpy(),
        scale=scale.numpy(),
        versions=json.dumps(versions),
    )


if __name__ == "__main__":
    main()
