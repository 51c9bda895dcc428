"""Linear layers whose weights never change again, for scoring on a CPU: packed in bf16, or in int8.

Both compute what the trained layers do, but for rounding and, in int8, for inputs far beyond those
seen. Where gradients are enabled, the trained layers compute themselves. The rest of a model stays
as it is. The figures are in docs/performance.md.
"""

from collections.abc import Callable, Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from eat.models.base import AestheticModel
from eat.models.kernels import Linear

FEWEST_OUTPUTS = 16  # of a layer in int8. With fewer there is no gain, and offsets would be rounded
MARGIN = 1.5  # over the largest input seen; from there on inputs saturate
LEAST = 0.25  # of the largest input, in each channel: other images may have more than those seen
FEW = 4  # images of a pass that looks at inputs
MIDDLE = 128  # the level of 0 among the 256 of an input
LOWEST_GELU = -0.17  # the minimum of GELU
NO_OPTIONS: list[float] = []  # of an operation that may have some

PLAIN = nn.Linear, Linear  # other linear layers may be read rather than called
MakeLinear = Callable[[nn.Linear], nn.Module]
MakeMLP = Callable[[nn.Linear, nn.Linear], nn.Module]


def can_pack() -> bool:
    """Whether this processor and PyTorch have products of packed weights in bf16."""
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def can_quantise() -> bool:
    """Whether this processor and PyTorch have products of 8-bit integers, and they are right.

    Those of processors without VNNI may overflow.
    """
    try:
        product = Int8Product(torch.ones(16, 64), None, 0)
        found = product(torch.full((4, 64), 255, dtype=torch.uint8))
    except (AttributeError, RuntimeError):
        return False
    return bool(((found - 64 * 255).abs() < 64).all())


def pack(model: AestheticModel) -> None:
    """Have a model's linear layers multiply in bf16 by weights laid out for that, in place.

    The bias, and the GELU of an MLP, come with the product. Without this, PyTorch copies the bias
    and lays out the weights anew in each product. The classifier stays.

    Args:
        model: on a CPU.
    """

    def mlp(fc1: nn.Linear, fc2: nn.Linear) -> nn.Module:
        return nn.Sequential(PackedLinear(fc1, gelu=True), PackedLinear(fc2))

    _replace(_linear_layers(model), model, PackedLinear, mlp)


def quantise(model: AestheticModel, pixels: Tensor) -> None:
    """Have a model's linear layers multiply in int8, in place.

    An input has 256 levels. Their range is that of the given images and half as much more; inputs
    beyond it saturate. A weight has 255 levels, whose range is that of its output channel. Before,
    the channels of inputs are brought to like ranges at the expense of the weights (SmoothQuant,
    Xiao et al. 2023, Eq. 4 with alpha = 1/2), none to be less than a quarter of the widest. The
    classifier, layers of fewer than 16 outputs, and those that the images do not reach stay as
    they are.

    Args:
        model: on a CPU, in float32 and evaluation mode.
        pixels: (B, 3, H, W) normalised, of images like those to score.

    Raises:
        ValueError: there is no such layer, or outputs are not finite.
    """
    peaks: dict[nn.Linear, Tensor] = {}  # of absolute inputs, (C,)

    def watch(layer: nn.Linear, args: tuple[Tensor]) -> None:
        peak = args[0].abs().reshape(-1, args[0].shape[-1]).amax(0)
        peaks[layer] = torch.maximum(peaks[layer], peak) if layer in peaks else peak

    wide = [layer for layer in _linear_layers(model) if layer.out_features >= FEWEST_OUTPUTS]
    hooks = [layer.register_forward_pre_hook(watch) for layer in wide]
    with torch.no_grad():
        finite = all(model(part).isfinite().all() for part in pixels.split(FEW))
    for hook in hooks:
        hook.remove()
    if not finite:
        raise ValueError(
            "precision is int8, but the model's outputs for drawn images are not finite: expected "
            "fp32 or bf16, where each image is told"
        )
    if not peaks:
        raise ValueError(
            f"precision is int8, but the model has no linear layers of {FEWEST_OUTPUTS} outputs or "
            "more: expected fp32 or bf16"
        )

    def mlp(fc1: nn.Linear, fc2: nn.Linear) -> nn.Module:
        return Int8MLP(fc1, peaks[fc1], fc2, float(peaks[fc2].amax()))

    _replace([*peaks], model, lambda layer: Int8Linear(layer, peaks[layer]), mlp)


class Substitute(nn.Module):
    """Stands in the place of trained layers. Its own products have no gradient.

    Args:
        trained: the layers.
    """

    def __init__(self, *trained: nn.Module) -> None:
        super().__init__()
        self.trained = nn.Sequential(*trained)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C'), in bf16 unless gradients are enabled."""
        if torch.is_grad_enabled():
            return self.trained(x)
        return self.product(x)

    def product(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C') in bf16, near what the trained layers compute."""
        raise NotImplementedError


def _for_bf16(weight: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _for_int8(weight: Tensor) -> Tensor:
    return torch.ops.onednn.qlinear_prepack(weight, None)


class Packed:
    """Weights laid out for products. They cannot be copied, and so a copy lays them out anew.

    Args:
        lay_out: does it.
        weight: (C', C).
    """

    def __init__(self, lay_out: Callable[[Tensor], Tensor], weight: Tensor) -> None:
        self.laid_out = lay_out(weight)
        self._given = lay_out, weight

    def __reduce__(self) -> tuple[type["Packed"], tuple[Callable[[Tensor], Tensor], Tensor]]:
        return Packed, self._given


class PackedLinear(Substitute):
    """A linear layer in bf16 with packed weights.

    Args:
        layer: its weights become bf16.
        gelu: apply GELU to the product.
    """

    def __init__(self, layer: nn.Linear, *, gelu: bool = False) -> None:
        super().__init__(layer.to(torch.bfloat16), *[nn.GELU()] * gelu)
        self.gelu = gelu
        self.packed = Packed(_for_bf16, self.weight.detach())

    @property
    def _layer(self) -> nn.Linear:
        (layer, *_) = self.trained
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def weight(self) -> Tensor:
        """(C', C), which some models read."""
        return self._layer.weight

    @property
    def bias(self) -> Tensor | None:
        """(C',), which some models read."""
        return self._layer.bias

    def product(self, x: Tensor) -> Tensor:
        x, bias = x.to(torch.bfloat16), self.bias
        after = ("gelu", NO_OPTIONS, "none") if self.gelu else ("none", NO_OPTIONS, "")
        return torch.ops.mkldnn._linear_pointwise(x, self.packed.laid_out, bias, *after)


class ExactLinear(nn.Linear):
    """A linear layer in float32, also under autocast, for a classifier.

    Args:
        layer: with its weights.
    """

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None)
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) -> (..., C') in float32."""
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.float())


def keep_classifier(model: AestheticModel) -> None:
    """Have a model's classifier compute in float32: scores in bf16 would tie."""
    classifier = model.get_classifier()
    for name, module in list(model.named_modules()):
        if module is classifier and type(module) is nn.Linear:
            model.set_submodule(name, ExactLinear(module))


class Int8Product(nn.Module):
    """What a linear layer makes of the levels of its input.

    Args:
        weight: (C', C) for a step of one level.
        bias: (C',).
        zero: the level of 0.
    """

    scales: Tensor
    zeros: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, bias: Tensor | None, zero: int) -> None:
        super().__init__()
        weight = weight.detach().float()
        scales = weight.abs().amax(dim=1).clamp(min=1e-12) / 127
        self.zero = zero
        self.packed = Packed(_for_int8, (weight / scales[:, None]).round().to(torch.int8))
        self.register_buffer("scales", scales)
        self.register_buffer("zeros", torch.zeros(len(weight), dtype=torch.int32))
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(
        self, levels: Tensor, after: str = "none", step: float = 1.0, zero: int | None = None
    ) -> Tensor:
        """uint8 (..., C) -> (..., C') in bf16, or with ``zero`` in uint8.

        Args:
            levels: of the input.
            after: "gelu" or "none", applied to the product.
            step: from one level of the result to the next.
            zero: the level of 0 in the result.
        """
        kind, zero = (torch.bfloat16, 0) if zero is None else (torch.uint8, zero)
        weights = (self.packed.laid_out, self.scales, self.zeros, self.bias)
        return torch.ops.onednn.qlinear_pointwise(
            levels, 1.0, self.zero, *weights, step, zero, kind, after, NO_OPTIONS, "none"
        )


class Int8Linear(Substitute):
    """A linear layer in int8.

    Args:
        layer: its weights are copied.
        peaks: (C,) largest absolute inputs.
    """

    per_level: Tensor

    def __init__(self, layer: nn.Linear, peaks: Tensor) -> None:
        super().__init__(layer)
        weight = layer.weight.detach().float()
        peaks = peaks.clamp(min=max(LEAST * float(peaks.amax()), 1e-6))
        heights = weight.abs().amax(dim=0).clamp(min=1e-6)
        spread = (peaks / heights).sqrt()
        step = MARGIN * (peaks / spread).amax() / (MIDDLE - 1)
        self.register_buffer("per_level", 1 / (step * spread))
        self.of_levels = Int8Product(weight * (step * spread), layer.bias, MIDDLE)

    def levels(self, x: Tensor) -> Tensor:
        """(..., C) -> uint8 of the same shape."""
        levels = (x.float() * self.per_level).round_().clamp_(-MIDDLE, MIDDLE - 1)
        # By way of int8, which PyTorch converts to three times as fast.
        return levels.to(torch.int8).view(torch.uint8).bitwise_xor_(MIDDLE)

    def product(self, x: Tensor) -> Tensor:
        return self.of_levels(self.levels(x))


class Int8MLP(Substitute):
    """Two linear layers with a GELU between them, in int8; what is between stays in 8 bits.

    Args:
        fc1: the first layer.
        peaks: (C,) largest absolute inputs.
        fc2: the second layer.
        peak: largest input of it.
    """

    def __init__(self, fc1: nn.Linear, peaks: Tensor, fc2: nn.Linear, peak: float) -> None:
        super().__init__(fc1, nn.GELU(), fc2)
        self.fc1 = Int8Linear(fc1, peaks)
        self.step = (MARGIN * peak - LOWEST_GELU) / 255
        self.zero = round(-LOWEST_GELU / self.step)
        self.fc2 = Int8Product(fc2.weight * self.step, fc2.bias, self.zero)

    def product(self, x: Tensor) -> Tensor:
        x = self.fc1.levels(x)
        return self.fc2(self.fc1.of_levels(x, "gelu", self.step, self.zero))


def _linear_layers(model: AestheticModel) -> Iterator[nn.Linear]:
    """All linear layers but those of the classifier, and those that have a substitute."""
    apart = [model.get_classifier(), *(m for m in model.modules() if isinstance(m, Substitute))]
    kept = {*chain.from_iterable(module.modules() for module in apart)}
    for module in model.modules():
        if isinstance(module, nn.Linear) and type(module) in PLAIN and module not in kept:
            yield module


def _layers_of_mlp(module: nn.Module) -> tuple[nn.Linear, nn.Linear] | None:
    """The linear layers of a module that only has a GELU between them, as ours and timm's MLPs."""
    is_timm = type(module).__name__ == "Mlp" and type(module).__module__.startswith("timm.")
    if not is_timm and type(module) is not nn.Sequential:
        return None
    every = module._modules.values()  # children() has each but once
    parts = [m for m in every if not isinstance(m, nn.Dropout | nn.Identity)]
    match parts:
        case [nn.Linear() as fc1, nn.GELU(approximate="none") as act, nn.Linear() as fc2]:
            return (fc1, fc2) if type(act) is nn.GELU else None
    return None


def _replace(
    layers: Iterable[nn.Linear], model: AestheticModel, linear: MakeLinear, mlp: MakeMLP
) -> None:
    """Put others in the place of a model's linear layers, and of MLPs that have two of them."""
    layers = {*layers}
    new: dict[nn.Module, nn.Module] = {}  # a module may have several names
    for module in model.modules():
        pair = _layers_of_mlp(module)
        if pair and all(layer in layers for layer in pair):
            new[module] = mlp(*pair)
    inside = {*chain.from_iterable(module.modules() for module in new)}
    new |= {layer: linear(layer) for layer in layers if layer not in inside}
    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in new:
            model.set_submodule(name, new[module])
