"""Steps of ``gpu.sh check``: outputs and gradients on the device against the CPU in float64."""

import copy
from typing import Any

import torch
from gpu_step import DEVICE, TINY, main, precision
from torch import Tensor

from eat.models import AestheticModel, create_model

# Largest relative errors (2-norm) of outputs, and of all gradients. In fp32 a GPU's convolutions
# round to TF32, PyTorch's default; "exact" turns that off. Gradients jump where a point's position
# crosses a token's centre or a quadrant's border. So rounding changes them more than the outputs:
# of eat_base, rounded so on a CPU, by 0.05 in fp32, 0.1 in fp16 and 0.24 in bf16.
TOLERANCES = {"exact": (1e-4, 1e-3), "fp32": (5e-3, 0.15), "fp16": (2e-2, 0.25), "bf16": (0.1, 0.5)}
MODELS = ("eat_nano", "eat_tiny_released") if TINY else ("eat_base", "eat_base_released")
BATCH = 2 if TINY else 4
# A graph takes as long to compile as it is deep.
SHORT: dict[str, Any] = {"stages": ("L", "S", "E", "E") if TINY else ("LS", "LS", "LE", "LE")}


def prepared(name: str, settings: dict[str, Any]) -> tuple[AestheticModel, Tensor]:
    """A model whose outputs tell, and images."""
    torch.manual_seed(0)
    # The released model averages points over a batch; evaluation mode draws nothing at random.
    size = 96 if TINY else 224
    model = create_model(name, 10, size, softmax=False, **settings).eval()
    torch.nn.init.normal_(model.head.weight)  # type: ignore[arg-type]
    return model, torch.randn(BATCH, 3, size, size)


def results(model: AestheticModel, images: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Outputs, and all gradients of their squares' mean in one row; on the CPU in float64."""
    model.zero_grad()
    torch.backends.cudnn.allow_tf32 = kind != "exact"
    with precision(kind if kind in ("bf16", "fp16") else "fp32"):
        outputs = model(images)
    outputs.double().square().mean().backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return outputs.detach().cpu().double(), torch.cat(grads).cpu().double()


def error(found: Tensor, wanted: Tensor) -> float:
    """Relative error by the 2-norm; NaN stays NaN."""
    return float((found - wanted).norm() / wanted.norm())


def compare(kinds: tuple[str, ...], *, compiled: bool) -> list[dict[str, Any]]:
    """A row for each model and kind, "ok" within its tolerances."""
    rows = []
    print(f"{'':36}{'outputs':>12}{'at most':>10}{'gradients':>12}{'at most':>10}")
    for name in MODELS:
        model, images = prepared(name, SHORT if compiled else {})
        wanted = results_on_cpu(model, images)
        model, images = model.to(DEVICE), images.to(DEVICE)
        for kind in kinds:
            torch._dynamo.reset()
            computed: Any = torch.compile(model, dynamic=False) if compiled else model
            found = results(computed, images, kind)
            errors = [error(ours, exact) for ours, exact in zip(found, wanted, strict=True)]
            most = TOLERANCES[kind]
            label = f"{name} {kind}{' compiled' if compiled else ''}"
            print(f"{label:36}{errors[0]:12.2e}{most[0]:10.2g}{errors[1]:12.2e}{most[1]:10.2g}")
            row = {"model": name, "kind": kind, "compiled": compiled, "outputs": errors[0]}
            rows.append(row | {"gradients": errors[1], "tolerances": most})
            rows[-1]["ok"] = all(e <= limit for e, limit in zip(errors, most, strict=True))
    return rows


def results_on_cpu(model: AestheticModel, images: Tensor) -> tuple[Tensor, Tensor]:
    """``results`` of a copy on the CPU in float64."""
    model, images = copy.deepcopy(model).cpu().double(), images.cpu().double()
    outputs = model(images)
    outputs.square().mean().backward()
    grads = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return outputs.detach(), torch.cat(grads)


def outputs() -> list[dict[str, Any]]:
    """Eager, in each precision."""
    return compare(("exact", "fp32", "bf16", "fp16"), compiled=False)


def compiled() -> list[dict[str, Any]]:
    """Compiled, in each precision, with fewer blocks."""
    kinds = ("fp32",) if TINY else ("fp32", "bf16", "fp16")
    return compare(kinds, compiled=True)


if __name__ == "__main__":
    main({"outputs": outputs, "compiled": compiled})
