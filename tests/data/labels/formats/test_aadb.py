import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from eat.data.labels.formats.aadb import read_aadb
from eat.data.labels.table import LabelError

fast = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def test_aadb_attributes_are_joined_by_image(tmp_path):
    scores = tmp_path / "imgListTrainRegression_score.txt"
    scores.write_text("a.jpg 0.5\nb.jpg 1\n")
    attribute = tmp_path / "imgListTrainRegression_BalacingElements.txt"
    attribute.write_text("b.jpg -0.25\na.jpg 1\n")
    assert read_aadb(scores)["balancing_elements"].tolist() == [1.0, -0.25]
    with pytest.raises(LabelError, match="BalacingElements.txt: found the attribute"):
        read_aadb(attribute)
    attribute.write_text("b.jpg -0.25\nc.jpg 1\n")
    with pytest.raises(LabelError, match="2 images stand only here .*: a.jpg, c.jpg"):
        read_aadb(scores)
    attribute.write_text("a.jpg -3\nb.jpg 1\n")
    with pytest.raises(LabelError, match="Elements.txt, line 1, .*found '-3', expected -1 to 1"):
        read_aadb(scores)


@pytest.mark.parametrize("nested", [False, True])
def test_aadb_mat(tmp_path, nested):
    scipy_io = pytest.importorskip("scipy.io")
    cells = np.empty((1, 2), dtype=object)
    for k, name in enumerate(["a.jpg", "b.jpg"]):
        cells[0, k] = np.array([[np.array([name])]], dtype=object) if nested else np.array([name])
    content = {"trainNameList": cells, "trainScore": np.array([[0.5, 1.0]])}
    test_cells = np.empty((1, 1), dtype=object)
    test_cells[0, 0] = np.array(["c.jpg"])
    content |= {"testNameList": test_cells, "testScore": np.array([[0.25]])}
    scipy_io.savemat(tmp_path / "AADBinfo.mat", content)
    table = read_aadb(tmp_path / "AADBinfo.mat")
    assert table["image"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert table["split"].tolist() == ["train", "train", "test"]
    assert table["score"].tolist() == [0.5, 1.0, 0.25]


@fast
@given(st.binary(max_size=300))
def test_a_damaged_mat_is_a_label_error(tmp_path, noise):
    path = tmp_path / "AADBinfo.mat"
    path.write_bytes(noise)
    with pytest.raises(LabelError, match="AADBinfo.mat: cannot be read as AADBinfo.mat"):
        read_aadb(path)
