"""Uploaded photographs, their scores, and pictures of what a model sees in them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL.Image import open as open_image

from eat.config.demo import DemoOptions
from eat.data.decoding import Decoded
from eat.pictures.gallery.photographs import Collector, thumb_name
from eat.pictures.points import draw_points
from eat.pictures.saliency import draw_saliency
from eat.scoring import Score, Scorer
from eat.system.device import autocast

THUMBNAIL = 640  # pixels


@dataclass(frozen=True, eq=False)
class Photograph:
    """An uploaded photograph that has a score.

    Attributes:
        size: width and height in pixels, as it is scored.
    """

    file: Path
    thumbnail: Path
    size: tuple[int, int]
    score: Score

    @property
    def name(self) -> str:
        """Its file's name."""
        return self.file.name

    @property
    def key(self) -> str:
        """A word of its own among all photographs."""
        return self.thumbnail.stem


@dataclass
class Sizes(Collector):
    """A collector that keeps the sizes of the photographs too."""

    full: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def decoded(self, file: Path, photo: Decoded) -> None:
        """Keep a photograph's size, and what a collector keeps."""
        self.full[file] = photo.size
        super().decoded(file, photo)


@dataclass(frozen=True)
class Studio:
    """Scores photographs and draws what a model sees in them, in a folder of its own.

    Attributes:
        options: that the scorer was made by, and what may be uploaded.
    """

    scorer: Scorer
    folder: Path
    options: DemoOptions

    def score(
        self,
        files: Iterable[Path],
        known: Iterable[Photograph] = (),
        progress: Callable[[int, int], object] = lambda done, all: None,
    ) -> tuple[list[Photograph], list[str]]:
        """Score uploaded files, but for those that are known.

        Returns:
            Those that have a score, the best first; and why the others have none.
        """
        files = list(dict.fromkeys(files))
        found = {one.file: one for one in known if one.file in files}
        errors = [f"{file.name}: more than {self.options.files} photographs"
                  for file in files[self.options.files :]]  # fmt: skip
        wanted = []
        for file in files[: self.options.files]:
            if reason := self.too_large(file):
                errors.append(reason)
            elif file not in found:
                wanted.append(file)
        thumbnails = self.folder / "thumbnails"
        thumbnails.mkdir(exist_ok=True)
        collector = Sizes(thumbnails, THUMBNAIL)
        scores = self.scorer.score_files(wanted, collector)
        for place, (file, score) in enumerate(zip(wanted, scores, strict=True), start=1):
            progress(place, len(wanted))
            if score.error:
                errors.append(score.error.replace(f"{file.parent}/", ""))
            else:
                thumbnail = thumbnails / thumb_name(file)
                found[file] = Photograph(file, thumbnail, collector.full[file], score)
        return sorted(found.values(), key=lambda one: -one.score.score), errors

    def too_large(self, file: Path) -> str:
        """Why an image is larger than allowed, by its header; "" if it is not, or is no image."""
        if file.stat().st_size > self.options.megabytes * 1e6:
            return f"{file.name}: more than {self.options.megabytes:g} MB"
        try:
            with open_image(file) as image:
                pixels = image.width * image.height / 1e6
        except Exception:  # the scorer says what is wrong with it
            return ""
        if pixels > self.options.megapixels:
            return f"{file.name}: {pixels:.3g} megapixels, more than {self.options.megapixels:g}"
        return ""

    def points(self, photo: Photograph) -> Path:
        """A picture of where the model looks."""
        return self._picture(photo, "points", draw_points)

    def saliency(self, photo: Photograph) -> Path:
        """A picture of what the score comes from: the size of its gradient, in any model."""
        return self._picture(photo, "saliency", partial(draw_saliency, method="gradient"))

    def _picture(self, photo: Photograph, kind: str, draw: Callable[..., object]) -> Path:
        picture = self.folder / "pictures" / f"{photo.key}-{kind}.png"
        if not picture.exists():
            with autocast(self.scorer.device, self.scorer.precision):
                draw(self.scorer.model, self.scorer.info, photo.file, picture)
        return picture
