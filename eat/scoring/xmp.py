"""Stars beside photographs: XMP sidecars, of which nothing but the rating is written."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from eat.config.commands import Sidecars
from eat.scoring.scorer import Score
from eat.system.files import regular, write_atomically

RDF, XMP = "http://www.w3.org/1999/02/22-rdf-syntax-ns#", "http://ns.adobe.com/xap/1.0/"
DESCRIPTION = [f"{RDF} RDF", f"{RDF} Description"]
RATING = f"{XMP} Rating"
MOST_BYTES = 16 * 2**20
TAG = re.compile(rb"""<(?:[^"'>]|"[^"]*"|'[^']*')*>""")
ATTRIBUTE = re.compile(rb"""\s([^\s=]+)\s*=\s*(?:"([^"]*)"|'([^']*)')""")
EMPTY = f"""<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/">
 <rdf:RDF xmlns:rdf="{RDF}">
  <rdf:Description rdf:about=""/>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
""".encode()


class SidecarError(ValueError):
    """A sidecar that cannot be written; the message names it. It is left as it was."""


def stars_of(scores: Sequence[Score]) -> list[int]:
    """Stars from 1 to 5, a fifth of the photographs each; 0 for one without a score.

    By the percentiles that the scores have, or else by their places among one another.
    """
    values = np.array([score.score for score in scores if not score.error])
    stars = []
    for score in scores:
        rank = score.percentile
        if rank is None:  # ties take the middle of their places
            lower, equal = (values < score.score).mean(), (values == score.score).mean()
            rank = 100 * (lower + equal / 2)
        stars.append(0 if score.error else 1 + min(int(rank // 20), 4))
    return stars


def sidecar_of(photo: Path, sidecars: Sidecars) -> Path:
    """Where programs look for a photograph's sidecar: photo.xmp (Adobe's) or photo.jpg.xmp."""
    return photo.with_suffix(".xmp") if sidecars == "adobe" else Path(f"{photo}.xmp")


@dataclass
class Rated:
    """Sidecars that were written.

    Attributes:
        written: their number.
        replaced: the number of those that had another rating.
        errors: why others were not written.
    """

    written: int = 0
    replaced: int = 0
    errors: list[str] = field(default_factory=list)


def rate(scores: Sequence[Score], sidecars: Sidecars) -> Rated:
    """Write the stars of photographs that are files into their sidecars."""
    rated = Rated()
    paths = {score.image: sidecar_of(Path(score.image), sidecars) for score in scores}
    count = Counter(paths.values())
    for score, stars in zip(scores, stars_of(scores), strict=True):
        path = paths[score.image]
        try:
            if not stars:
                continue
            if not Path(score.image).is_file():
                raise SidecarError(f"{score.image}: no file, which has a sidecar")
            if count[path] > 1:
                raise SidecarError(f"{path}: of {count[path]} photographs: take --xmp darktable")
            rated.replaced += write_rating(path, stars)
            rated.written += 1
        except SidecarError as error:
            rated.errors.append(str(error))
    return rated


def write_rating(path: Path, stars: int) -> bool:
    """Write a rating into a sidecar, completely or not at all. All else in it stays, byte by byte.

    Returns:
        True if it had another rating.

    Raises:
        SidecarError: there is one that cannot be read, or it cannot be written.
    """
    try:
        there = path.exists() or path.is_symlink()
        before = regular(path, MOST_BYTES).read_bytes() if there else EMPTY
        after = with_rating(before, stars)
        if not there or after != before:
            write_atomically(path.resolve(), after)
        ratings = {before[start:end].strip() for start, end in _Finder(before).ratings}
        return bool(ratings - {b"", b"0", str(stars).encode()})
    except OSError as error:
        raise SidecarError(str(error)) from error
    except ValueError as error:
        raise SidecarError(f"{path}: {error}: the sidecar is left as it was") from error


def with_rating(content: bytes, stars: int) -> bytes:
    """The content of a sidecar with another rating, and else unchanged.

    Raises:
        ValueError: it is no XMP in UTF-8, or has a document type, which could define entities.
    """
    found, rating = _Finder(content), str(stars).encode()
    for start, end in sorted(found.ratings, reverse=True):
        content = content[:start] + rating + content[end:]
    if not found.ratings:
        start, end = found.name_end, found.name_end
        content = content[:start] + found.attribute(rating) + content[end:]
    again = _Finder(content)
    if not again.ratings or any(content[start:end] != rating for start, end in again.ratings):
        raise ValueError("its rating is written in a way that is not known here")
    return content


class _Finder:
    """Where the ratings stand in XMP.

    Attributes:
        ratings: start and end of each, in bytes.
        name_end: end of the first description's name, where an attribute may follow.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ratings: list[tuple[int, int]] = []
        self.name_end = -1
        self._path: list[str] = []
        self._spaces: dict[str, str] = {}  # by prefix
        self._first: dict[str, str] = {}  # those of the first description
        parser = self._parser = expat.ParserCreate(namespace_separator=" ")
        parser.StartNamespaceDeclHandler = self._declare
        parser.EndNamespaceDeclHandler = lambda prefix: self._spaces.pop(prefix or "", None)
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._refuse
        try:
            content.decode()
            parser.Parse(content, True)
        except (expat.ExpatError, UnicodeDecodeError) as error:
            raise ValueError(f"not XMP in UTF-8 ({error})") from error
        if self.name_end < 0:
            raise ValueError("not XMP: it has no rdf:Description")

    def attribute(self, rating: bytes) -> bytes:
        """A rating for the first description, by a prefix that is declared there or a new one."""
        known = [prefix for prefix, uri in self._first.items() if prefix and uri == XMP]
        prefix = known[0] if known else "xmp" if "xmp" not in self._first else "xmpBasic"
        declared = "" if known else f' xmlns:{prefix}="{XMP}"'
        return f'{declared} {prefix}:Rating="'.encode() + rating + b'"'

    def _declare(self, prefix: str | None, uri: str) -> None:
        self._spaces[prefix or ""] = uri

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type, which no XMP has")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path.append(name)
        at = self._parser.CurrentByteIndex
        tag = TAG.match(self.content, at)
        if tag is None:
            raise ValueError("not XMP in UTF-8")
        if self._path[-2:] == DESCRIPTION:
            if self.name_end < 0:
                self.name_end = at + len(re.split(rb"[\s/>]", tag[0], maxsplit=1)[0])
                self._first = dict(self._spaces)
            names = {f"{p}:Rating".encode() for p, uri in self._spaces.items() if uri == XMP}
            for found in ATTRIBUTE.finditer(tag[0]):
                if found[1] in names:
                    start, end = found.span(found.lastindex or 2)
                    self.ratings.append((at + start, at + end))
        elif self._path[-3:] == [*DESCRIPTION, RATING]:
            self._text = tag.end()

    def _end(self, name: str) -> None:
        if self._path[-3:] == [*DESCRIPTION, RATING]:
            self.ratings.append((self._text, max(self._parser.CurrentByteIndex, self._text)))
        self._path.pop()
