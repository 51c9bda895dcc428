"""The forms of file that a model is exported as: ONNX, and PyTorch's own exported program."""

import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel

from eat.sharing.graph import Rater

Array = NDArray[Any]
Run = Callable[[Array], list[Array]]  # images to scores, and votes if there are
Card = dict[str, Any]  # what a file says of itself

OPSET = 18  # TensorRT reads 20's grid sampling, called "linear", as nearest
KEY = "eat"  # of the card in a file's metadata
MOST_BYTES = 2**31 - 1  # of an ONNX file


class ExportedFile(Protocol):
    """A model in the form of a file.

    Attributes:
        suffix: of the file.
        marks: each file has one of them in its first bytes.
        lacks: precisions that it cannot have.
    """

    suffix: str
    marks: tuple[bytes, ...]
    lacks: tuple[str, ...]

    def __init__(self, rater: Rater, *, quantise: bool) -> None: ...

    def content(self, card: Card) -> bytes:
        """The whole file."""

    def runner(self) -> Run:
        """Compute as a reader of the file does."""


class OnnxFile:
    """ONNX, as onnxruntime computes it.

    Args:
        rater: the model.
        quantise: round the weights of matrix products to 8 bits, and their inputs as they come.

    Raises:
        ValueError: the packages are missing, the model is too large for one file, or ONNX has no
            such operation.
    """

    suffix = ".onnx"
    marks: tuple[bytes, ...] = (b"pytorch", b"onnx.quantize")  # its producers
    lacks: tuple[str, ...] = ("bf16",)  # its convolutions take none

    def __init__(self, rater: Rater, *, quantise: bool) -> None:
        try:
            import onnx
            import onnxruntime  # noqa: F401
            import onnxscript  # noqa: F401
        except ImportError as error:
            raise ValueError(
                f"ONNX needs onnx, onnxscript and onnxruntime ({error}): pip install "
                "'eat-iaa[export]', or take --format torch-export"
            ) from error
        if sum(value.nbytes for value in rater.state_dict().values()) > MOST_BYTES:
            raise ValueError("its weights are more than the 2 GB that an ONNX file holds: take "
                             "--format torch-export")  # fmt: skip
        # ONNX computes attention step by step, whose result lies otherwise in memory when fused.
        with quiet(), sdpa_kernel(SDPBackend.MATH):
            program = rater.program()
            made = torch.onnx.export(
                program,
                dynamo=True,
                verbose=False,
                opset_version=OPSET,
                input_names=[rater.input_name],
                output_names=rater.output_names,
            )
        assert made is not None
        self.model = made.model_proto
        for part in (*self.model.graph.node, *self.model.graph.value_info):
            del part.metadata_props[:]  # they name files of this machine
        if quantise:
            self.model = quantised(self.model)
        onnx.checker.check_model(self.model)

    def content(self, card: Card) -> bytes:
        from onnx.helper import set_model_props

        set_model_props(self.model, {KEY: json.dumps(card)})
        return self.model.SerializeToString()

    def runner(self) -> Run:
        from onnxruntime import InferenceSession, SessionOptions

        options = SessionOptions()
        options.log_severity_level = 3  # errors
        providers = ["CPUExecutionProvider"]
        session = InferenceSession(self.content({}), options, providers=providers)
        (name,) = (entry.name for entry in session.get_inputs())

        def run(images: Array) -> list[Array]:
            return session.run(None, {name: images})

        return run


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what exporters say of steps that change no score."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def quantised(model: Any) -> Any:
    """An ONNX model whose matrix products take weights of 8 bits."""
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    del model.graph.value_info[:]  # shapes, which onnxruntime finds by itself
    with quiet(), TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        products = ["MatMul", "Gemm"]
        quantize_dynamic(model, out, op_types_to_quantize=products, weight_type=QuantType.QInt8)
        return onnx.load(out)


class TorchFile:
    """PyTorch's exported program, which ``torch.export.load`` reads."""

    suffix = ".pt2"
    marks: tuple[bytes, ...] = (b"archive/data/weights/",)
    lacks: tuple[str, ...] = ("int8",)

    def __init__(self, rater: Rater, *, quantise: bool) -> None:
        self.program = rater.program()

    def content(self, card: Card) -> bytes:
        file = io.BytesIO()
        torch.export.save(self.program, file, extra_files={f"{KEY}.json": json.dumps(card)})
        return file.getvalue()

    def runner(self) -> Run:
        module = torch.export.load(io.BytesIO(self.content({}))).module()

        def run(images: Array) -> list[Array]:
            with torch.no_grad():
                return [output.numpy() for output in module(torch.from_numpy(images))]

        return run


FORMATS: dict[str, type[ExportedFile]] = {"onnx": OnnxFile, "torch-export": TorchFile}
