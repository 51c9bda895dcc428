"""Models without content, to be filled from a file or to be looked at."""

import threading
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

INITIALISING = {name for name in vars(nn.init) if name.endswith("_") and name[0] != "_"}
INITIALISING |= {"erfinv_", "fill_", "zero_", "copy_", "mul_", "div_", "add_", "clamp_"}


class EmptyWeights(TorchFunctionMode):
    """Build models without making up weights that a file replaces; buffers are made as usual.

    Parameters are not initialised, and go to the meta device at the end, until ``load_weights``
    puts those of the file there. Other threads build theirs as usual.
    """

    def __enter__(self) -> "EmptyWeights":
        self.thread, self.found = threading.get_ident(), list[tuple[nn.Module, str]]()
        self.hook = register_module_parameter_registration_hook(self._note)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.hook.remove()
        for module, name in self.found:
            weight = module._parameters.get(name)
            if weight is not None:
                module._parameters[name] = nn.Parameter(weight.to("meta"), weight.requires_grad)

    def _note(self, module: nn.Module, name: str, weight: Tensor | None) -> None:
        if threading.get_ident() == self.thread:
            self.found.append((module, name))

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        given = kwargs or {}
        weight = args[0] if args else given.get("tensor")  # as torch.nn.init names it
        if isinstance(weight, nn.Parameter) and func.__name__ in INITIALISING:
            return weight
        return func(*args, **given)
