"""Bulk scoring from S3 to S3: a store's server on this machine, and scores as of files."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tars import pack

from eat.bulk.places import names_in, open_place, writing_whole
from eat.cli import main
from eat.scoring import Scorer

for package in ("ray", "s3fs"):
    pytest.importorskip(package, reason="needs pip install 'eat-iaa[ray,s3]'")
moto = pytest.importorskip("moto.server", reason="needs pip install 'moto[s3,server]'")
boto3 = pytest.importorskip("boto3", reason="needs pip install 'moto[s3,server]'")


@pytest.fixture(scope="module")
def s3() -> Iterator[Any]:
    """A client of an S3 that is empty but for a bucket, as this process's variables name it."""
    server = moto.ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    _, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as variables:
        variables.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            variables.setenv(name, "test")
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket="bucket")
        yield client
    server.stop()
    fsspec.get_filesystem_class("s3").clear_instance_cache()  # which knows the port of this server


def put(client: Any, key: str, path: Path) -> None:
    client.upload_file(str(path), "bucket", key)


def versions(client: Any) -> dict[str, Any]:
    """When each file of scores was written."""
    listed = client.list_objects_v2(Bucket="bucket", Prefix="out/")["Contents"]
    return {o["Key"]: o["LastModified"] for o in listed if o["Key"].endswith(".parquet")}


@pytest.mark.long
def test_shards_in_s3_are_scored_into_s3_and_finished_ones_are_left(
    s3: Any, sample: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = sorted((sample / "images").iterdir())
    contents = {path.name: path.read_bytes() for path in images}
    for number in range(2):
        part = dict([*contents.items()][20 * number : 20 * (number + 1)])
        pack(tmp_path / "shard.tar", part | {f"broken{number}.jpg": b"no image"})
        put(s3, f"in/{number}.tar", tmp_path / "shard.tar")
    rest = [*contents.items()][40:]
    table = {"key": [Path(name).stem for name, _ in rest], "jpg": [c for _, c in rest]}
    pq.write_table(pa.table(table), tmp_path / "shard.parquet")
    put(s3, "in/2.parquet", tmp_path / "shard.parquet")

    call = ["score", "s3://bucket/in/", "--engine", "ray", "--checkpoint", str(checkpoint)]
    call += ["--out", "s3://bucket/out"]
    assert main(call) == 0
    assert "3 shards done, 0 not read" in capsys.readouterr().out
    written = versions(s3)
    assert main(call) == 0
    assert "0 shards done, 3 were there" in capsys.readouterr().out
    assert len(written) == 3 and versions(s3) == written
    assert not s3.list_multipart_uploads(Bucket="bucket").get("Uploads")

    rows = pd.concat(
        pd.read_parquet(io.BytesIO(s3.get_object(Bucket="bucket", Key=key)["Body"].read()))
        for key in written
    ).set_index("key")
    assert sorted(rows.index) == sorted([*(p.stem for p in images), "broken0", "broken1"])
    assert {*rows.index[rows["error"].notna()]} == {"broken0", "broken1"}
    for one in Scorer(checkpoint, device="cpu")(images):
        assert rows["score"][Path(one.image).stem] == pytest.approx(one.score, abs=1e-5)


@pytest.mark.usefixtures("s3")
def test_a_bucket_that_is_not_there_is_one_clear_error() -> None:
    assert names_in("s3://another/out") == set()
    with pytest.raises(FileNotFoundError, match="s3://another/a: .*bucket does not exist"):
        with writing_whole("s3://another/a") as file:
            file.write(b"content")
    with pytest.raises(FileNotFoundError, match="s3://another/a: "), open_place("s3://another/a"):
        pass
