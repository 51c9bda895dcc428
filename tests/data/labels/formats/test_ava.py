import numpy as np
import pytest
from label_files import AVA_HEADER, FORMATS, read, sound

from eat.data.labels.formats.ava import read_ava, read_names
from eat.data.labels.table import LabelError, vote_columns


def test_ava_scores_are_mean_votes(tmp_path):
    table = sound(tmp_path, "AVA.txt")
    votes = [0, 1, 5, 17, 38, 36, 15, 6, 5, 1]
    assert table["image"][0] == "953619.jpg"
    assert table.loc[0, vote_columns(table)].tolist() == votes
    assert table["score"][0] == pytest.approx(np.average(np.arange(1, 11), weights=votes))
    assert table.loc[2, ["tag1", "tag2", "challenge"]].tolist() == ["", "", "1396"]


def test_released_ava_counts_votes_for_1_under_score2(tmp_path):
    text = f"{AVA_HEADER}\n1,{','.join('1' + '0' * 9)},0,0,5\n2,{','.join('0' * 9 + '4')},0,0,5\n"
    (tmp_path / "test.csv").write_text(text)
    table = read_ava(tmp_path / "test.csv")
    assert table["score"].tolist() == [1.0, 10.0]
    assert table["votes_10"].tolist() == [0.0, 4.0]


def test_ava_header_from_score1_is_refused_with_the_shift_explained(tmp_path):
    shifted = "image_id," + ",".join(f"score{k}" for k in range(1, 11)) + ",tag1,tag2,tag3"
    (tmp_path / "test.csv").write_text(f"{shifted}\n1{',1' * 13}\n")
    with pytest.raises(
        LabelError, match="no column score11.*score2 counts the votes for 1.*off by"
    ):
        read_ava(tmp_path / "test.csv")


def test_ava_names_lie_beside(tmp_path):
    (tmp_path / "AVA.txt").write_text("\n".join(FORMATS["AVA.txt"][4]) + "\n")
    (tmp_path / "tags.txt").write_text("1 Abstract\n21 Fish Eye\n")
    (tmp_path / "challenges.txt").write_text("1396 100_Meters\n")
    table = read_ava(tmp_path / "AVA.txt")
    assert table["tag1"].tolist() == ["Abstract", "15", "", "15"]
    assert table["tag2"].tolist() == ["22", "Fish Eye", "", "Fish Eye"]
    assert set(table["challenge"]) == {"100_Meters"}
    (tmp_path / "tags.txt").write_text("1 Abstract\nAction\n")
    with pytest.raises(LabelError, match="tags.txt, line 2: found 'Action'"):
        read_ava(tmp_path / "AVA.txt")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("1 953619", "1 953619.5", "line 1, column image id: found '953619.5', expected a whole"),
        (" 10 7 15", " 10 -7 15", "line 2, column votes for 2: found '-7', expected 0 to inf"),
        (" 10 7 15", " 10 7.5 15", "line 2, column votes for 2: found '7.5', expected a whole"),
        ("0 0 4 8 41 56 10 3 4 0", "0 0 0 0 0 0 0 0 0 0", "line 3, .*nobody rated"),
        ("953958", "953619", r"953619.jpg \(lines 1, 2\).*remove the repeated rows"),
    ],
)
def test_ava_refuses(tmp_path, old, new, message):
    text = "\n".join(FORMATS["AVA.txt"][4]) + "\n"
    assert old in text
    with pytest.raises(LabelError, match="AVA.txt.*" + message):
        read(tmp_path, "AVA.txt", text.replace(old, new, 1))


def test_published_names(labels):
    tags = read_names(labels / "ava" / "tags.txt")
    assert len(tags) == 66 and tags[63] == "Fish Eye"
    assert len(read_names(labels / "ava" / "challenges.txt")) == 1398
