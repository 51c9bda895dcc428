import os
import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest

from eat.data.labels.reading import is_id_list, read_labels, read_ratings
from eat.data.labels.table import LabelError, LabelWarning
from eat.data.registry import DATASETS


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def ava(*ids):
    return [f"{k} {number} 0 0 0 0 1 2 3 0 0 0 0 0 7" for k, number in enumerate(ids, 1)]


def splits(table):
    return dict(zip(table["image"], table["split"], strict=True))


def test_reading_labels_needs_neither_torch_nor_scipy():
    code = (
        "import sys, types; package = types.ModuleType('eat'); package.__path__ = ['eat'];"
        "sys.modules['eat'] = package; import eat.data.labels.reading;"
        "assert not {'torch', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_list_of_ids_marks_the_split(tmp_path):
    labels = write(tmp_path / "AVA.txt", *ava(10, 11, 12, 13))
    test = write(tmp_path / "test.jpgl", "11", "", "13.jpg")
    val = write(tmp_path / "val.txt", "12")
    table = read_labels("ava", labels, test=test, val=val)
    assert splits(table) == {
        "10.jpg": "train", "11.jpg": "test", "12.jpg": "val", "13.jpg": "test",
    }  # fmt: skip
    assert set(read_labels("ava", labels)["split"]) == {""}


def test_ids_without_a_label_are_counted(tmp_path):
    labels = write(tmp_path / "AVA.txt", *ava(10, 11))
    test = write(tmp_path / "test.jpgl", "11", "77", "78", "79", "80")
    with pytest.warns(
        LabelWarning, match=r"test.jpgl: 4 of 5 ids have no label .*77, 78, 79, \.\."
    ):
        table = read_labels("ava", labels, test=test)
    assert splits(table) == {"10.jpg": "train", "11.jpg": "test"}
    write(test, "77", "78")
    with pytest.raises(LabelError, match="none of its 2 ids .*such as 10.jpg"):
        read_labels("ava", labels, test=test)
    write(test, "10", "10")
    with pytest.raises(LabelError, match=r"test.jpgl, .*10 \(lines 1, 2\)"):
        read_labels("ava", labels, test=test)


def test_two_lists_that_claim_an_image_are_refused(tmp_path):
    labels = write(tmp_path / "AVA.txt", *ava(10, 11))
    ids = write(tmp_path / "ids.jpgl", "11")
    with pytest.raises(
        LabelError, match="1 images for the test split .* split val already: 11.jpg"
    ):
        read_labels("ava", labels, test=ids, val=ids)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "endless.txt").symlink_to("/dev/zero")
    for name in ("pipe.txt", "endless.txt"):
        with pytest.raises(LabelError, match=f"{name}: cannot be read .a pipe, socket or device"):
            read_labels("ava", tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "image,score\na.jpg," + "9" * 5000 + "\n",
        "image,score\na.jpg,5" + "5" * 5000,
        "image,score,split\na.jpg,5," + "z" * 5000 + "\n",
        ("image,score\n" + ("a" * 5000 + ",5\n") * 2),
        ",".join(f"c{k}" for k in range(3000)) + "\n" + ",".join("1" * 3000) + "\n",
        "image,score," + "c" * 5000 + "," + "c" * 5000 + "\na,1,2,3\n",
    ],
)
@pytest.mark.filterwarnings("ignore::eat.data.labels.table.LabelWarning")
def test_what_a_message_quotes_is_cut(tmp_path, text):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(LabelError, match="x.csv") as raised:
        read_labels("table", tmp_path / "x.csv")
    assert len(str(raised.value)) < 500 + len(str(tmp_path))


def test_scores_of_five_stars_without_bounds_are_warned_of(tmp_path):
    labels = write(tmp_path / "own.csv", "image,score,split", "a,1,train", "b,4.5,test")
    advice = "own.csv: the scores, 1 to 4.5, .* 1..10; .* --data.low 1 --data.high 5 .*: --low and"
    with pytest.warns(LabelWarning, match=advice) as caught:
        read_labels("table", labels)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_labels("table", labels, low=1, high=5)
        read_labels("table", labels, high=10)
        write(labels, "image,score", "a,1", "b,5.5")
        read_labels("table", labels)
        write(labels, "image," + ",".join(map(str, range(1, 11))), "a" + ",1,9" * 5)
        read_labels("table", labels)
        write(labels, "image," + ",".join(map(str, range(1, 11))), "a" + ",9,1" + ",0" * 8)
        read_labels("table", labels)


def test_a_list_that_is_no_label_file(tmp_path):
    ids = write(tmp_path / "ids.jpgl", "11")
    with pytest.raises(LabelError, match="ids.jpgl, line 1: found 1 fields, expected 15"):
        read_labels("ava", ids)
    with pytest.raises(LabelError, match="found only lists of ids"):
        read_labels("ava", [], test=ids)


def test_id_lists_are_told_from_label_files(tmp_path):
    assert is_id_list(write(tmp_path / "a.jpgl", "1"))
    assert is_id_list(write(tmp_path / "a.txt", "", " my.jpg"))
    assert not is_id_list(write(tmp_path / "b.txt", "a.jpg 0.5"))
    assert is_id_list(write(tmp_path / "a.csv", "my photo.jpg"))
    assert is_id_list(write(tmp_path / "d.csv", "ID", "1"))
    assert not is_id_list(write(tmp_path / "b.csv", "image,score"))
    assert not is_id_list(tmp_path / "a.parquet")


def test_a_test_label_file_gets_the_test_split(tmp_path):
    train = write(tmp_path / "a.csv", "image,score", "a.jpg,3", "b.jpg,4")
    test = write(tmp_path / "b.csv", "image,score", "c.jpg,3")
    table = read_labels("tad66k", train, test=test)
    assert splits(table) == {"a.jpg": "train", "b.jpg": "train", "c.jpg": "test"}


def test_a_leak_is_refused_unless_allowed(tmp_path):
    train = write(tmp_path / "a.csv", "image,score", "a.jpg,3", "b.jpg,4")
    test = write(tmp_path / "b.csv", "image,score", "b.jpg,4")
    with pytest.raises(LabelError, match="1 images stand in two splits, such as b.jpg .*train and"):
        read_labels("tad66k", train, test=test)
    table = read_labels("tad66k", train, test=test, allow_overlap=True)
    assert sorted(zip(table["image"], table["split"], strict=True)) == [
        ("a.jpg", "train"), ("b.jpg", "test"), ("b.jpg", "train"),
    ]  # fmt: skip


def test_files_that_repeat_an_image_in_one_split_are_refused(tmp_path):
    paths = [write(tmp_path / f"{name}.csv", "image,score", "a.jpg,3") for name in "xy"]
    with pytest.raises(LabelError, match="x.csv, .*y.csv, column image: found 1 more than once"):
        read_labels("tad66k", paths, allow_overlap=True)


def test_a_split_column_is_kept_and_not_overruled(tmp_path):
    own = write(tmp_path / "own.csv", "image,score,split", "a.jpg,3,train", "b.jpg,4,test")
    assert splits(read_labels("table", own)) == {"a.jpg": "train", "b.jpg": "test"}
    ids = write(tmp_path / "ids.txt", "a.jpg")
    with pytest.raises(LabelError, match="in the split train already: a.jpg"):
        read_labels("table", own, test=ids)
    other = write(tmp_path / "other.csv", "image,score,split", "c.jpg,3,val")
    with pytest.raises(LabelError, match="other.csv: .*split val already"):
        read_labels("table", own, test=other)


def test_votes_in_one_file_only_are_refused(tmp_path):
    header = "image," + ",".join(map(str, range(1, 11)))
    train = write(tmp_path / "a.csv", header, "a.jpg" + ",1" * 10)
    test = write(tmp_path / "b.csv", "image,score", "b.jpg,4")
    with pytest.raises(LabelError, match="some of the files have votes and some have not"):
        read_labels("table", train, test=test)


def test_ava_folder(tmp_path):
    write(tmp_path / "AVA.txt", *ava(10, 11))
    assert set(read_labels("ava", tmp_path)["split"]) == {""}
    write(tmp_path / "generic_test.jpgl", "11")
    assert splits(read_labels("ava", tmp_path)) == {"10.jpg": "train", "11.jpg": "test"}
    mine = write(tmp_path / "mine.jpgl", "10")
    assert splits(read_labels("ava", tmp_path, test=mine)) == {"10.jpg": "test", "11.jpg": "train"}


def test_a_folder_without_labels_says_what_was_expected(tmp_path):
    with pytest.raises(LabelError, match=r"no labels of ICAA17K, expected 1train.csv\+1test.csv"):
        read_labels("icaa17k", tmp_path)


@pytest.mark.parametrize("name", DATASETS)
def test_every_folder_layout_is_read(tmp_path, name):
    """Files of every published name, with one image each."""
    para = ",".join(f"aestheticScore_{k / 2:.1f}" for k in range(2, 11))
    contents = {
        "ava": ("image_id," + ",".join(f"score{k}" for k in range(2, 12)) + ",tag1,tag2,tag3",
                "{k}" + ",1" * 13),
        "tad66k": ("image,score", "{k}.jpg,4"),
        "icaa17k": ("ID,color,MOS,probability", "a/b/{k}.jpg,4,4,0.5"),
        "spaq": ("image_id,MOS", "{k}.jpg,4"),
        "para": (f"imageName,sessionId,{para}", "{k}.jpg,s" + ",1" * 9),
        "table": ("image,score", "{k}.jpg,4"),
        "flickr_aes": (" worker, imagePair, score", "w,{k}.jpg,3"),
    }  # fmt: skip
    contents["sample"] = contents["ava"]
    read = 0
    for number, layout in enumerate(DATASETS[name].layouts):
        if any(file.rstrip("?").endswith((".mat", ".xlsx")) for file in layout.values()):
            continue
        folder = tmp_path / str(number)
        files, id_list = list(layout.values()), "generic_test.jpgl"
        for k, file in enumerate(files):
            path = folder / file.rstrip("?").replace("*", "sky")
            if file == id_list:
                write(path, "1")
            elif path.suffix == ".txt":
                write(path, *(ava(1, 2) if file == "AVA.txt" else [f"{k}.jpg 0.5"]))
            else:
                write(path, *(line.format(k=k) for line in contents[name]))
        table = read_labels(name, folder)
        assert set(table["split"]) == ({"train", "test"} if id_list in files else set(layout))
        read += 1
    assert read


@pytest.fixture
def rated(tmp_path):
    write(
        tmp_path / "FLICKR-AES_image_labeled_by_each_worker.csv",
        " worker, imagePair, score",
        *("A,a.jpg,5", "B,a.jpg,2", "A,b.jpg,1", "C,c.jpg,4"),
    )
    return tmp_path


def test_labels_are_means_over_workers(rated):
    table = read_labels("flickr_aes", rated)
    assert table.columns.tolist() == ["image", "split", "score"]
    assert dict(zip(table["image"], table["score"], strict=True)) == {
        "a.jpg": 3.5, "b.jpg": 1.0, "c.jpg": 4.0,
    }  # fmt: skip
    ratings = read_ratings("flickr_aes", rated)
    assert ratings[["image", "worker", "score"]].values.tolist()[:2] == [
        ["a.jpg", "A", 5.0],
        ["a.jpg", "B", 2.0],
    ]


def test_an_image_that_a_test_worker_rated_is_a_test_image(rated):
    write(rated / "test_workers_ID.csv", "ID", "B")
    table = read_labels("flickr_aes", rated)
    assert splits(table) == {"a.jpg": "test", "b.jpg": "train", "c.jpg": "train"}
    assert read_ratings("flickr_aes", rated)["split"].tolist() == [
        "train",
        "test",
        "train",
        "train",
    ]


def test_ratings_are_refused_where_there_are_none(rated, tmp_path):
    scores = write(tmp_path / "s.txt", "a.jpg 0.5")
    with pytest.raises(LabelError, match="s.txt: found mean scores, expected a rating and a work"):
        read_ratings("flickr_aes", scores)
    with pytest.raises(LabelError, match="no ratings of single workers for AADB"):
        read_ratings("aadb", tmp_path)


@pytest.mark.parametrize("name", ["aadb", "spaq"])
def test_a_data_set_without_published_ratings_takes_a_csv_of_them(tmp_path, name):
    path = tmp_path / "ratings.csv"
    path.write_text("worker,image,score\nx,a.jpg,0.25\ny,a.jpg,0.75\ny,b.jpg,1\n")
    table = read_ratings(name, path)
    assert table["score"].tolist() == [0.25, 0.75, 1] and table["worker"].tolist() == [*"xyy"]
    path.write_text("worker,image,score\nx,a.jpg,11\n")
    with pytest.raises(LabelError, match="ratings.csv, line 2.*11"):
        read_ratings(name, path)


def test_ratings_of_aadb_train_a_general_model_on_those_of_other_workers(tmp_path):
    path, listed = tmp_path / "ratings.csv", tmp_path / "workers.csv"
    path.write_text("worker,image,score\nx,a.jpg,0.25\ny,a.jpg,0.75\nx,b.jpg,1\n")
    listed.write_text("y\n")
    table = read_labels("aadb", path, test=listed).set_index("image")
    assert table["split"].to_dict() == {"a.jpg": "test", "b.jpg": "train"}
    assert table["score"].to_dict() == {"a.jpg": 0.5, "b.jpg": 1}


def test_own_ratings(tmp_path):
    own = write(tmp_path / "own.csv", "image,score,worker", "a.jpg,3,w", "a.jpg,4,v", "b.jpg,1,v")
    assert read_labels("table", own)["score"].tolist() == [3.5, 1.0]
    assert read_ratings("table", own)["worker"].tolist() == ["w", "v", "v"]


def test_released_ava(labels):
    table = read_labels("ava", labels / "ava")
    assert table["split"].value_counts().to_dict() == {"test": 12776, "val": 12775}
    first = table[table["image"] == "591979.jpg"].iloc[0]
    names = ["Nature", "Water", "Free_Study_2007-09"]
    assert first[["tag1", "tag2", "challenge"]].tolist() == names


def test_released_ava_holds_1959_official_test_images(labels):
    paths = [labels / "ava" / "val.csv", labels / "ava" / "test.csv"]
    with pytest.warns(LabelWarning, match="18041 of 20000 ids have no label"):
        table = read_labels("ava", paths, test=labels / "ava" / "generic_test.jpgl")
    assert (table["split"] == "test").sum() == 1959


def test_tad66k_counts_and_leak(labels):
    folder = labels / "tad66k"
    merged, themes = read_labels("tad66k", folder), read_labels("tad66k", folder / "unmerge")
    assert merged["split"].value_counts().to_dict() == DATASETS["tad66k"].counts
    assert themes["split"].value_counts().to_dict() == {"train": 52726, "test": 13601}
    assert themes["theme"].nunique() == 47
    assert (merged["score"].min(), merged["score"].max()) == (1.13, 9.46)
    train, test = folder / "unmerge" / "train", folder / "merge" / "test.csv"
    with pytest.raises(LabelError, match="478 images stand in two splits"):
        read_labels("tad66k", train, test=test)
    both = read_labels("tad66k", train, test=test, allow_overlap=True)
    leaked = both[both.duplicated("image", keep=False) & (both["split"] == "train")]
    assert leaked["theme"].value_counts().to_dict() == {"tree": 242, "flower": 236}


def test_icaa17k_counts_and_copies(labels):
    with pytest.warns(LabelWarning, match="749 of 1617 test images have the file name and the sc"):
        table = read_labels("icaa17k", labels / "icaa17k")
    assert table["split"].value_counts().to_dict() == DATASETS["icaa17k"].counts
    assert table["image"].str.rsplit("/", n=1).str[-1].nunique() == 12010


def test_other_published_counts(labels):
    aadb, spaq = read_labels("aadb", labels / "aadb"), read_labels("spaq", labels / "spaq")
    assert aadb["split"].value_counts().to_dict() == {"train": 8458, "test": 1000}
    assert spaq["split"].value_counts().to_dict() == DATASETS["spaq"].counts


def test_graded_photos_have_one_content_in_four_formats(photos):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tables = {name: read_labels(name, photos / name) for name in ("ava", "tad66k", "aadb")}
        workers = read_labels("flickr_aes", photos / "flickr_aes")
        whole = read_labels("ava", photos / "ava" / "AVA.txt")
    for table in tables.values():
        assert table["split"].value_counts().to_dict() == {"train": 360, "test": 120}
    by_image = [table.set_index("image")["score"] for table in tables.values()]
    assert by_image[0].corr(by_image[1]) > 0.99 and by_image[0].corr(by_image[2]) > 0.99
    pd.testing.assert_series_equal(
        by_image[0].sort_index(), whole.set_index("image")["score"].sort_index()
    )
    file = photos / "flickr_aes" / "FLICKR-AES_image_score.txt"
    scores = read_labels("flickr_aes", file).set_index("image")["score"]
    np.testing.assert_allclose(workers.set_index("image")["score"].loc[scores.index], scores,
                               atol=0.03)  # fmt: skip
