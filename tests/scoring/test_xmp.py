"""Stars in XMP sidecars: a foreign one keeps every byte but its rating's."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import full_disk

from eat.checkpoint import load_checkpoint, save_checkpoint
from eat.cli import main
from eat.scoring import Score
from eat.scoring.xmp import EMPTY, RDF, XMP, _Finder, rate, stars_of, with_rating, write_rating

FOREIGN = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" a:x='>" xmp:Rating="9"' xmlns:a="urn:a"
    xmlns:xmp="http://ns.adobe.com/xap/1.0/" xmp:ModifyDate="2020"{attribute}>
   <!-- Größe --><a:b rdf:parseType="Resource"><xmp:Rating>8</xmp:Rating></a:b>{element}
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>"""
NEW = ' xmp:Rating="{}"'


def foreign(attribute: str = "", element: str = "") -> bytes:
    return FOREIGN.format(attribute=attribute, element=element).encode()


def rating_in(path: Path) -> str | None:
    """As a reader of XML finds it."""
    (found,) = ET.parse(path).iterfind(f".//{{{RDF}}}Description")
    return found.get(f"{{{XMP}}}Rating")


@pytest.mark.parametrize(
    ("attribute", "element"),
    [
        (' xmp:Rating="{}"', ""),
        ("\n xmp:Rating = '{}'", ""),
        ("", "<xmp:Rating>{}</xmp:Rating>"),
        ("", '<q:Rating xmlns:q="http://ns.adobe.com/xap/1.0/">{}</q:Rating>'),
        (' xmp:Rating="{}"', "<xmp:Rating>{}</xmp:Rating>"),
    ],
)
@pytest.mark.parametrize("before", ["-1", "0", "3", ""])
def test_only_the_rating_changes(attribute: str, element: str, before: str) -> None:
    content = foreign(attribute.format(before), element.format(before))
    assert with_rating(content, 5) == foreign(attribute.format(5), element.format(5))


def test_a_sidecar_without_a_rating_gets_one() -> None:
    after = with_rating(foreign(), 4)
    assert after == foreign().replace(b"<rdf:Description", b'<rdf:Description xmp:Rating="4"')
    assert with_rating(after, 4) == after
    other = foreign().replace(b"http://ns.adobe.com/xap/1.0/", b"urn:other")
    other = other.replace(b"xmlns:xmp=", b'xmlns:xmp2="urn:two" xmlns:xmp=')
    new = b'<rdf:Description xmlns:xmp3="http://ns.adobe.com/xap/1.0/" xmp3:Rating="4"'
    assert with_rating(other, 4) == other.replace(b"<rdf:Description", new)
    wrapped = foreign().replace(b"x:xmpmeta", b"x:xapmeta")
    assert with_rating(wrapped, 4) == after.replace(b"x:xmpmeta", b"x:xapmeta")


INNER = '<a:b xmlns:xmp="urn:inner" xmp:Rating="7"/>'
SECOND = (
    '</rdf:Description><rdf:Description xmp:Rating="{}" xmlns:xmp="http://ns.adobe.com/xap/1.0/">'
)
OTHERS = '<a:c><rdf:RDF><rdf:Description xmp:Rating="6"/></rdf:RDF></a:c>'


@pytest.mark.parametrize(
    "element",
    [
        INNER + "<xmp:Rating>{}</xmp:Rating>",
        INNER + SECOND,
        "<xmp:Label/>" + OTHERS + "<xmp:Rating>{}</xmp:Rating>",
        """<xmp:Rating xmlns:q="/">{}</xmp:Rating>""",
    ],
)
def test_prefixes_and_places_are_xml_s(element: str) -> None:
    assert with_rating(foreign(element=element.format(2)), 5) == foreign(element=element.format(5))


def test_an_empty_rating_is_filled() -> None:
    for empty in (
        "<xmp:Rating/>",
        "<xmp:Rating />",
        "<xmp:Rating\n/>",
        "<xmp:Rating></xmp:Rating>",
    ):
        after = with_rating(foreign(element=f"<a:d/>{empty}"), 5)
        before, _, end = foreign(element=f"<a:d/>{empty}").partition(empty.encode())
        filled = after.removeprefix(before).removesuffix(end)
        assert b"".join(filled.split()) == b"<xmp:Rating>5</xmp:Rating>"


def test_a_sidecar_that_is_changed_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(foreign(NEW.format(2)))
    newer = foreign(NEW.format(2), "<a:e/>")

    def find(content: bytes) -> _Finder:
        if not path.read_bytes() == newer:
            path.write_bytes(newer)
        return _Finder(content)

    monkeypatch.setattr("eat.scoring.xmp._Finder", find)
    with pytest.raises(ValueError, match=r"a.xmp: another program changed it meanwhile"):
        write_rating(path, 3)
    assert path.read_bytes() == newer


def test_permissions_stay_and_read_only_sidecars_are_left(tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(EMPTY)
    path.chmod(0o640)
    write_rating(path, 3)
    assert path.stat().st_mode & 0o777 == 0o640 and rating_in(path) == "3"
    path.chmod(0o444)
    with pytest.raises(ValueError, match=r"a.xmp: it may not be written"):
        write_rating(path, 4)
    assert path.stat().st_mode & 0o777 == 0o444 and rating_in(path) == "3"


def test_sidecars_that_are_links_to_one_file_are_told(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jpg").touch()
        (tmp_path / f"{name}.jpg.xmp").symlink_to(tmp_path / "both.xmp")
    (tmp_path / "both.xmp").write_bytes(EMPTY)
    rated = rate([Score(str(tmp_path / f"{name}.jpg"), 5.0) for name in "ab"], "darktable")
    told = [f"{tmp_path / name}.jpg.xmp: of 2 photographs" for name in "ab"]
    assert rated.errors == told and (tmp_path / "both.xmp").read_bytes() == EMPTY


def test_many_ratings_are_replaced_at_once() -> None:
    many = 2**14 * "<xmp:Rating>{0}</xmp:Rating>"
    assert with_rating(foreign(element=many.format(1)), 5) == foreign(element=many.format(5))


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not XMP in UTF-8"),
        (b"\x89PNG", "not XMP in UTF-8"),
        (foreign()[:400], "not XMP in UTF-8"),
        (foreign().decode().encode("utf-16"), "not XMP in UTF-8"),
        (b"<a/>", "it has no rdf:Description"),
        (foreign().decode().encode("utf-16-le"), "not XMP in UTF-8"),
        (foreign(element="<xmp:Rating xml:lang='en'>3</xmp:Rating>"), "in a way that is not known"),
        (foreign(element="<xmp:Rating><a:f>3</a:f></xmp:Rating>"), "in a way that is not known"),
        (foreign(element=100 * "<a:a>" + 100 * "</a:a>"), "more than 100 elements within"),
        (foreign().replace(b"adobe:ns:meta/", b"urn:other"), "it has no rdf:Description"),
        (foreign() + 2**22 * b" ", "4.2 MB: expected at most 4.2 MB"),
        (b'<!DOCTYPE a [<!ENTITY b "cc"><!ENTITY d "&b;&b;">]>' + foreign(), "a document type"),
        (foreign()[: foreign().index(b"<x:")] + b"<!DOCTYPE a>" + foreign()[60:], "not XMP|a doc"),
    ],
)
def test_what_is_no_sidecar_is_told_and_left(content: bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "a.xmp"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"a.xmp: .*({told})"):
        write_rating(path, 3)
    assert path.read_bytes() == content


def test_stars_are_by_percentile_or_else_by_place() -> None:
    ranks = [0.0, 19.9, 20.0, 59.0, 60.0, 80.0, 100.0]
    assert stars_of([Score("a", 1, percentile=r) for r in ranks]) == [1, 1, 2, 3, 4, 5, 5]
    places = [Score(str(i), s) for i, s in enumerate([3.0, 1.0, 5.0, 4.0, 2.0])]
    assert stars_of([*places, Score("x", float("nan"), error="x")]) == [3, 1, 5, 4, 2, 0]
    assert stars_of([Score("a", 7.0)]) == [3] and stars_of([Score("a", 7.0)] * 4) == [3] * 4


def test_a_full_disk_leaves_the_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.xmp").write_bytes(foreign(NEW.format(2)))
    with full_disk(room=100):
        rated = rate([Score(str(tmp_path / "a.jpg"), 7.0)], "adobe")
    assert rated.written == 0 and "a.xmp was not written" in rated.errors[0]
    assert (tmp_path / "a.xmp").read_bytes() == foreign(NEW.format(2))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jpg", "a.xmp"]


@pytest.mark.parametrize("xmp", ["adobe", "darktable"])
def test_the_command_line_writes_sidecars(
    xmp: str, sample: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = []
    for file in sorted((sample / "images").iterdir())[:5]:
        photos.append(tmp_path / file.name)
        photos[-1].symlink_to(file)
    sidecars = [
        photo.with_suffix(".xmp") if xmp == "adobe" else photo.with_name(f"{photo.name}.xmp")
        for photo in photos
    ]
    sidecars[1].write_bytes(foreign(NEW.format(-1)))
    sidecars[2].write_bytes(b"something else")
    model, info = load_checkpoint(checkpoint)
    info.score_quantiles = ()
    save_checkpoint(tmp_path / "x.safetensors", model, info)
    before = [photo.read_bytes() for photo in photos]
    argv = ["score", *map(str, photos), "--top", "1", "--xmp", xmp, "--checkpoint"]
    assert main([*argv, str(tmp_path / "x.safetensors")]) == 1
    told = capsys.readouterr().err
    assert "a star for each fifth of these photographs: 4 sidecars written, 1 with another" in told
    assert f"eat score: no stars: {sidecars[2]}: not XMP" in told
    assert sidecars[2].read_bytes() == b"something else"
    stars = [rating_in(file) for file in sidecars if file != sidecars[2]]
    assert len(set(stars)) == 4 and {*stars} < {"1", "2", "3", "4", "5"}
    assert [photo.read_bytes() for photo in photos] == before
    sidecars[2].write_bytes(EMPTY)
    assert main([*argv, str(checkpoint)]) == 0
    assert "a star for each fifth of the test split's photographs" in capsys.readouterr().err


def test_photographs_that_would_share_a_sidecar_are_told(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.jpg", "a.png", "b.jpg")]
    for file in files:
        file.touch()
    scores = [Score(str(file), 5.0) for file in files]
    rated = rate(scores, "adobe")
    assert rated.written == 1 and len(rated.errors) == 2
    assert rated.errors[0] == f"{tmp_path / 'a.xmp'}: of 2 photographs: take --xmp darktable"
    assert rate([*scores, Score(f"{files[0]}[1x1+0+0]", 5.0)], "darktable").written == 3
