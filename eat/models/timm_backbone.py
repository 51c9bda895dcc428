"""Any image model of timm as it is, with a rating head; and timm's published weights."""

import math
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from eat.models.base import AestheticModel, Record, open_record
from eat.models.empty import EmptyWeights
from eat.models.enhance import recording
from eat.models.limits import check_totals
from eat.models.noise import PerImageNoise
from eat.system.schema import check_range
from eat.system.words import brief, nearest

PREFIX = "timm/"
# Keywords of timm's builders that load files, wrap the model, or that we give ourselves.
RESERVED = {"checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit", "features_only",
            "out_indices", "feature_cls", "num_classes", "in_chans", "in_channels", "img_size",
            "pruned", "device", "dtype"}  # fmt: skip
MAX_NUMBER = 2**14  # of a setting
WAIT = 10  # seconds for an answer of the hub


def timm_config(arch: str) -> Any:
    """timm's description of an architecture, or of one of its weights: ``ARCH`` or ``ARCH.TAG``.

    Raises:
        ValueError: timm does not know it, or it is a model of ours.
    """
    from timm.models import get_pretrained_cfg, is_model, list_models

    base, _, tag = arch.partition(".")
    if base in list_models(module="timm_entries"):
        raise ValueError(f"{PREFIX}{arch} is a model of ours: its name is {base!r}")
    if not is_model(base):
        near = nearest(base, list_models())
        hint = f"did you mean '{PREFIX}{near}'? " if near else ""
        raise ValueError(
            f"unknown model '{PREFIX}{arch}'; {hint}python -c 'import timm; "
            'print(timm.list_models("*vit*"))\' lists those that have vit in their names'
        )
    tags = [name.partition(".")[2] for name in list_models(f"{base}.*", pretrained=True)]
    if tag and tag not in tags:
        raise ValueError(
            f"unknown weights '{PREFIX}{arch}': {base} has {', '.join(tags) or 'none'}"
        )
    return get_pretrained_cfg(arch)


def check_settings(arch: str, settings: dict[str, Any]) -> None:
    """Refuse settings that load files or wrap the model, and numbers that no machine has room for.

    Raises:
        ValueError: naming the setting.
    """
    for name, value in settings.items():
        if name in RESERVED or name.startswith("pretrained"):
            raise ValueError(
                f"{name} is no setting of '{PREFIX}{arch}': it is given by other options"
            )
        for number in _numbers(value):
            check_range(name, number, -MAX_NUMBER, MAX_NUMBER)


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for one in value:
            yield from _numbers(one)
    elif isinstance(value, int | float):
        yield value


class RowDropPath(PerImageNoise):
    """timm's drop path, which draws the same however a batch is divided up."""

    def __init__(self, rate: float, *, scale: bool) -> None:
        super().__init__()
        self.rate, self.scale = rate, scale

    def forward(self, x: Tensor) -> Tensor:
        """(B, ...) -> (B, ...), with zeros for the images that drop it."""
        if not self.training or self.rate == 0:
            return x

        def sample(count: int) -> Tensor:
            return torch.rand(count, device=x.device) >= self.rate

        parts = 0 < self.total < len(x)  # of images
        mask = (sample(len(x)) if parts else self.draw(len(x), sample)).to(x.dtype)
        if self.scale:
            mask = mask / (1 - self.rate)
        return x * mask.view(-1, *[1] * (x.ndim - 1))


def build_net(arch: str, settings: dict[str, Any]) -> nn.Module:
    """An architecture of timm without classifier.

    Raises:
        TypeError: it does not have a setting.
        ValueError: it cannot be built with them.
    """
    import timm
    from timm.layers import DropPath

    try:
        net: nn.Module = timm.create_model(arch, num_classes=0, **settings)
    except TypeError as error:
        raise TypeError(f"{PREFIX}{arch}: {brief(error)}") from error
    except Exception as error:  # whatever trips over a value
        raise ValueError(
            f"{PREFIX}{arch} cannot be built with {settings}: {brief(error)}"
        ) from error
    for module in list(net.modules()):
        for name, child in module.named_children():
            if isinstance(child, DropPath):
                rate, scale = float(child.drop_prob or 0), child.scale_by_keep
                setattr(module, name, RowDropPath(rate, scale=scale))
    return net


class TimmModel(AestheticModel):
    """Any image model of timm, with a linear head on its pooled features.

    Args:
        arch: its name there, with or without the tag of its weights.
        num_outputs: 10 for a distribution over the scores 1..10 (AVA), 1 for a score.
        img_size: side in pixels, or (height, width), of the usual input; None takes that of timm's
            configuration.
        softmax: end in a softmax over outputs; None does so if there are several.
        **settings: keywords of ``timm.create_model``, such as ``drop_path_rate``.

    Raises:
        ValueError: the architecture is unknown, or does not take a setting or the size.
        TypeError: a setting is unknown.
    """

    first_conv = "net.patch_embed.proj"  # of the named ones

    def __init__(
        self,
        *,
        arch: str,
        num_outputs: int = 10,
        img_size: int | tuple[int, int] | None = None,
        softmax: bool | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self.net: Any
        self.arch = arch
        self.softmax = softmax
        config = timm_config(arch)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size or (0, 0)
        self.img_size = (height, width) if img_size else tuple(config.input_size[1:])
        check_range("num_outputs", num_outputs, 1, MAX_NUMBER)
        check_range("img_size", self.img_size, 1, MAX_NUMBER)
        check_settings(arch, settings)
        own = {"img_size": self.img_size} if config.fixed_input_size else {}
        with EmptyWeights():
            self.net = build_net(arch, settings | own)
        if settings:  # an architecture of timm's own needs what it needs
            check_totals(weights=sum(p.numel() for p in self.net.parameters()), attention=0)
        self.num_features = self._find_width(config.input_size[1:])
        self.net = build_net(arch, settings | own)
        self.classifiers = config.classifier or ()
        self.reset_classifier(num_outputs)

    def _find_width(self, usual: tuple[int, int]) -> int:
        """Width of the pooled features of an image without content."""
        image = torch.zeros(1, 3, *self.img_size, device="meta")
        self.net.to("meta").eval()
        try:
            with torch.no_grad():
                features = self.pool(self.forward_features(image))
        except Exception as error:  # of whatever layer is too large or does not divide
            found, takes = (" x ".join(map(str, size)) for size in (self.img_size, usual))
            raise ValueError(
                f"{PREFIX}{self.arch} does not take images of {found} pixels, or not with these "
                f"settings ({brief(error)}); it was made for {takes}"
            ) from error
        if not isinstance(features, Tensor) or features.ndim != 2:
            raise ValueError(f"{PREFIX}{self.arch} has no features of an image, as one vector")
        return features.shape[1]

    @property
    def cropped_pixels(self) -> int:
        """Of patches that do not divide the image."""
        from timm.layers import PatchEmbed

        embedding = getattr(self.net, "patch_embed", None)
        if not isinstance(embedding, PatchEmbed) or embedding.dynamic_img_pad:
            return 0
        return self.img_size[0] % embedding.patch_size[0]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """As in the base class; running statistics of BatchNorm then move twice a step.

        Raises:
            ValueError: timm has it not for this model.
        """
        try:
            self.net.set_grad_checkpointing(enable)
        except (AssertionError, AttributeError) as error:
            if enable:
                raise ValueError(f"{PREFIX}{self.arch} has no gradient checkpointing") from error

    def no_weight_decay(self) -> set[str]:
        names = self.net.no_weight_decay() if hasattr(self.net, "no_weight_decay") else ()
        return super().no_weight_decay() | {f"net.{name}" for name in names}

    def map_blocks(self) -> list[str]:
        """The modules that timm takes features from: stages, or blocks of a plain transformer."""
        places = [info["module"] for info in getattr(self.net, "feature_info", ())]
        modules = dict(self.net.named_modules())
        return [f"net.{place}" for place in places if place in modules]

    def as_map(self, features: Tensor, pixels: Tensor) -> Tensor:
        """Of (B, C, H, W), (B, H, W, C), or tokens (B, N, C) after those that are no patches."""
        if features.ndim == 4:
            last = getattr(self.net, "output_fmt", "NCHW") == "NHWC"
            return features if last else features.permute(0, 2, 3, 1)
        tokens = features[:, getattr(self.net, "num_prefix_tokens", 0) :]
        height, width = pixels.shape[-2:]
        return tokens.unflatten(1, (round(math.sqrt(tokens.shape[1] * height / width)), -1))

    def forward_features(self, x: Tensor, record: Record | None = None) -> Tensor:
        """(B, 3, H, W) normalised pixels -> timm's features, of any shape.

        ``record`` is as in :meth:`EAT.forward_features`, of the blocks with enhanced attention.
        """
        if record is None:
            return self.net.forward_features(x)
        with recording(self, open_record(record, self.sampling_blocks())):
            return self.net.forward_features(x)

    def pool(self, x: Tensor) -> Tensor:
        """timm's features -> (B, C), by the pooling that timm configures."""
        return self.net.forward_head(x, pre_logits=True)

    def adapt(self, state: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
        """A state dict by timm's names, or by ours, under our names; and the old name of each.

        timm converts older names and resizes position embeddings. Its classifier is our head.
        """
        heads = [self.classifiers] if isinstance(self.classifiers, str) else self.classifiers
        ours = {name: name for name in state if name.startswith("head.")} if is_ours(state) else {}
        given = {n.removeprefix("net."): value for n, value in state.items() if n not in ours}
        change = getattr(sys.modules[type(self.net).__module__], "checkpoint_filter_fn", None)
        found, own = change(given, self.net) if change else given, self.net.state_dict()
        adapted, origin = {name: state[name] for name in ours}, dict(ours)
        for name, value in found.items():
            here, (part, _, last) = f"net.{name}", name.rpartition(".")
            if part in heads:
                here = f"head.{last}"
            elif name not in own and name.split(".")[0] in {head.split(".")[0] for head in heads}:
                here = f"head.{name}"  # what else a classifier of several layers has
            adapted[here], origin[here] = value, f"net.{name}" if is_ours(state) else name
        return adapted, origin


def is_ours(state: dict[str, Tensor]) -> bool:
    """Whether a state dict is of a ``TimmModel``, rather than of timm."""
    return any(name.startswith("net.") for name in state)


def fetch_weights(name: str) -> dict[str, Tensor]:
    """Weights that timm publishes as ``timm/ARCH[.TAG]``, by its names: from its cache or the hub.

    Raises:
        ValueError: it publishes none under the name, or they are not here and cannot be fetched.
    """
    import timm

    arch = name.removeprefix(PREFIX)
    config = timm_config(arch)
    if not config.has_weights:
        base = arch.partition(".")[0]
        raise ValueError(f"timm publishes no weights of {name}: {base} has none")
    try:
        with offline_without_network():
            net = timm.create_model(arch, pretrained=True)
    except Exception as error:  # of the hub, of sockets, of damaged files
        exact = config.hf_hub_id or arch
        raise ValueError(
            f"the weights {name} are neither in the cache nor can they be fetched "
            f"({brief(error)}). Where there is network, run 'hf download {exact}' and copy the "
            "folder ~/.cache/huggingface/hub/models--"
            f"{exact.replace('/', '--')} to the same place here (HF_HOME may name another), or "
            f"download https://huggingface.co/{exact}/resolve/main/model.safetensors and give it "
            "as --model.weights model.safetensors"
        ) from error
    return net.state_dict()


@contextmanager
def offline_without_network() -> Iterator[None]:
    """Make the hub's client answer from its cache alone if the hub does not answer at once.

    It would otherwise try for a minute, even where the cache has the file.
    """
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE
    try:
        if not before:
            constants.HF_HUB_OFFLINE = not answers(constants.ENDPOINT)
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def answers(address: str) -> bool:
    """Whether a web server can be reached, through a proxy where one is set."""
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=WAIT):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False


def is_name(weights: str | Path) -> bool:
    """Whether weights are a name of timm's rather than a file."""
    return str(weights).startswith(PREFIX) and not Path(weights).exists()
