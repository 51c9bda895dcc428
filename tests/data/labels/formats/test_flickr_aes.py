import pytest
from label_files import read, sound

from eat.data.labels.formats.flickr_aes import read_flickr_aes
from eat.data.labels.table import LabelWarning


def test_flickr_aes_workers(tmp_path):
    table = sound(tmp_path, "FLICKR-AES ratings")
    assert table[["image", "worker", "score"]].values.tolist()[1] == ["b.jpg", "A1", 1.0]
    (tmp_path / "ratings.csv").write_text("worker,imagePair,score\nA1,a.jpg,5\nA2,a.jpg,3\n")
    (tmp_path / "test_workers_ID.csv").write_text("ID\nA2\n")
    assert read_flickr_aes(tmp_path / "ratings.csv")["split"].tolist() == ["train", "test"]


def test_repeated_ratings_become_their_mean_with_a_warning(tmp_path):
    text = "worker,imagePair,score\nA1,a.jpg,5\nA1,b.jpg,2\nA1,a.jpg,2\n"
    with pytest.warns(LabelWarning, match="1 ratings repeat .* such as a.jpg"):
        table = read(tmp_path, "FLICKR-AES ratings", text)
    assert table["score"].tolist() == [3.5, 2.0]


def test_flickr_aes_score_file_is_scaled_by_5(tmp_path):
    table = sound(tmp_path, "FLICKR-AES scores")
    assert table["image"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert table["score"].tolist() == pytest.approx([4.6, 2.75, 5.0])
