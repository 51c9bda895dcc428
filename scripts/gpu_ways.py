"""Steps of ``gpu.sh speed``: other ways to compute parts of a step, beside the present ones.

A way that fails has its error in its row.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from gpu_step import DEVICE, TINY, Row, precision, seconds, told
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from eat.models import create_model, kernels
from eat.models.attention import attend
from eat.models.deformable import position_bias, uniform_grid
from eat.models.noise import Subset

MODEL, SIDE = ("eat_nano", 96) if TINY else ("eat_base", 224)
BATCH = 2 if TINY else 128
HEADS, GROUPS, MAP, POINTS = 16, 4, 14, 49  # of stage 3 of eat_base
Way = Callable[..., Tensor]


def compiled(way: Way, **options: Any) -> Way:
    """The way as Inductor makes it; on a CPU, which tries the script, the way itself."""
    return way if TINY else torch.compile(way, **{"dynamic": False} | options)


def there_and_back(way: Way, *tensors: Tensor) -> None:
    """A forward and backward pass."""
    for tensor in tensors:
        tensor.grad = None
    way(*tensors).sum().backward()


def timed(row: Row, function: Callable[..., Any], *args: Any) -> Row:
    """The row with the milliseconds of a call, or with why it failed."""
    try:
        return row | {"milliseconds": 1000 * seconds(function, *args)}
    except Exception as error:  # of a compiler too
        return row | {"error": f"{type(error).__name__}: {error}"[:200]}


def sampling() -> list[Row]:
    """Forward and backward of ways to sample a block's features and bias (stage 3)."""
    images, groups = (2, 2) if TINY else (BATCH, GROUPS)
    ways: dict[str, Way] = {
        "PyTorch's kernel": kernels.grid_sample,
        "F.grid_sample": lambda maps, grid: F.grid_sample(maps, grid, align_corners=True),
    }
    ways |= {f"{name}, compiled": compiled(way) for name, way in ways.items()}
    shapes = {  # channels, sides of the map, sides of the grid
        "features": (128, MAP, MAP, 1, POINTS),
        "bias": (4, 2 * MAP - 1, 2 * MAP - 1, MAP * MAP, POINTS),
    }
    rows = []
    for what, (channels, height, width, rows_out, points) in shapes.items():
        maps = torch.randn(images * groups, height, width, channels, device=DEVICE)
        grid = 1.8 * torch.rand(images * groups, rows_out, points, 2, device=DEVICE) - 0.9
        for innermost in (True, False):
            laid = maps.permute(0, 3, 1, 2)
            laid = (laid if innermost else laid.contiguous()).detach().requires_grad_()
            places = grid.clone().requires_grad_()
            for name, way in ways.items():
                row: Row = {"what": what, "channels_innermost": innermost, "way": name}
                rows.append(timed(row, there_and_back, way, laid, places))
    return told(rows)


def fused_kernel(q: Tensor, k: Tensor, v: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """The present way: the bias is sampled, then PyTorch's fused attention adds it.

    Args:
        q: (B, heads, 196, d).
        k, v: (B, heads, N, d).
        table: (heads, 27, 27).
        positions: (B, groups, N, 2) as (y, x).

    Returns:
        (B, heads, 196, d).
    """
    return attend(q, k, v, position_bias(table, positions, MAP, MAP), None)


def bias_within(q: Tensor, k: Tensor, v: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """The same by flex attention, which samples the bias where it is added; it is never stored."""
    side, each = table.shape[1], table.shape[0] // positions.shape[1]
    # In entries of the table: that of (query - position) / 2 in [-1, 1] is query - key.
    queries = (uniform_grid(MAP, MAP, positions).view(-1, 2) + 2) * ((side - 1) / 4)
    keys = positions * ((side - 1) / 4)

    def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        y = queries[i, 0] - keys[b, h // each, j, 0]
        x = queries[i, 1] - keys[b, h // each, j, 1]
        top, left = y.floor(), x.floor()

        def entry(row: Tensor, col: Tensor) -> Tensor:
            inside = (row >= 0) & (row < side) & (col >= 0) & (col < side)
            row, col = row.clamp(0, side - 1).int(), col.clamp(0, side - 1).int()
            return torch.where(inside, table[h, row, col], 0.0)

        down, right = y - top, x - left
        above = (1 - right) * entry(top, left) + right * entry(top, left + 1)
        below = (1 - right) * entry(top + 1, left) + right * entry(top + 1, left + 1)
        return score + (1 - down) * above + down * below

    found = flex_attention(q, k, v, score_mod=biased)
    assert isinstance(found, Tensor)
    return found


def attention_inputs(images: int) -> list[Tensor]:
    """Arguments of ``fused_kernel``, which take gradients."""
    kind = torch.float32 if TINY else torch.bfloat16

    def drawn(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.randn(*shape, device=DEVICE, dtype=dtype).requires_grad_()

    q = drawn(images, HEADS, MAP * MAP, 32, dtype=kind)
    k, v = (drawn(images, HEADS, POINTS, 32, dtype=kind) for _ in range(2))
    positions = (1.8 * torch.rand(images, GROUPS, POINTS, 2, device=DEVICE) - 0.9).requires_grad_()
    return [q, k, v, drawn(HEADS, 2 * MAP - 1, 2 * MAP - 1), positions]


def attention() -> list[Row]:
    """Forward, and forward and backward, of ways to attend with a sampled bias (stage 3)."""
    inputs, rows = attention_inputs(BATCH), []
    ways = {"as now": fused_kernel, "as now, compiled": compiled(fused_kernel)}
    ways["bias within flex attention"] = compiled(bias_within)
    for name, way in ways.items():
        rows.append(timed({"way": name, "pass": "both"}, there_and_back, way, *inputs))
        with torch.no_grad():
            rows.append(timed({"way": name, "pass": "forward"}, way, *(x.detach() for x in inputs)))
    return told(rows)


def drop_path() -> list[Row]:
    """Forward and backward of an enhanced block in bf16 whose branches half of the images drop."""
    torch.manual_seed(0)
    model = create_model(MODEL, 10, SIDE).to(DEVICE).train()
    block: Any = model.get_submodule("stages.2.blocks.1")
    side = SIDE // 16
    x = torch.randn(BATCH, side, side, block.norm1.normalized_shape[0], device=DEVICE)
    x.requires_grad_()

    def attended(x: Tensor, subset: Subset | None) -> Tensor:
        return block.attn(block.norm1(x), None, subset)

    def mixed(x: Tensor, subset: Subset | None) -> Tensor:
        return block.mlp(block.norm2(x))

    # Any number of images, by one graph.
    branches = compiled(attended, dynamic=True), compiled(mixed, dynamic=True)

    def by_rows(x: Tensor) -> Tensor:
        x = x + block.drop_path(branches[0], x)
        return x + block.drop_path(branches[1], x)

    ways = {
        "rows": block,
        "mask, compiled": compiled(lambda x: block(x)),
        "rows, branches compiled": by_rows,
    }
    rows = []
    for rate in (0.5, 0.0):
        block.drop_path.rate = rate
        for name, way in ways.items():

            def step(way: Way = way) -> None:
                with precision("bf16"):
                    y = way(x)
                y.float().square().mean().backward()

            rows.append(timed({"rate": rate, "way": name}, step))
    return told(rows)


def graphs() -> list[Row]:
    """Inference in bf16 by batch: calls of kernels one by one, and as one CUDA graph."""
    model = create_model(MODEL, 10, SIDE).to(DEVICE).eval()
    for module in model.modules():  # as eat score does
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            module.to(torch.bfloat16)
    rows: list[Row] = []
    for batch in (2,) if TINY else (1, 4, 16, 64):
        images = torch.randn(batch, 3, SIDE, SIDE, device=DEVICE)
        # Nothing that a graph makes is kept for another.
        cast = torch.autocast(DEVICE.type, torch.bfloat16, cache_enabled=False)
        with torch.no_grad(), cast:
            wanted = model(images)
            rows.append(timed({"batch": batch, "way": "one by one"}, model, images))
            if DEVICE.type != "cuda":
                continue
            row: Row = {"batch": batch, "way": "CUDA graph"}
            try:
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    outputs = model(images)
                rows.append(timed(row, graph.replay))
                rows[-1]["apart"] = (outputs - wanted).abs().max().item()
            except RuntimeError as error:
                rows.append(row | {"error": str(error)[:200]})
    return told(rows)


def optimizer() -> list[Row]:
    """A step of Adam: fused, as the trainer has it, and PyTorch's other two."""
    weights = [*create_model(MODEL, 10, SIDE).to(DEVICE).parameters()]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    rows = []
    for way in ("fused", "foreach", None):
        given: dict[str, Any] = {way: True} if way else {"foreach": False}
        adam = torch.optim.Adam(weights, lr=1e-6, **given)
        rows.append(timed({"way": way or "one by one"}, adam.step))
    return told(rows)


STEPS = {step.__name__: step for step in (sampling, attention, drop_path, graphs, optimizer)}
