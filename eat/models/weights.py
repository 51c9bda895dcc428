"""Load weights: files that cannot be trusted to errors, other sizes to ours."""

import pickle
import re
import reprlib
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
import torch.nn.functional as F
from einops import rearrange
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from eat.models.base import AestheticModel
from eat.models.foreign import State, WeightsError, convert, misfit
from eat.models.timm_backbone import fetch_weights, is_name, offline_without_network
from eat.system.files import GB, regular
from eat.system.words import brief

HUB, SHARED = "hf-hub:", "model.safetensors"  # how a repository is named, and its file of weights
TRAINED_ON = "trained_on"  # a list of images that older checkpoints hold beside the weights
# Ends of the names of integers.
INTEGERS = "relative_position_index", "attention_bias_idxs", "num_batches_tracked"
FLOATS = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2,
}  # fmt: skip
MAX_NUMBERS = 2**28  # of one weight
MAX_DOWNLOAD = 50 * GB

# What fresh weights may stand in for: the head, what one variant has and another lacks, and counts
# of batches, which are not used. The release's norm after a step down has no counterpart in Swin.
PARTS = r"(head|histogram|.*\.attn\.(interest|offset|gate)|theme\.target\.column_act)\."
OPTIONAL = re.compile(PARTS + r"|.*\.attn\.bias_table$|.*\.num_batches_tracked$")
REPLACEABLE = re.compile(PARTS)  # only as a whole
OPTIONAL_FROM_SWIN = re.compile(OPTIONAL.pattern + r"|.*\.downsample\.norm\.")


@dataclass
class LoadReport:
    """Fate of each weight. Names are the model's; those left out, the source's."""

    source: str
    format: str
    loaded: list[str] = field(default_factory=list)
    resized: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        def some(names: list[str]) -> str:
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            return f"{len(names)}" + (f" ({shown})" if names else "")

        return (
            f"{self.source} ({self.format}): loaded {len(self.loaded)}, "
            f"resized {some(self.resized)}, left out {some(self.left_out)}, "
            f"missing {some(self.missing)}"
        )


def weights_file(path: str | Path) -> Path:
    """The path of a file that is safe to open.

    Args:
        path: of the file; of a folder that ``eat share`` or a run wrote; or
            hf-hub:ORGANISATION/NAME or hf-hub:ORGANISATION/NAME@REVISION, of which nothing but the
            weights is fetched.

    Raises:
        WeightsError: there is no such file, or it is another folder, a pipe or a device.
    """
    if str(path).startswith(HUB):
        return fetch_shared(str(path).removeprefix(HUB))
    inside = (Path(path, name) for name in (SHARED, "checkpoints/best.safetensors"))
    path = next((file for file in inside if file.is_file()), path)
    try:
        return regular(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such file") from error
    except OSError as error:
        raise WeightsError(str(error)) from error


def fetch_shared(repository: str) -> Path:
    """The weights of a repository of the hub, from its cache or from there.

    Raises:
        WeightsError: they are in neither, or larger than any checkpoint.
    """
    from huggingface_hub import hf_hub_download

    name, _, revision = repository.partition("@")
    try:
        with offline_without_network():
            if (size := announced_size(name, revision or None)) > MAX_DOWNLOAD:
                raise ValueError(f"{size / GB:.0f} GB: expected at most {MAX_DOWNLOAD / GB:.0f} GB")
            return Path(hf_hub_download(name, SHARED, revision=revision or None))
    except Exception as error:  # of the hub, of sockets
        raise WeightsError(
            f"{HUB}{repository}: no {SHARED} can be fetched: {refusal(error)}"
        ) from error


def announced_size(repository: str, revision: str | None) -> int:
    """Bytes of a repository's weights by the hub's word; 0 if it gives none."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    with suppress(Exception):  # the download says what is wrong, or finds the file in the cache
        address = hf_hub_url(repository, SHARED, revision=revision)
        return get_hf_file_metadata(address).size or 0
    return 0


def refusal(error: Exception) -> str:
    """Why the hub did not do what it was asked for, in a line that says what to do."""
    from huggingface_hub.utils import OfflineModeIsEnabled

    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"no access ({status}), or no such repository: log in by 'hf auth login' or HF_TOKEN, "
            "with a token that may do this"
        )
    if isinstance(error.__cause__, OfflineModeIsEnabled):
        return "it is not in the cache, and the hub cannot be reached"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # The first line of the hub's answers has a number for its staff alone.
    return brief(ValueError(lines[1] if status and len(lines) > 1 else str(error)))


@contextmanager
def sound(path: str | Path) -> Iterator[None]:
    """Have safetensors fail on a file by a WeightsError that names it."""
    try:
        yield
    except (SafetensorError, KeyError) as error:  # a type of numbers unknown to PyTorch
        raise WeightsError(f"{path}: truncated or not safetensors ({brief(error)})") from error


def read_state(path: str | Path) -> State:
    """Read a safetensors or PyTorch file as a flat state dict, without running code from it.

    Raises:
        WeightsError: the file is absent, damaged, would run code, or holds no tensors.
    """
    path = weights_file(path)
    if path.suffix == ".safetensors":
        with sound(path):
            return unwrap(load_file(path), str(path))
    try:
        content = load_tensors(path)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise WeightsError(
                f"{path}: refused, because it holds more than tensors ({foreign[1]}) and reading "
                "that could run code; save its state dict alone"
            ) from error
        raise WeightsError(f"{path}: truncated or not a PyTorch file") from error
    except Exception as error:  # on junk the unpickler fails with whatever it trips over
        raise WeightsError(f"{path}: truncated or not a PyTorch file ({brief(error)})") from error
    return unwrap(content, str(path))


def load_tensors(file: Path | BinaryIO) -> Any:
    """``torch.load`` to the CPU, without running code or unpacking gigabytes from little.

    Raises:
        ValueError: the file is compressed, as PyTorch never writes it.
        Exception: of PyTorch's, for junk.
    """
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("it is compressed, as no file of PyTorch's is")
    if not isinstance(file, Path):
        file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def unwrap(content: object, source: str) -> State:
    """The state dict inside the wrappings that training scripts put around it."""
    for key in ("state_dict_ema", "model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{source}: expected a state dict, found {type(content).__name__}")
    for name, value in content.items():
        if not isinstance(name, str):
            found = reprlib.repr(name)
            raise WeightsError(f"{source}: expected names of weights, found {found} as a key")
        if not isinstance(value, Tensor):
            raise WeightsError(
                f"{source}: expected tensors, found {type(value).__name__} under {name!r}"
            )
        if value.layout != torch.strided or value.is_meta:
            raise WeightsError(f"{source}: {name!r} is sparse or has no data: save it dense")
        if value.numel() > MAX_NUMBERS:
            shape = tuple(value.shape)
            raise WeightsError(f"{source}: {name!r} has shape {shape}, larger than any weight")
    state = {name.removeprefix("module."): value for name, value in content.items()}
    if len(state) < len(content):
        raise WeightsError(f"{source}: holds weights twice, with and without the prefix 'module.'")
    return state


def resize_bias_table(table: Tensor, shape: torch.Size) -> Tensor | None:
    """Resize either kind of bias table bicubically; None if it is not a matter of resolution."""
    if not table.numel():
        return None
    if table.ndim == 3 == len(shape) and table.shape[0] == shape[0]:  # deformable: (heads, h, w)
        return _bicubic(table, shape[1:])
    if table.ndim == 2 == len(shape) and table.shape[1] == shape[1]:  # window: (side^2, heads)
        old, new = round(table.shape[0] ** 0.5), round(shape[0] ** 0.5)
        if old**2 == table.shape[0]:
            maps = rearrange(table, "(y x) heads -> heads y x", y=old)
            return rearrange(_bicubic(maps, (new, new)), "heads y x -> (y x) heads")
    return None


def _bicubic(maps: Tensor, size: tuple[int, ...]) -> Tensor:
    resized = F.interpolate(maps[None].float(), size=size, mode="bicubic", align_corners=False)
    return resized[0].to(maps.dtype)


def _fit(name: str, value: Tensor, shape: torch.Size) -> Tensor | None:
    """A weight in the wanted shape; None if it stands for something else."""
    if value.shape == shape:
        return value
    if value.ndim == 4 and value.shape[:2] == shape and value.shape[2:] == (1, 1):
        return value.flatten(1)  # the release projects by 1 x 1 convolutions
    return resize_bias_table(value, shape) if name.endswith("bias_table") else None


def _lacks_all(state: State, name: str) -> bool:
    """Whether a state dict lacks the whole head or network that a weight is a part of."""
    part = REPLACEABLE.match(name)
    return part is not None and not any(other.startswith(part[0]) for other in state)


def check_dtypes(state: State, own: State, source: str) -> None:
    """Refuse weights that are integers, truth values or complex numbers, and not so in ``own``.

    Raises:
        WeightsError: naming the first.
    """
    for name, value in state.items():
        like = own.get(name, value)
        alike = like is not value and like.dtype == value.dtype
        if value.dtype not in FLOATS and not alike and not name.endswith(INTEGERS):
            raise WeightsError(f"{source}: {name!r} is of {value.dtype}: expected floating point")


def as_weight(value: Tensor, like: Tensor, name: str, source: str, *, copy: bool) -> Tensor:
    """A weight in the number format of the one that it replaces.

    Raises:
        WeightsError: it is not finite there.
    """
    value = value.to(like.dtype, copy=copy)
    # One pass without a mask as large as the weight; NaN comes out as both.
    if value.numel() and not all(bound.isfinite() for bound in value.aminmax()):
        if not like.is_meta and torch.equal(value, like):  # such as a mask of -inf
            return value
        raise WeightsError(f"{source}: {name!r} holds NaN or infinite values")
    return value


def load_weights(
    model: AestheticModel, weights: str | Path | Mapping[str, Tensor], *, verbose: bool = True
) -> LoadReport:
    """Load weights of ours, the authors' releases, DAT, timm's Swin or PS-ViT into a model.

    Bias tables of another resolution are resized bicubically. A head of another width is left out,
    and so are offset and interest networks and bias tables that the model's profile shapes
    otherwise. Nothing is changed if anything else does not fit, or if a part of weights of ours
    is incomplete.

    Args:
        model: the model to fill. One built within ``EmptyWeights`` takes tensors as they are.
        weights: a ``.safetensors`` file, a PyTorch file (read with ``weights_only=True``), a name
            of weights that timm publishes, ``timm/ARCH[.TAG]``, or a state dict.
        verbose: print the report.

    Raises:
        WeightsError: the file is truncated or would run code, or it holds another architecture, or
            numbers that are not finite.
    """
    if isinstance(weights, str | Path) and is_name(weights):
        try:
            state = fetch_weights(str(weights))
        except ValueError as error:
            raise WeightsError(str(error)) from error
        report = load_state(model, state, str(weights))
    elif isinstance(weights, str | Path):
        report = load_state(model, read_state(weights), str(weights))
    else:
        report = load_state(model, unwrap(weights, "state dict"), "state dict")
    if verbose:
        print(report)
    return report


def load_state(model: AestheticModel, state: State, source: str) -> LoadReport:
    """``load_weights`` of a flat state dict, called ``source`` in messages."""
    state = {name: value for name, value in state.items() if name != TRAINED_ON}
    check_dtypes(state, model.state_dict(), source)
    # Numbers of 8 bits are to be stored, and not to be calculated with.
    state = {n: value.float() if value.element_size() == 1 else value for n, value in state.items()}
    kind, converted, origin = convert(state, model, source)
    report, own = LoadReport(source, kind), model.state_dict()
    optional = OPTIONAL_FROM_SWIN if kind == "timm Swin" else OPTIONAL
    ours, fitted = kind == "eat", State()
    for name, value in converted.items():
        want = own[name].shape if name in own else None
        changed = None if want is None else _fit(name, value, want)
        if changed is not None:
            fitted[name] = changed
            before = state.get(origin[name], value).shape
            resized = before != want and (name.endswith("bias_table") or kind == "timm")
            (report.resized if resized else report.loaded).append(name)
        elif optional.match(name) and (want is not None or not ours or _lacks_all(own, name)):
            report.left_out.append(origin[name])
        else:
            why = "which the model does not have" if want is None else f"expected {tuple(want)}"
            raise misfit(source, origin[name], value, why)
    report.missing = [name for name in own if name not in fitted]
    # What ours lack, their model lacks as a whole; what it shapes otherwise is there in that shape.
    needed = [
        name
        for name in report.missing
        if own[name].is_meta
        or not optional.match(name)
        or (ours and name not in converted and not _lacks_all(converted, name))
    ]
    if needed:
        raise WeightsError(
            f"{source}: another architecture, or part of one: {len(needed)} weights are missing, "
            f"the first is {needed[0]!r}"
        )
    empty = any(value.is_meta for value in own.values())
    # Copied where they are taken as they are: tensors of a mapped file would change with it.
    fitted = {
        name: as_weight(value, own[name], origin[name], source, copy=empty)
        for name, value in fitted.items()
    }
    model.load_state_dict(fitted, strict=False, assign=empty)
    return report
