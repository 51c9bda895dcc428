"""The options of ``eat adapt``, ``eat personalize``, and experiments that adapt to raters."""

from dataclasses import dataclass
from typing import Literal

from eat.config.labels import ScaleOptions
from eat.config.model import BatchOptions, ModelOptions


@dataclass(kw_only=True)
class AdaptOptions(BatchOptions):
    """A personal model of one person's ratings or choices, with evidence of what it is worth.

    Attributes:
        out: safetensors file to write, which is used like any checkpoint. It has the weights that
            differ from the general model, which it finds beside it or where that is now.
        whole: write all weights, so that the file needs no other.
        images: folder of the rated images; null takes that of the ratings, or names that are paths.
        low: lowest rating that could be given; null and `high` null take the first of 0..1, 1..5,
            1..10, 0..10 and 0..100 that has all ratings.
        high: highest rating that could be given.
        target: of a model with several, the one that the ratings are of; null takes the first.
        seed: of the folds of the cross-validation.
    """

    out: str
    whole: bool = False
    images: str | None = None
    low: float | None = None
    high: float | None = None
    target: str | None = None
    seed: int = 0


@dataclass(kw_only=True)
class PersonalizeOptions(ScaleOptions, ModelOptions):
    """Adapt a model to each test worker, and measure both models on the worker's other images.

    Attributes:
        name: data set of the ratings.
        labels: file of single ratings, or the folder with the published one.
        images: image folder.
        shots: rated images that adapt the model, k.
        repeats: draws for each worker.
        test_workers: list of ids, or a file with one; null takes the workers marked as test.
        num_test_workers: draw so many by the seed, from all, instead; the settings record them.
        seed: of the draws, the augmentation and drop path.
        out: folder for the results; a second call with the same settings continues there.
        epochs: steps of an adaptation.
        lr: learning rate.
        head_lr: that of the head, if another.
        scope: adapt all parameters, or the head alone.
        select: take the result after the last epoch; or, as one published variant does, the best
            epoch on the test images, which is optimistic.
        batch_size: images a forward pass. It bounds memory and changes no step.
        processes: processes that share the workers, of one thread each.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1 (the second) or mps.
        precision: of the forward passes, fp32 or bf16.
        min_rest: images that must remain to test on; SRCC needs 2. FLICKR-AES's smallest test
            worker keeps 5 in the 100-shot case.
        skip_small: leave out workers with fewer than k + `min_rest` images, and list them.
        missing: "error" or "leave_out" for rated images without a file.
        progress: show a bar on a terminal.
    """

    name: str
    labels: str
    images: str
    shots: int = 10
    repeats: int = 10
    test_workers: list[str] | str | None = None
    num_test_workers: int | None = None
    seed: int = 0
    out: str | None = None
    epochs: int = 20
    lr: float = 1e-5
    head_lr: float | None = None
    scope: Literal["all", "head"] = "all"
    select: Literal["last", "best_on_test"] = "last"
    batch_size: int = 16
    processes: int = 1
    device: str = "auto"
    precision: Literal["fp32", "bf16"] = "fp32"
    min_rest: int = 2
    skip_small: bool = False
    missing: Literal["error", "leave_out"] = "error"
    progress: bool = True


@dataclass
class WorkersOptions(ScaleOptions):
    """Test workers of a data set, for experiments that adapt models to them (eat personalize).

    Attributes:
        name: data set of the ratings, such as table; null takes that of the model's labels.
        labels: file of single ratings, or the folder with the published one; null takes the model's
            labels, of the sample the workers in it.
        low: lowest score of the data set `table`.
        high: highest score of it.
        test_workers: list of ids, or a file with one; null takes the workers marked as test. If the
            model's labels are these ratings, it is trained on other workers' images.
        num_test_workers: draw so many by the seed instead.
        repeats: draws for each worker; null takes 10, in a quick run 2.
        epochs: steps of an adaptation; null takes 20, in a quick run 1.
        lr: its learning rate; null takes optim.lr, the model's own.
        batch_size: images a forward pass.
        processes: processes that share the workers, of one thread each.
        skip_small: leave out workers with too few images.
    """

    name: str | None = None
    labels: str | None = None
    test_workers: list[str] | str | None = None
    num_test_workers: int | None = None
    repeats: int | None = None
    epochs: int | None = None
    lr: float | None = None
    batch_size: int | None = None
    processes: int | None = None
    skip_small: bool | None = None
