"""The options of the commands other than ``eat train``: one dataclass a command.

Those of pictures and pages are in ``eat.config.pictures``, those of personal models in
``eat.config.personal``, those of files for others in ``eat.config.sharing``.
"""

from dataclasses import dataclass
from typing import Literal

from eat.config.labels import LabelOptions, ScaleOptions
from eat.config.model import ModelOptions, Precision, ScorerOptions
from eat.config.pixels import Colours, Interpolation

Sidecars = Literal["adobe", "darktable"]


@dataclass(kw_only=True)
class ScoreOptions(ScorerOptions):
    """Scores of photographs.

    Attributes:
        engine: local scores files, folders and glob patterns; ray also WebDataset tars, Parquet
            files and .txt lists of places, on this machine or a cluster, here or in a store (s3://,
            gs://), into a folder with a Parquet file a shard. The same call again goes on.
        compile: compile the model, which takes about a minute, for many images; on a CPU it gains
            little over `--precision bf16` alone.
        scale: ten maps scores to 1..10; own leaves them on the scale that the model learnt.
        format: CSV, or one JSON object a line.
        percentile: add how many of 100 photographs of the split that chose the run's best epoch
            (validation, or test without one) have a lower score.
        sort: the best first, once all are scored.
        top: so many, the best, first; null gives all.
        xmp: write 1 to 5 stars into XMP sidecars beside the photographs, a star for each fifth:
            adobe names them photo.xmp (Lightroom, Bridge, of raw files), darktable photo.jpg.xmp
            (darktable, digiKam). Of a sidecar that is there only the rating changes.
        out: file to write, complete or not at all; null prints. The scores so far lie in
            OUT.partial, also after an interruption. Of ray: a folder, which the same call goes on
            filling.
        resume: go on from OUT.partial, if it is there.
        address: of ray: a cluster, such as 10.0.0.1:6379, or auto on one of its machines; null uses
            this machine alone.
        actors: of ray: processes that run the model; null takes one a GPU, or else one a core.
        shard_size: of ray: images of each output file for a folder or a list; null takes 1000.
        image_column: of ray: column of Parquet files with encoded images or their paths; null takes
            image, jpg, bytes, path or the like.
        key_column: of ray: column of Parquet files that names each image; null takes key or
            __key__, or else numbers the rows.
        sha256: of ray: add the SHA-256 of each image's bytes.
    """

    engine: Literal["local", "ray"] = "local"
    compile: bool = False
    scale: Literal["ten", "own"] = "ten"
    format: Literal["csv", "jsonl"] = "csv"
    percentile: bool = False
    sort: bool = False
    top: int | None = None
    xmp: Sidecars | None = None
    out: str | None = None
    resume: bool = False
    address: str | None = None
    actors: int | None = None
    shard_size: int | None = None
    image_column: str | None = None
    key_column: str | None = None
    sha256: bool = False


@dataclass(kw_only=True)
class CompareOptions(ScorerOptions):
    """Photographs, or crops of one, by their scores, the best first.

    Attributes:
        scale: ten maps scores to 1..10; own leaves them on the scale that the model learnt.
        voters: people who rate a photograph, for the 95% interval of the difference of two; null
            takes as many as in the data set that the model was trained on, such as 210 of AVA.
        format: text, CSV, one JSON object a line, or one JSON object.
        out: PNG, PDF or SVG to write, of the best 12 side by side, with their votes and the points
            that the model looks at; null draws none.
    """

    scale: Literal["ten", "own"] = "ten"
    voters: int | None = None
    format: Literal["text", "csv", "jsonl", "json"] = "text"
    out: str | None = None


@dataclass(kw_only=True)
class EvaluateOptions(LabelOptions, ModelOptions):
    """Metrics of a checkpoint on a split of labelled images.

    Attributes:
        released: in place of a run's checkpoint: a checkpoint of the authors'.
        labels: label file or folder; null takes those of the run.
        pairs: in place of labels: a file of choices, with columns winner and loser; or set, image
            and rank (or score, or label: best, worst), for the best and worst of each set.
        images: image folder; null takes the run's.
        low: lowest score of the data set `table`; null takes 1, or that of the run.
        high: highest score of it; null takes 10, or that of the run.
        split: train, val or test. Of a label file without splits all is evaluated.
        missing: "error" or "leave_out" for labels without an image; null takes the run's.
        cache: folder of the pixel files that `eat prepare --cache` made; null reads the images
            themselves, also where the run had a cache.
        trained_on: labels of the images that the model was trained on, if it does not list them.
        own_points: give each image its own interest points where the model averages them over the
            batch (released profile); its scores then do not depend on `batch_size`.
        own_rule: compare each image with copies of itself where the model (TANet) compares those
            of a batch; a rule of ours, to see what it costs.
        samples: bootstrap draws for the 95% intervals; 0 for none.
        batch_size: images a forward pass; null takes 16. Where scores depend on the batch it takes
            that of the authors' evaluation, or of the run.
        workers: processes that load images.
        device: auto (a GPU if there is one), cpu, cuda, cuda:1 (the second) or mps.
        precision: as of `eat score`.
        out: folder for the results; null takes `eval`, or `pairs`, beside the checkpoints.
        predictions: format of the predictions.
        examples: draw so many images each of the best, the worst and the most wrong predictions
            into examples.png.
    """

    released: str | None = None
    pairs: str | None = None
    images: str | None = None
    split: Literal["train", "val", "test"] = "test"
    missing: Literal["error", "leave_out"] | None = None
    cache: str | None = None
    trained_on: str | None = None
    own_points: bool = False
    own_rule: bool = False
    samples: int = 1000
    batch_size: int | None = None
    workers: int = 2
    device: str = "auto"
    precision: Precision = "fp32"
    out: str | None = None
    predictions: Literal["csv", "parquet"] = "csv"
    examples: int = 0


@dataclass
class PrepareOptions(ScaleOptions):
    """Check a data set before training on it.

    Attributes:
        labels: label file or folder.
        images: image folder.
        out: folder for the results.
        test: label file or id list of the test split.
        val: the same of the validation split.
        workers: processes that decode images; null takes one a core.
        engine: local works on this machine; ray on a cluster whose machines all see the images
            and `out` under the same paths.
        address: of ray: the cluster, such as 10.0.0.1:6379, or auto on one of its machines; null
            uses this machine alone.
        leave_out: leave missing and broken images out of the cleaned table, and record them.
        cache: side in pixels, or several, to resize the sound images to. They are packed into
            out/cache-SIDE.npy, side x side x 3 bytes an image, which training takes by --data.cache
            OUT. A run with a random crop wants data.train_resize and data.size.
        interpolation: of the cache, as data.interpolation of the runs that use it.
        upright: of the cache, as data.upright.
        decode: of the cache, as data.decode.
        colours: of the cache, as data.colours.
    """

    labels: str
    images: str
    out: str
    test: str | None = None
    val: str | None = None
    workers: int | None = None
    engine: Literal["local", "ray"] = "local"
    address: str | None = None
    leave_out: bool = False
    cache: int | list[int] | None = None
    interpolation: Interpolation = "bicubic"
    upright: bool = True
    decode: Literal["exact", "fast"] = "fast"
    colours: Colours = "as_shown"


@dataclass
class SecondDataOptions(ScaleOptions):
    """The second data set of an experiment that needs two. All else is as for the first.

    Attributes:
        name: data set; null takes the paper's, beside the sample another sample.
        labels: label file, or the folder that holds the published files.
        images: image folder.
        test: label file or list of images or workers of the test split.
        val: the same for the validation split.
    """

    name: str | None = None
    labels: str | None = None
    images: str | None = None
    test: str | None = None
    val: str | None = None


@dataclass
class SampleOptions:
    """Make the sample data set.

    Attributes:
        train: training images, 1..400,000.
        test: test images, 1..400,000.
        size: longer side of an image in pixels, 32..4096.
        seed: 0 or more; the two splits are independent streams of it.
        task: what the votes depend on. photos: colour, sharpness and more of the whole; background:
            half the subject, half how things stand behind it, for eat reproduce background.
        taste: the subject's share in the votes, 0..1; the background has the rest. Two samples of
            different taste stand for two data sets.
        overwrite: replace a sample with other settings, and the workers in it.
        workers: raters with tastes of their own, in FLICKR-AES's layout; 0 for none.
    """

    train: int = 1600
    test: int = 400
    size: int = 160
    seed: int = 0
    task: str = "photos"
    taste: float = 0.5
    overwrite: bool = False
    workers: int = 0


@dataclass
class ModelsOptions:
    """The named models.

    Attributes:
        format: text, or a table for programs: json has every setting too.
    """

    format: Literal["text", "csv", "json"] = "text"


@dataclass
class BestOptions:
    """The best trial of a search, and a table of all.

    Attributes:
        experiments: folder of nni's searches.
        study: name of the search, where a storage of Optuna's has several.
        out: where to write; null takes best-ID in the current folder.
    """

    experiments: str = "~/nni-experiments"
    study: str | None = None
    out: str | None = None


@dataclass
class SearchOptions:
    """A search over options of a run, which are given beside these with dotted names.

    Attributes:
        space: search space, a file as search_space.json, in nni's format.
        engine: optuna, or nni, which has a web page and reaches other machines over SSH.
        trials: how many the search shall have, those of earlier calls and other machines included.
        out: folder of the search. The same command goes on with what is in it.
        name: of the search; null takes that of the folder.
        concurrency: trials at a time on this machine, which share the cores; null takes one a GPU,
            without GPUs two; with nni what its config says, or one.
        start_step: a trial ends early if, from this epoch on, its best epoch so far is below the
            median of the finished ones at that epoch; null for never.
        storage: with optuna: journal file, or URL of a database, which several machines share; null
            takes a journal in `out`.
        nni: with nni: config such as config_gpu.yml, of which it is taken where trials run, how
            many at a time, and on how many GPUs each.
        port: with nni: of its page; null takes a free one.
    """

    space: str
    engine: Literal["optuna", "nni"] = "optuna"
    trials: int = 20
    out: str = "runs/search"
    name: str | None = None
    concurrency: int | None = None
    start_step: int | None = 2
    storage: str | None = None
    nni: str | None = None
    port: int | None = None


@dataclass
class ReproduceOptions:
    """A table or figure of the paper. Options of a run, with dotted names, hold for all its rows.

    Attributes:
        seeds: runs of each row, at seeds 0, 1 ...; null takes 3, of background 5, in a quick run 1.
        out: folder for NAME.csv, NAME.md and NAME.png; of several experiments, for a folder each.
            null takes results/NAME, of a quick run runs/quick/NAME.
        runs: folder of the runs, which experiments share.
        quick: two epochs of one seed, on a small sample that is made if no labels are given: to see
            that all works.
        list: list the experiments, the data that each needs, and what it would cost.
        engine: local carries out one run after the other; nni makes each a trial of a grid search,
            so that GPUs and machines share them.
        nni: config of nni such as config_gpu.yml, of which it is taken where trials run, how many
            at a time, and on how many GPUs each; null takes one at a time on this machine.
        port: of nni's page; null takes a free one.
    """

    seeds: int | None = None
    out: str | None = None
    runs: str = "runs/experiments"
    quick: bool = False
    list: bool = False
    engine: Literal["local", "nni"] = "local"
    nni: str | None = None
    port: int | None = None
