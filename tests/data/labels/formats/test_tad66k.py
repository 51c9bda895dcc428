import pytest
from label_files import read

from eat.data.labels.formats.tad66k import read_tad66k
from eat.data.labels.table import LabelError


@pytest.mark.parametrize("content", ["", "\n \n", '""\n'])
def test_an_empty_file_is_refused(tmp_path, content):
    with pytest.raises(LabelError, match="TAD66K.csv: (the file is empty|found only blank lines)"):
        path = tmp_path / "TAD66K.csv"
        path.write_text(content)
        read_tad66k(path)


def test_a_header_without_rows_and_an_absent_file_are_refused(tmp_path):
    with pytest.raises(LabelError, match="found no rows"):
        read(tmp_path, "TAD66K", "image,score\n")
    with pytest.raises(LabelError, match="absent.csv: cannot be read"):
        read_tad66k(tmp_path / "absent.csv")
    with pytest.raises(LabelError, match="cannot be read"):
        read_tad66k(tmp_path)


def test_quotes(tmp_path):
    table = read(tmp_path, "TAD66K", 'image,score\n"a, b.jpg","3"\nc.jpg,4\n')
    assert table["image"].tolist() == ["a, b.jpg", "c.jpg"]
    with pytest.raises(LabelError, match="train.csv, line 3: .*quotes"):
        read(tmp_path, "TAD66K", 'image,score\na.jpg,3\n"c.jpg,4\nd.jpg,5\n')


def test_tad66k_theme_comes_from_the_unmerged_folder(tmp_path):
    path = tmp_path / "unmerge" / "train" / "citysky.csv"
    path.parent.mkdir(parents=True)
    path.write_text("image,score\r\na.jpg,3.0\r\n")
    assert read_tad66k(path)["theme"].tolist() == ["citysky"]


def test_the_official_lists_get_their_themes_from_the_lists_by_theme(tmp_path):
    files = {"unmerge/train/art.csv": "a.jpg,3", "unmerge/test/sea.csv": "b.jpg,4"}
    files["merge/test.csv"] = "b.jpg,4\nc.jpg,5\na.jpg,3"  # another split than unmerge's
    for name, rows in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"image,score\n{rows}\n")
    table = read_tad66k(tmp_path / "merge" / "test.csv")
    assert table["theme"].tolist() == ["sea", "", "art"]


def test_an_image_in_the_lists_of_two_themes_is_refused_by_name(tmp_path):
    files = {"merge/test.csv": "b.jpg,4", "unmerge/train/art.csv": "a.jpg,3\nb.jpg,4"}
    files["unmerge/test/art.csv"] = "b.jpg,4"  # twice under one theme is no matter
    for name, rows in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"image,score\n{rows}\n")
    assert read_tad66k(tmp_path / "merge" / "test.csv")["theme"].tolist() == ["art"]
    (tmp_path / "unmerge" / "test" / "sea.csv").write_text("image,score\na.jpg,3\n")
    with pytest.raises(LabelError, match=r"art.csv: a.jpg also stands in the list of sea: exp"):
        read_tad66k(tmp_path / "merge" / "test.csv")


def test_every_published_image_has_one_of_47_themes(labels):
    table = read_tad66k(labels / "tad66k" / "merge" / "test.csv")
    counts = table["theme"].value_counts()
    assert len(counts) == 47 and counts.sum() == 14079 and counts["art"] == 289
