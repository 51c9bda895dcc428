from label_files import sound

from eat.data.labels.formats.para import read_para
from eat.data.labels.table import vote_columns


def test_para_bins_ratings_and_scene(tmp_path):
    table = sound(tmp_path, "PARA")
    assert table["image"][0] == "session1/iaa_1_.jpg"
    assert table["score"][0] == 3.32
    assert len(vote_columns(table)) == 9 and table["votes_5"][0] == 9
    assert table["theme"].tolist() == ["animal", "food", "food"]
    (tmp_path / "PARA-Images.csv").write_text(
        "sessionId,imageName,userId,aestheticScore\ns1,a.jpg,U1,3.5\ns1,a.jpg,U2,2\n"
    )
    ratings = read_para(tmp_path / "PARA-Images.csv")
    assert ratings[["image", "worker", "score"]].values.tolist() == [
        ["s1/a.jpg", "U1", 3.5],
        ["s1/a.jpg", "U2", 2.0],
    ]
