"""Sharded training by PyTorch's ``fully_shard``, for models that do not fit one device.

Each process keeps a shard of every parameter (a DTensor), and so of all that is made like it:
gradients, the optimizer's moments, the average. A block is whole only while it computes, for which
the processes exchange its shards. So all of them must make their forward passes side by side.
"""

from typing import Any

import torch
from torch import Tensor
from torch.distributed import broadcast
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate

from eat.models import AestheticModel
from eat.system.processes import is_main, world_size
from eat.system.words import brief


def shard(model: AestheticModel, device: torch.device) -> None:
    """Divide the weights of a model over the processes, in place, and move the shards to a device.

    All get the main process's weights. Units are the model's repeated blocks, and what is outside.

    Raises:
        ValueError: the model cannot be sharded.
    """
    kind = type(model).__name__
    try:
        for tensor in (*model.parameters(), *model.buffers()):
            main = tensor.detach().to(device).contiguous()  # one at a time on the device
            broadcast(main, 0)
            tensor.data = main.to(tensor.device)
        mesh = init_device_mesh(device.type, (world_size(),))
        for name in reversed(model.repeated_blocks()):  # inner ones first
            fully_shard(model.get_submodule(name), mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh, reshard_after_forward=True)
        # A block's weights that are used outside of its forward pass would be met in shards.
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            model.eval()(torch.zeros(2, 3, *model.img_size, device=device))
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"run.sharded: {kind} cannot be sharded, as where it uses a block's weights outside of "
            f"the block's forward pass ({brief(error)})"
        ) from error


def own(tensor: Tensor) -> Tensor:
    """This process's shard of a tensor, or the tensor where it is whole."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(state: Any) -> Any:
    """A state dict with whole tensors on the CPU in place of shards.

    All processes take part. Those beside the main one get none of the whole tensors.
    """
    if isinstance(state, DTensor):
        tensor = state.full_tensor()
        return tensor.cpu() if is_main() else None
    if isinstance(state, dict):
        return {key: whole(value) for key, value in state.items()}
    return state


def divided(state: Any, like: Any) -> Any:
    """What ``whole`` returned, with this process's shards in place of whole tensors.

    Args:
        state: of state dicts.
        like: as nested; a shard stands for all tensors below its place, but for single numbers.
    """
    if isinstance(state, dict):
        below = {key: like.get(key) if isinstance(like, dict) else like for key in state}
        return {key: divided(value, below[key]) for key, value in state.items()}
    if not isinstance(like, DTensor) or not isinstance(state, Tensor) or not state.ndim:
        return state
    copies = DTensor.from_local(state, like.device_mesh, [Replicate()], run_check=False)
    return copies.redistribute(placements=like.placements)
