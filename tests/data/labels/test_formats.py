import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

from eat.data.labels.own_table import read_table
from eat.data.labels.readers import (
    read_aadb,
    read_ava,
    read_flickr_aes,
    read_icaa17k,
    read_names,
    read_para,
    read_spaq,
    read_tad66k,
)
from eat.data.labels.table import LabelError, LabelWarning, vote_columns

AVA_HEADER = "image_id,score2,score3,score4,score5,score6,score7,score8,score9,score10,score11"
AVA_HEADER += ",tag1,tag2,tag3"
PARA_BINS = ",".join(f"aestheticScore_{k / 2:.1f}" for k in range(2, 11))
OWN_VOTES = "image," + ",".join(f"votes_{k}" for k in range(1, 11))

# per format: reader, file name, header (None without one), separator, rows, the numeric fields
FORMATS = {
    "AVA.txt": (read_ava, "AVA.txt", None, " ", [
        "1 953619 0 1 5 17 38 36 15 6 5 1 1 22 1396",
        "2 953958 10 7 15 26 26 21 10 8 1 2 15 21 1396",
        "3 954184 0 0 4 8 41 56 10 3 4 0 0 0 1396",
        "4 954113 0 1 4 6 48 37 23 5 2 2 15 21 1396",
    ], range(15)),
    "AVA.csv": (read_ava, "val.csv", AVA_HEADER, ",", [
        "591979,0,1,2,13,45,44,16,0,1,1,15,28,738",
        "303746,8,11,28,59,70,65,22,16,5,3,1,12,459",
        "510982,5,10,31,56,51,31,16,8,1,3,12,0,682",
    ], range(14)),
    "TAD66K": (read_tad66k, "train.csv", "image,score", ",", [
        "lanphere54810922.jpg,2.85", "43751877@N085618633908.jpg,2.21", "é.jpg,7.92",
    ], [1]),
    "FLICKR-AES ratings": (read_flickr_aes, "ratings.csv", " worker, imagePair, score", ",", [
        "A1,a.jpg,5", "A1,b.jpg,1", "A2,a.jpg,3", "A2,c.jpg,4",
    ], [2]),
    "FLICKR-AES scores": (read_flickr_aes, "score.txt", None, " ", [
        "a.jpg 0.92", " b.jpg 0.55", "c.jpg 1.00",
    ], [1]),
    "AADB": (read_aadb, "imgListTrainRegression_score.txt", None, " ", [
        "a_b.jpg 0.51", "b_b.jpg 0.85", "c_b.jpg 0.05",
    ], [1]),
    "ICAA17K": (read_icaa17k, "1train.csv", "ID,color,MOS,probability", ",", [
        "x/a_b/1.jpg,6.41,4.64,0.66", "x/a_b/2.jpg,5.59,5.18,0.75", "y/c/1.jpg,5.97,6.76,0.7",
    ], [1, 2, 3]),
    "SPAQ": (read_spaq, "spaqTest.csv", "image_id,MOS,Brightness,Contrast", ",", [
        "10001.jpg,6.1,4.21,6.16", "10002.jpg,6.12,5.26,6.08", "10003.jpg,4.06,3.92,4.94",
    ], [1, 2, 3]),
    "PARA": (read_para, "PARA-GiaaTest.csv",
             f"imageName,sessionId,semantic,{PARA_BINS},aestheticScore_mean", ",", [
        "iaa_1_.jpg,session1,animal,0,0,1,2,9,7,5,1,0,3.32",
        "iaa_2_.jpg,session1,food,0,3,5,7,5,3,1,1,0,2.64",
        "iaa_2_.jpg,session2,food,0,3,5,7,5,3,1,1,0,2.64",
    ], range(3, 13)),
    "own scores": (read_table, "own.csv", "path,split,MOS", ",", [
        "a/1.jpg,train,5.5", "a/2.jpg,test,1.25", "b/1.jpg,val,10",
    ], [2]),
    "own votes": (read_table, "votes.csv", OWN_VOTES, ",", [
        "a.jpg,0,0,1,2,3,4,2,1,0,0", "b.jpg,9,0,0,0,0,0,0,0,0,1", "c.jpg,0,0,0,0,0,0,0,0,0,1",
    ], range(1, 11)),
}  # fmt: skip
NOT_NUMBERS = ["", "x", "nan", "NaN", "inf", "-inf", "1e999", "--", "1,5", "1 5", "五", "#N/A", '"']

formats = st.sampled_from(sorted(FORMATS))
fast = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("labels")


def lines_of(name):
    """The lines of a sound file, and how many of them are header."""
    _, _, header, _, rows, _ = FORMATS[name]
    return ([header] if header else []) + rows, int(header is not None)


def read(folder, name, content):
    reader, file, *_ = FORMATS[name]
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return reader(path)


def sound(folder, name):
    return read(folder, name, "\n".join(lines_of(name)[0]) + "\n")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_gives_the_canonical_table(folder, name):
    table = sound(folder, name)
    assert len(table) == len(FORMATS[name][4])
    assert {"image", "split", "score"} <= set(table.columns)
    assert table["score"].dtype == np.float64 and table["score"].notna().all()
    assert pd.api.types.is_string_dtype(table["image"])
    assert all(table[column].dtype == np.float64 for column in vote_columns(table))
    assert table.index.equals(pd.RangeIndex(len(table)))
    assert not table["image"].str.contains(r"^\s|\s$").any()


@fast
@given(formats, st.data())
def test_line_ends_blank_lines_and_byte_order_mark_change_nothing(folder, name, data):
    lines, _ = lines_of(name)
    expected = sound(folder, name)
    for at in data.draw(st.lists(st.integers(0, len(lines)), max_size=3)):
        lines.insert(at, data.draw(st.sampled_from(["", "  ", "\t"])))
    end = data.draw(st.sampled_from(["\n", "\r\n", "\r"]))
    mark = data.draw(st.sampled_from(["", "\ufeff"]))
    assert_frame_equal(read(folder, name, mark + end.join(lines) + end), expected)


@fast
@given(formats, st.data())
def test_blanks_round_fields_change_nothing(folder, name, data):
    lines, _ = lines_of(name)
    expected = sound(folder, name)
    separator = FORMATS[name][3]
    padded = [separator.join(f"  {field} " for field in line.split(separator)) for line in lines]
    assert_frame_equal(read(folder, name, "\n".join(padded) + "\n"), expected)


@fast
@given(formats, st.data())
def test_a_bad_number_names_file_and_line(folder, name, data):
    lines, skip = lines_of(name)
    _, file, _, separator, rows, numeric = FORMATS[name]
    row = data.draw(st.integers(0, len(rows) - 1))
    column = data.draw(st.sampled_from(list(numeric)))
    fields = lines[skip + row].strip().split(separator)
    fields[column] = data.draw(st.sampled_from(NOT_NUMBERS))
    lines[skip + row] = separator.join(fields)
    with pytest.raises(LabelError, match=rf"{re.escape(file)}, line {skip + row + 1}\b"):
        read(folder, name, "\n".join(lines) + "\n")


@fast
@given(formats, st.data())
def test_a_missing_or_extra_field_names_file_and_line(folder, name, data):
    lines, skip = lines_of(name)
    _, file, _, separator, rows, _ = FORMATS[name]
    row = data.draw(st.integers(0, len(rows) - 1))
    fields = lines[skip + row].strip().split(separator)
    if data.draw(st.booleans()):
        fields.insert(data.draw(st.integers(0, len(fields))), "7")
    else:
        fields.pop(data.draw(st.integers(0, len(fields) - 1)))
    lines[skip + row] = separator.join(fields)
    with pytest.raises(LabelError, match=rf"{re.escape(file)}, line {skip + row + 1}: found \d+"):
        read(folder, name, "\n".join(lines) + "\n")


@fast
@given(formats, st.data())
def test_swapped_columns_are_found_by_name_or_refused(folder, name, data):
    """A header moves with its column; names in place of numbers are refused."""
    _, file, header, separator, rows, _ = FORMATS[name]
    lines, _ = lines_of(name)
    grid = [line.strip().split(separator) for line in lines]
    order = data.draw(st.permutations(range(len(grid[0]))))
    swapped = "\n".join(separator.join(row[k] for k in order) for row in grid) + "\n"
    expected = sound(folder, name)
    if header:
        assert_frame_equal(read(folder, name, swapped), expected, check_like=True)
    else:
        try:
            assert len(read(folder, name, swapped)) == len(rows)
        except LabelError as error:
            assert file in str(error)


@fast
@given(formats, st.data())
def test_a_missing_column_is_refused_or_unused(folder, name, data):
    _, file, header, separator, rows, _ = FORMATS[name]
    lines, _ = lines_of(name)
    grid = [line.strip().split(separator) for line in lines]
    gone = data.draw(st.integers(0, len(grid[0]) - 1))
    text = "\n".join(separator.join(row[:gone] + row[gone + 1 :]) for row in grid) + "\n"
    expected = sound(folder, name)
    try:
        table = read(folder, name, text)
    except LabelError as error:
        assert file in str(error) and "line" in str(error)
    else:
        assert len(table) == len(expected)
        assert table["image"].equals(expected["image"])
        np.testing.assert_allclose(table["score"], expected["score"], atol=0.02)


@fast
@given(formats, st.data())
def test_a_wrong_encoding_names_file_and_line(folder, name, data):
    lines, skip = lines_of(name)
    row = data.draw(st.integers(0, len(lines) - 1))
    encoded = [line.encode() for line in lines]
    encoded[row] += data.draw(st.sampled_from([b"\xff", b"\xe9", b"\x00"]))
    with pytest.raises(LabelError, match=f"{re.escape(FORMATS[name][1])}, line {row + 1}: .*UTF-8"):
        read(folder, name, b"\n".join(encoded) + b"\n")
    with pytest.raises(LabelError, match="line 1: .*UTF-8"):
        read(folder, name, "\n".join(lines).encode("utf-16"))


@fast
@given(formats, st.data())
def test_a_cut_file_is_refused_or_warned_of(folder, name, data):
    lines, skip = lines_of(name)
    content = ("\n".join(lines) + "\n").encode()
    cut = content[: data.draw(st.integers(0, len(content) - 1))]
    expected = sound(folder, name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            table = read(folder, name, cut)
        except LabelError as error:
            assert FORMATS[name][1] in str(error)
            return
    left = len([line for line in cut.split(b"\n") if line.strip()]) - skip
    assert len(table) == left
    whole = cut.endswith(b"\n")
    assert any(w.category is LabelWarning and "cut" in str(w.message) for w in caught) is not whole
    sure = left if whole else left - 1
    assert_frame_equal(table[:sure], expected[:sure])


@fast
@given(formats, st.binary(max_size=60), st.data())
def test_no_content_raises_anything_but_a_label_error(folder, name, noise, data):
    lines, _ = lines_of(name)
    content = ("\n".join(lines) + "\n").encode()
    at = data.draw(st.integers(0, len(content)))
    until = data.draw(st.integers(at, len(content)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LabelWarning)
        try:
            read(folder, name, content[:at] + noise + content[until:])
        except LabelError as error:
            assert FORMATS[name][1] in str(error)


@pytest.mark.parametrize("content", ["", "\n \n", '""\n'])
def test_an_empty_file_is_refused(folder, content):
    with pytest.raises(LabelError, match="TAD66K.csv: (the file is empty|found only blank lines)"):
        path = folder / "TAD66K.csv"
        path.write_text(content)
        read_tad66k(path)


def test_a_header_without_rows_and_an_absent_file_are_refused(folder):
    with pytest.raises(LabelError, match="found no rows"):
        read(folder, "TAD66K", "image,score\n")
    with pytest.raises(LabelError, match="absent.csv: cannot be read"):
        read_tad66k(folder / "absent.csv")
    with pytest.raises(LabelError, match="cannot be read"):
        read_tad66k(folder)


def test_quotes(folder):
    table = read(folder, "TAD66K", 'image,score\n"a, b.jpg","3"\nc.jpg,4\n')
    assert table["image"].tolist() == ["a, b.jpg", "c.jpg"]
    with pytest.raises(LabelError, match="train.csv, line 3: .*quotes"):
        read(folder, "TAD66K", 'image,score\na.jpg,3\n"c.jpg,4\nd.jpg,5\n')


def test_ava_scores_are_mean_votes(folder):
    table = sound(folder, "AVA.txt")
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


def test_ava_names_lie_beside_or_are_given(tmp_path):
    (tmp_path / "AVA.txt").write_text("\n".join(FORMATS["AVA.txt"][4]) + "\n")
    (tmp_path / "tags.txt").write_text("1 Abstract\n21 Fish Eye\n")
    (tmp_path / "other.txt").write_text("1396 100_Meters\n")
    table = read_ava(tmp_path / "AVA.txt", challenges=tmp_path / "other.txt")
    assert table["tag1"].tolist() == ["Abstract", "15", "", "15"]
    assert table["tag2"].tolist() == ["22", "Fish Eye", "", "Fish Eye"]
    assert set(table["challenge"]) == {"100_Meters"}
    with pytest.raises(LabelError, match="no.txt: cannot be read"):
        read_ava(tmp_path / "AVA.txt", tags=tmp_path / "no.txt")
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
def test_ava_refuses(folder, old, new, message):
    text = "\n".join(FORMATS["AVA.txt"][4]) + "\n"
    assert old in text
    with pytest.raises(LabelError, match="AVA.txt.*" + message):
        read(folder, "AVA.txt", text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("TAD66K", "image,score\na.jpg,11\n", "line 2, column score: found '11.0', expected 1 to"),
        ("TAD66K", "image,score\na.jpg,2\n,3\n", "line 3, column image: found '', expected a name"),
        ("TAD66K", "image,MOS\na.jpg,2\n", "line 1: no column score; found image, MOS"),
        ("TAD66K", "image,score,score\na.jpg,2,3\n", "line 1, column score: found it more than"),
        ("TAD66K", "image;score\na.jpg;2\n", "no column image; found image;score"),
        ("AADB", "a.jpg 1.5\n", "line 1, column score: found '1.5', expected 0 to 1"),
        ("SPAQ", "image_id,MOS\na.jpg,55\n", "line 2, column MOS: found '55', expected 0 to 10"),
        ("FLICKR-AES scores", "a.jpg 4\n", "line 1, column score: found '4', expected 0 to 1"),
        ("PARA", f"imageName,sessionId,{PARA_BINS}\n,s1{',1' * 9}\n", "line 2, column imageName"),
        ("own scores", "path,MOS,mos\na.jpg,2,3\n", "line 1, column mos: found MOS and mos"),
        ("own scores", "path,split,mos\na.jpg,dev,3\n", "line 2, column split: found 'dev'"),
        ("own scores", "path,mos\na.jpg,0.4\n", "line 2, column score: .*rescale"),
        ("own scores", "photo,mos\na.jpg,4\n", "no column image or image_id or path"),
        ("own scores", f"{AVA_HEADER}\n1{',1' * 13}\n", "no column score .*read it as 'ava'"),
        ("own votes", "image,votes_1,votes_2\na.jpg,4,1\n", "line 1: no column votes_3"),
    ],
)
def test_messages(folder, name, text, message):
    with pytest.raises(LabelError, match=re.escape(FORMATS[name][1]) + ".*" + message):
        read(folder, name, text)


def test_tad66k_theme_comes_from_the_unmerged_folder(tmp_path):
    path = tmp_path / "unmerge" / "train" / "citysky.csv"
    path.parent.mkdir(parents=True)
    path.write_text("image,score\r\na.jpg,3.0\r\n")
    assert read_tad66k(path)["theme"].tolist() == ["citysky"]


def test_flickr_aes_workers(folder, tmp_path):
    table = sound(folder, "FLICKR-AES ratings")
    assert table[["image", "worker", "score"]].values.tolist()[1] == ["b.jpg", "A1", 1.0]
    (tmp_path / "ratings.csv").write_text("worker,imagePair,score\nA1,a.jpg,5\nA2,a.jpg,3\n")
    (tmp_path / "test_workers_ID.csv").write_text("ID\nA2\n")
    assert read_flickr_aes(tmp_path / "ratings.csv")["split"].tolist() == ["train", "test"]


def test_repeated_ratings_become_their_mean_with_a_warning(folder):
    text = "worker,imagePair,score\nA1,a.jpg,5\nA1,b.jpg,2\nA1,a.jpg,2\n"
    with pytest.warns(LabelWarning, match="1 ratings repeat .* such as a.jpg"):
        table = read(folder, "FLICKR-AES ratings", text)
    assert table["score"].tolist() == [3.5, 2.0]


def test_flickr_aes_score_file_is_scaled_by_5(folder):
    table = sound(folder, "FLICKR-AES scores")
    assert table["image"].tolist() == ["a.jpg", "b.jpg", "c.jpg"]
    assert table["score"].tolist() == pytest.approx([4.6, 2.75, 5.0])


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
def test_a_damaged_mat_is_a_label_error(folder, noise):
    path = folder / "AADBinfo.mat"
    path.write_bytes(noise)
    with pytest.raises(LabelError, match="AADBinfo.mat: cannot be read as AADBinfo.mat"):
        read_aadb(path)


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


@pytest.mark.parametrize(
    ("reader", "file", "function", "package"),
    [
        (read_spaq, "a.xlsx", "read_excel", "openpyxl"),
        (read_table, "a.parquet", "read_parquet", "pyarrow"),
    ],
)
def test_typed_files_need_a_package(tmp_path, monkeypatch, reader, file, function, package):
    def absent(path):
        raise ImportError(package)

    def damaged(path):
        raise KeyError("no such part")

    (tmp_path / file).write_bytes(b"content")
    monkeypatch.setattr(pd, function, absent)
    with pytest.raises(LabelError, match=f"{file}: .* needs {package}; run pip install {package}"):
        reader(tmp_path / file)
    monkeypatch.setattr(pd, function, damaged)
    with pytest.raises(LabelError, match=f"{file}: cannot be read"):
        reader(tmp_path / file)


def test_para_bins_ratings_and_scene(folder, tmp_path):
    table = sound(folder, "PARA")
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


def test_own_columns_are_kept_as_they_are(tmp_path):
    (tmp_path / "a.csv").write_text(
        "ISO speed,Filename,Mean,camera,Split\n100,a.jpg,5,X,train\n,b.jpg,6,,Test\n"
    )
    table = read_table(tmp_path / "a.csv")
    assert table.columns.tolist() == ["image", "split", "score", "ISO speed", "camera"]
    assert table["split"].tolist() == ["train", "test"]
    assert table["camera"].tolist() == ["X", ""]
    assert table["ISO speed"][0] == 100 and np.isnan(table["ISO speed"][1])


def test_own_votes_may_be_named_1_to_10(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("image," + ",".join(map(str, range(1, 11))) + "\na.jpg" + ",1" * 10 + "\n")
    table = read_table(path)
    assert table["score"].tolist() == [5.5]
    assert len(vote_columns(table)) == 10


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "a.jpg", "mos": 5, "flash": true}\n\n{"mos": "6", "image": "b"}\n')
    table = read_table(path)
    assert table["score"].tolist() == [5.0, 6.0]
    for bad in ("[1]", '{"image": "c", "mos": [1]}', '{"image": "c"', "[" * 10**5):
        path.write_text('{"image": "a.jpg", "mos": 5}\n' + bad + "\n")
        with pytest.raises(LabelError, match="a.jsonl, line 2: .*one JSON object"):
            read_table(path)
    path.write_text('{"image": "a.jpg", "mos": 5}\n\n{"image": "b.jpg"}\n')
    with pytest.raises(LabelError, match="a.jsonl, line 3, column mos"):
        read_table(path)


def test_parquet(tmp_path, monkeypatch):
    frame = pd.DataFrame({"image": ["a.jpg", "b.jpg"], "score": [5.0, 6.5], "iso": [100, 200]})
    path = tmp_path / "a.parquet"
    path.write_bytes(b"content")
    monkeypatch.setattr(pd, "read_parquet", lambda path: frame.copy())
    table = read_table(path)
    assert table["score"].tolist() == [5.0, 6.5] and table["iso"].tolist() == [100, 200]


@fast
@given(
    st.lists(
        st.tuples(
            st.from_regex(r"[a-zé][a-z _/]{0,8}[a-z]\.jpg", fullmatch=True),
            st.floats(1, 10),
            st.sampled_from(["train", "val", "test", ""]),
        ),
        min_size=1,
        unique_by=lambda row: row[0],
    )
)
def test_own_table_round_trip(folder, rows):
    frame = pd.DataFrame(rows, columns=["image", "score", "split"])
    frame.to_csv(folder / "round.csv", index=False)
    table = read_table(folder / "round.csv")
    assert table["image"].tolist() == frame["image"].tolist()
    assert table["split"].tolist() == frame["split"].tolist()
    np.testing.assert_allclose(table["score"], frame["score"], rtol=1e-14)
    table.to_csv(folder / "again.csv", index=False)
    assert_frame_equal(read_table(folder / "again.csv"), table)


def test_published_names(labels):
    tags = read_names(labels / "ava" / "tags.txt")
    assert len(tags) == 66 and tags[63] == "Fish Eye"
    assert len(read_names(labels / "ava" / "challenges.txt")) == 1398


@pytest.mark.parametrize(
    ("reader", "file", "rows"),
    [
        (read_ava, "ava/val.csv", 12775),
        (read_ava, "ava/test.csv", 12776),
        (read_tad66k, "tad66k/merge/train.csv", 52248),
        (read_tad66k, "tad66k/merge/test.csv", 14079),
        (read_tad66k, "tad66k/unmerge/train/citysky.csv", 937),
        (read_tad66k, "tad66k/unmerge/test/citysky.csv", 250),
        (read_icaa17k, "icaa17k/1train.csv", 15734),
        (read_icaa17k, "icaa17k/1test.csv", 1617),
        (read_spaq, "spaq/spaqTrain.csv", 10000),
        (read_spaq, "spaq/spaqTest.csv", 1125),
        (read_aadb, "aadb/AADBinfo.mat", 9458),
    ],
)
def test_published_counts(labels, reader, file, rows):
    assert len(reader(labels / file)) == rows
