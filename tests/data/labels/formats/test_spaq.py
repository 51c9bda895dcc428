import numpy as np
import pandas as pd
import pytest

from eat.data.labels.formats.spaq import read_spaq
from eat.data.labels.table import LabelError


def test_spaq_original_is_scaled_to_0_to_10(tmp_path, monkeypatch):
    (tmp_path / "mos.csv").write_text("Image name,MOS,Brightness\n00001.jpg,48.9,47\n")
    table = read_spaq(tmp_path / "mos.csv")
    assert table["score"].tolist() == pytest.approx([4.89])
    assert table["brightness"].tolist() == pytest.approx([4.7])
    sheet = tmp_path / "MOS.xlsx"
    sheet.write_bytes(b"a sheet")
    frame = pd.DataFrame({"Image name": ["1.jpg", "2.jpg"], "MOS": [48.9, np.nan]})
    monkeypatch.setattr(pd, "read_excel", lambda path: frame[:1].copy())
    assert read_spaq(sheet)["score"].tolist() == pytest.approx([4.89])
    monkeypatch.setattr(pd, "read_excel", lambda path: frame.copy())
    with pytest.raises(LabelError, match="MOS.xlsx, row 2, column MOS: found 'nan'"):
        read_spaq(sheet)
