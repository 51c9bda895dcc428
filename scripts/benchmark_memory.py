"""Memory of a training step: what is kept for the backward pass, and the peak on a GPU.

    python scripts/benchmark_memory.py

On any machine: bytes of the distinct tensors that autograd keeps between forward and backward,
weights left out, which is what batch and resolution decide. Weights, gradients and Adam's two
moments come on top, the same for each. On a GPU also the allocator's peak over a whole step.
"""

import argparse

import timm
import torch
from plain import Plain
from torch import Tensor, nn

import eat

PEER = "swin_base_patch4_window7_224"
GIB = 2**30


def kept(model: nn.Module, images: Tensor, cast: bool) -> int:
    """Bytes kept for the backward pass, each storage once, weights left out."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    held: list[Tensor] = []  # holding them keeps addresses from being used again
    with (
        # The graph itself keeps nothing, since there is no backward pass.
        torch.autograd.graph.saved_tensors_hooks(held.append, lambda _: None),
        torch.autocast(images.device.type, torch.bfloat16, enabled=cast),
    ):
        loss = model.train()(images).float().square().mean()
    sizes = {x.untyped_storage().data_ptr(): x.untyped_storage().nbytes() for x in held}
    assert loss.requires_grad
    held.clear()  # or graph and list would hold each other for good
    return sum(size for at, size in sizes.items() if at not in weights)


def peak(model: nn.Module, images: Tensor, cast: bool) -> int:
    """Peak bytes of the GPU's allocator over one training step; 0 without a GPU."""
    if not images.is_cuda:
        return 0
    adam = torch.optim.Adam(model.parameters(), lr=1e-6, fused=True)
    for _ in range(2):
        torch.cuda.reset_peak_memory_stats()
        with torch.autocast("cuda", torch.bfloat16, enabled=cast):
            loss = model.train()(images).float().square().mean()
        loss.backward()
        adam.step()
        adam.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="eat_base")
    parser.add_argument("--batches", type=int, nargs="+", default=[4, 8, 16])
    parser.add_argument("--sizes", type=int, nargs="+", default=[320, 448], help="at --small batch")
    parser.add_argument("--small", type=int, default=2)
    parser.add_argument("--draws", type=int, default=3, help="of drop path, whose mean is shown")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print("" if torch.cuda.is_available() else "No GPU on this machine: no allocator peak.")
    print(f"{'':34}{'size':>6}{'batch':>6}{'kept GiB':>10}{'of plain fp32':>15}{'peak GiB':>10}")
    cases = [(224, batch) for batch in args.batches] + [(size, args.small) for size in args.sizes]
    for size, batch in cases:
        images = torch.randn(batch, 3, size, size, device=args.device)
        ours = eat.create_model(args.model, img_size=size).to(args.device)
        peer = timm.create_model(PEER, num_classes=10, img_size=size).to(args.device)
        plain = Plain(ours)
        base = 0
        for precision in ("fp32", "bf16"):
            for name, model, again in (
                ("plain", plain, False),
                ("timm Swin", peer, False),
                (args.model, ours, False),
                (f"{args.model}, checkpointed", ours, True),
            ):
                ours.set_grad_checkpointing(again)
                held = 0.0
                for seed in range(args.draws):
                    torch.manual_seed(seed)
                    held += kept(model, images, precision == "bf16") / args.draws
                base = base or held
                top = peak(model, images, precision == "bf16")
                shown = f"{top / GIB:10.2f}" if top else f"{'-':>10}"
                print(
                    f"{precision} {name:29}{size:6}{batch:6}{held / GIB:10.2f}"
                    f"{held / base:15.0%}{shown}"
                )


if __name__ == "__main__":
    main()
