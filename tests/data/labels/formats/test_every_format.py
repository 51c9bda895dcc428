"""Facts that hold for every format: of what is read, and of what is refused by file and line."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_files import AVA_HEADER, FORMATS, PARA_BINS, lines_of, read, sound
from pandas.testing import assert_frame_equal

from eat.data.labels.formats.aadb import read_aadb
from eat.data.labels.formats.ava import read_ava
from eat.data.labels.formats.icaa17k import read_icaa17k
from eat.data.labels.formats.own import read_table
from eat.data.labels.formats.spaq import read_spaq
from eat.data.labels.formats.tad66k import read_tad66k
from eat.data.labels.table import LabelError, LabelWarning, vote_columns

NOT_NUMBERS = ["", "x", "nan", "NaN", "inf", "-inf", "1e999", "--", "1,5", "1 5", "五", "#N/A", '"']


formats = st.sampled_from(sorted(FORMATS))
fast = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """For files that each test writes anew."""
    return tmp_path_factory.mktemp("labels")


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
        ("own scores", "path,mos\na.jpg,0.4\n", "line 2, column score: .*--data.low and"),
        ("own scores", "photo,mos\na.jpg,4\n", "no column image or image_id or path"),
        ("own scores", f"{AVA_HEADER}\n1{',1' * 13}\n", "no column score .*read it as 'ava'"),
        ("own votes", "image,votes_1,votes_2\na.jpg,4,1\n", "line 1: no column votes_3"),
    ],
)
def test_messages(folder, name, text, message):
    with pytest.raises(LabelError, match=re.escape(FORMATS[name][1]) + ".*" + message):
        read(folder, name, text)


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
