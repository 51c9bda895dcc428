"""Stars beside photographs: XMP sidecars, of which nothing but the rating is written."""

import itertools
import os
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
DESCRIPTIONS = [  # the elements that a description of the photograph is in
    [*wrapper, f"{RDF} RDF", f"{RDF} Description"]
    for wrapper in ([], ["adobe:ns:meta/ xmpmeta"], ["adobe:ns:meta/ xapmeta"])
]
RATING = f"{XMP} Rating"
MOST_BYTES, MOST_DEPTH = 4 * 2**20, 100
TAG = re.compile(rb"""<([^\s/>]+)(?:[^"'>]+|"[^"]*"|'[^']*')*>""")
UNKNOWN = "its rating is written in a way that is not known here"
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
    number = Counter(path.resolve() for path in paths.values())
    for score, stars in zip(scores, stars_of(scores), strict=True):
        path = paths[score.image]
        try:
            if not stars:
                continue
            if not Path(score.image).is_file():
                raise SidecarError(f"{score.image}: no file, which has a sidecar")
            if (shared := number[path.resolve()]) > 1:
                other = ": take --xmp darktable" if sidecars == "adobe" else ""
                raise SidecarError(f"{path}: of {shared} photographs{other}")
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
        state = _state(path)
        before = EMPTY if state is None else regular(path, MOST_BYTES).read_bytes()
        found = _Finder(before)
        after = found.replaced(stars)
        if state is None or after != before:
            if _state(path) != state:
                raise ValueError("another program changed it meanwhile")
            write_atomically(path.resolve(), after)
        return bool(found.values - {b"", b"0", str(stars).encode()})
    except OSError as error:
        raise SidecarError(str(error)) from error
    except ValueError as error:
        raise SidecarError(f"{path}: {error}: the sidecar is left as it was") from error


def _state(path: Path) -> tuple[int, ...] | None:
    """What tells whether a sidecar that may be written has changed; None if there is none."""
    if not os.path.lexists(path):
        return None
    status = path.stat()
    if not status.st_mode & 0o222 or not os.access(path, os.W_OK):
        raise ValueError("it may not be written")
    return status.st_ino, status.st_size, status.st_mtime_ns


def with_rating(content: bytes, stars: int) -> bytes:
    """The content of a sidecar with another rating, and else unchanged.

    Raises:
        ValueError: it is no XMP in UTF-8, has a document type, which could define entities, or a
            rating in a form that is not known here.
    """
    return _Finder(content).replaced(stars)


class _Finder:
    """Where the ratings stand in XMP.

    Attributes:
        ratings: start and end of each, in bytes, and what to write there, with %s for the rating.
        new: the same for one in the first description, which may have none.
    """

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.ratings: list[tuple[int, int, bytes]] = []
        self.new: tuple[int, int, bytes] | None = None
        self._path: list[str] = []
        self._spaces: list[tuple[str | None, str]] = []  # prefixes; of two alike the last holds
        parser = self._parser = expat.ParserCreate("utf-8", " ")
        parser.ordered_attributes = True
        parser.StartNamespaceDeclHandler = lambda *declared: self._spaces.append(declared)
        parser.EndNamespaceDeclHandler = lambda _: self._spaces.pop()
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.StartDoctypeDeclHandler = self._refuse
        if b"\0" in content:  # expat would take UTF-16
            raise ValueError("not XMP in UTF-8")
        try:
            parser.Parse(content, True)
        except expat.ExpatError as error:
            raise ValueError(f"not XMP in UTF-8 ({error})") from error

    @property
    def values(self) -> set[bytes]:
        """The ratings, "" for an element without content."""
        return {self.content[start:end].strip(b" \t\r\n/>") for start, end, _ in self.ratings}

    def replaced(self, stars: int) -> bytes:
        """The content with another rating; the first description gets it if there is none."""
        if self.new is None:
            raise ValueError("not XMP: it has no rdf:Description")
        rating, pieces, at = str(stars).encode(), [], 0
        for start, end, form in sorted(self.ratings) or [self.new]:
            pieces += [self.content[at:start], form % rating]
            at = end
        after = b"".join([*pieces, self.content[at:]])
        if _Finder(after).values != {rating}:
            raise ValueError(UNKNOWN)
        return after

    def _refuse(self, *_: object) -> None:
        raise ValueError("it declares a document type, which no XMP has")

    def _start(self, name: str, attributes: list[str]) -> None:
        self._path.append(name)
        path, at = self._path, self._parser.CurrentByteIndex
        if len(path) > MOST_DEPTH:
            raise ValueError(f"not XMP: more than {MOST_DEPTH} elements within one another")
        if path in DESCRIPTIONS:
            self._describe(at, attributes[::2])
        elif path[:-1] in DESCRIPTIONS and name == RATING:
            if attributes:
                raise ValueError(UNKNOWN)
            self._tag = at, self._match(at).end()
        elif path[:-2] in DESCRIPTIONS and path[-2] == RATING:
            raise ValueError(UNKNOWN)

    def _end(self, name: str) -> None:
        if self._path[:-1] in DESCRIPTIONS and name == RATING:
            (at, start), end, form = self._tag, self._parser.CurrentByteIndex, b"%s"
            if self.content[start - 2 : start] == b"/>":
                start, form = start - 2, b">%s</" + self._match(at)[1] + b">"
            self.ratings.append((start, end, form))
        self._path.pop()

    def _match(self, at: int) -> re.Match[bytes]:
        """The start tag at a byte, which expat has found to be one."""
        tag = TAG.match(self.content, at)
        assert tag is not None
        return tag

    def _describe(self, at: int, names: list[str]) -> None:
        """Take the ratings among the attributes of a description, whose names expat gives."""
        tag = self._match(at)
        if self.new is None:
            self.new = (tag.end(1), tag.end(1), self._attribute())
        found = [one for one in ATTRIBUTE.finditer(tag[0]) if one[1].split(b":")[0] != b"xmlns"]
        if len(found) != len(names):
            raise ValueError(UNKNOWN)
        for one, name in zip(found, names, strict=True):
            if name == RATING:
                start, end = one.span(one.lastindex or 2)
                self.ratings.append((at + start, at + end, b"%s"))

    def _attribute(self) -> bytes:
        """A rating by a prefix that is declared here, or a new one."""
        spaces = dict(self._spaces)
        known = [prefix for prefix, uri in spaces.items() if prefix and uri == XMP]
        if known:
            return f' {known[0]}:Rating="%s"'.encode()
        names = itertools.chain(["xmp"], (f"xmp{number}" for number in itertools.count(2)))
        prefix = next(name for name in names if name not in spaces)
        return f' xmlns:{prefix}="{XMP}" {prefix}:Rating="%s"'.encode()
