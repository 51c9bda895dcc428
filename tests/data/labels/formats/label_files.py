"""A small sound file of every format, as lines."""

from functools import cache

from eat.data.labels.formats.aadb import read_aadb
from eat.data.labels.formats.ava import read_ava
from eat.data.labels.formats.flickr_aes import read_flickr_aes
from eat.data.labels.formats.icaa17k import read_icaa17k
from eat.data.labels.formats.own import read_table
from eat.data.labels.formats.para import read_para
from eat.data.labels.formats.spaq import read_spaq
from eat.data.labels.formats.tad66k import read_tad66k

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


def lines_of(name):
    """The lines of a sound file, and how many of them are header."""
    _, _, header, _, rows, _ = FORMATS[name]
    return ([header] if header else []) + rows, int(header is not None)


def read(folder, name, content):
    reader, file, *_ = FORMATS[name]
    path = folder / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return reader(path)


@cache
def sound(folder, name):
    return read(folder, name, "\n".join(lines_of(name)[0]) + "\n")
