"""Manifest, images and the run's folder in an object store: a real S3 server (moto's, in a process
of its own) behind the command line as a user runs it.
"""

import gc
import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pyarrow.parquet
import pytest

from nst_ops.errors import InputError
from nst_ops.images.codec import probe
from pipeline.store import files

from ..conftest import IMAGES
from .conftest import settings, write_manifest
from .test_cli import SMALL

boto3 = pytest.importorskip("boto3", reason="needs the dev extras")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of an S3 server."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    log = tmp_path_factory.mktemp("moto") / "log"
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            for _ in range(300):
                try:
                    urllib.request.urlopen(f"{url}/moto-api", timeout=10).close()
                    break
                except OSError:
                    assert process.poll() is None, log.read_text()
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def store(server):
    """A client whose bucket `night` has a manifest, photos and a painting."""
    client = boto3.client("s3", **credentials(server))
    client.create_bucket(Bucket="night")
    for name, key in (
        ("rocket", "photos/rocket.jpg"),
        ("cat", "photos/[1] c t?.jpg"),
        ("cafe_terrace_at_night", "paintings/cafe.jpg"),
    ):
        client.put_object(Bucket="night", Key=key, Body=(IMAGES / f"{name}.jpg").read_bytes())
    manifest = (
        "content,style,output\n"
        "../photos/rocket.jpg,../paintings/cafe.jpg,deep/er/rocket\n"
        "s3://night/photos/[1] c t?.jpg,s3://night/paintings/cafe.jpg,größe 1\n"
    )
    client.put_object(Bucket="night", Key="lists/m.csv", Body=manifest.encode())
    return client


def credentials(server):
    return {
        "endpoint_url": server,
        "aws_access_key_id": "nobody",
        "aws_secret_access_key": "nothing",
        "region_name": "us-east-1",
    }


def beam_options(server):
    options = {"s3_" + key.removeprefix("aws_"): v for key, v in credentials(server).items()}
    return [f"--{key}={value}" for key, value in options.items()]


@pytest.fixture
def here(server, store, monkeypatch):
    """Lets this very process see the server, by the environment's variables."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")


def keys(store, prefix=""):
    found = store.list_objects_v2(Bucket="night", Prefix=prefix).get("Contents", [])
    return [entry["Key"] for entry in found]


def body(store, key):
    return store.get_object(Bucket="night", Key=key)["Body"].read()


def nst(*arguments, env=None):
    command = [sys.executable, "-m", "pipeline.cli.main", *map(str, arguments)]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    clean |= {"AWS_EC2_METADATA_DISABLED": "true"}
    clean |= {f"AWS_{kind}_FILE": "/dev/null" for kind in ("CONFIG", "SHARED_CREDENTIALS")}
    clean |= env or {}
    return subprocess.run(command, capture_output=True, text=True, env=clean, timeout=100)


def summaries(store, folder):
    found = [key for key in keys(store, f"{folder}/runs/") if key.endswith("/summary.json")]
    return [json.loads(body(store, key)) for key in found]


def test_run_from_and_to_a_store_and_again(server, store):
    command = ["run", "--manifest", "s3://night/lists/m.csv", "--output", "s3://night/out", *SMALL]
    first = nst(*command, *beam_options(server))
    assert first.returncode == 0, first.stderr
    (summary,) = summaries(store, "out")
    record = f"out/runs/{summary['run_id']}"
    assert {f"{record}/{name}" for name in ("config.yaml", "summary.json", "_SUCCESS")} <= set(
        keys(store, record)
    )
    pictures = keys(store, "out/images/")
    assert pictures == ["out/images/deep/er/rocket.png", "out/images/größe 1.png"]
    parts = keys(store, f"out/metadata/run_id={summary['run_id']}/")
    assert len(parts) == 2  # and none of Beam's temporary files
    files = [pyarrow.parquet.ParquetFile(io.BytesIO(body(store, part))) for part in parts]
    rows = [row for file in files for row in file.read().to_pylist()]
    assert [row["status"] for row in rows] == ["ok", "ok"]
    for row in rows:
        header = probe(body(store, f"out/images/{row['output']}"))
        assert header.size == (row["height"], row["width"])
        assert header.provenance["spec_hash"] == row["spec_hash"]
    assert not store.list_multipart_uploads(Bucket="night").get("Uploads")

    made = {key: store.head_object(Bucket="night", Key=key)["LastModified"] for key in pictures}
    more = body(store, "lists/m.csv") + b"../photos/gone.jpg,../paintings/cafe.jpg,gone\n"
    store.put_object(Bucket="night", Key="lists/more.csv", Body=more)
    command[2] = "s3://night/lists/more.csv"
    # Processes of their own, which must be told where the store is.
    again = nst(*command, "--set", "parallelism=2", *beam_options(server))
    assert again.returncode == 3, again.stderr
    assert "line 4: s3://night/photos/gone.jpg: cannot be read (Not found" in again.stderr
    assert sorted((s["ok"], s["cached"], s["failed"]) for s in summaries(store, "out")) == [
        (0, 2, 1),
        (2, 0, 0),
    ]
    assert made == {key: store.head_object(Bucket="night", Key=key)["LastModified"] for key in made}


@pytest.mark.parametrize(
    ("manifest", "output", "endpoint", "message"),
    [
        ("s3://night/lists/gone.csv", "s3://night/no", None, "s3://night/lists/gone.csv: cannot"),
        ("s3://nowhere/m.csv", "s3://night/no", None, "s3://nowhere/m.csv: no bucket 'nowhere'"),
        ("s3://night/lists/m.csv", "s3://nowhere/no", None, "s3://nowhere/no: no bucket"),
        ("s3://night/lists/m.csv", "s3://night/no", "http://127.0.0.1:9", "connect to the endp"),
        ("s3://night/lists/m.csv", "s3://night/no", "", "Unable to locate credentials"),
    ],
)
def test_what_is_not_there_starts_nothing(server, store, manifest, output, endpoint, message):
    options = beam_options(server) if endpoint is None else []
    if endpoint:
        options = beam_options(endpoint)
    done = nst("run", "--manifest", manifest, "--output", output, *SMALL, *options)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not keys(store, "no/")


def test_other_commands_take_the_environments_endpoint(server, store):
    env = {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "nobody",
        "AWS_SECRET_ACCESS_KEY": "nothing",
    }
    manifest = "s3://night/lists/m.csv"
    done = nst("validate", "--manifest", manifest, "--speed", "none", *SMALL, env=env)
    assert done.returncode == 0 and "2 rows" in done.stdout, done.stdout + done.stderr
    summary = b'{"run_id": "r1", "ok": 5, "cached": 0, "failed": 0, "deferred": 0, "stopped": ""}'
    store.put_object(Bucket="night", Key="old/runs/r1/summary.json", Body=summary)
    done = nst("runs", "s3://night/old", env=env)
    assert done.returncode == 0 and "r1" in done.stdout and "5 ok" in done.stdout, done.stderr
    done = nst("runs", "s3://nowhere/old", env=env)
    assert done.returncode == 2 and "no bucket 'nowhere'" in done.stderr


def test_files_in_a_store(here):
    url = "s3://night/files [1]/a/b*.bin"
    for size in (1, 6_000_000):  # one part, and more than the 5 MB of a part
        data = os.urandom(size)
        files.write(url, data)
        assert files.exists(url) and files.read(url, size) == data
        with pytest.raises(InputError, match="max_file_bytes"):
            files.read(url, size - 1)
    files.write("s3://night/files [1]/z", b"z")
    files.write("s3://night/files 1/a/other.bin", b"z")
    assert files.listing("s3://night/files [1]", "*/*.bin") == ["a/b*.bin"]
    assert files.listing("s3://night/files [1]/", "*") == ["z"]
    assert files.listing("s3://night/none", "*") == []
    assert not files.exists("s3://night/files")


def test_an_empty_object_is_read(here, store):
    store.put_object(Bucket="night", Key="empty", Body=b"")
    assert files.read("s3://night/empty", 10) == b""


def test_a_failed_put_leaves_the_old_object(here, store, monkeypatch):
    from apache_beam.io.aws.clients.s3 import boto3_client, messages

    files.write("s3://night/kept", b"old")

    def fail(client, request):
        raise messages.S3ClientError("out of luck", 507)

    with monkeypatch.context() as patch:
        patch.setattr(boto3_client.Client, "upload_part", fail)
        with pytest.raises(OSError, match="s3://night/kept") as caught:
            files.write("s3://night/kept", b"new" * 3_000_000)
    assert caught.value.strerror == "cannot be written (out of luck)"
    del caught
    gc.collect()  # which closes Beam's writer once more, with the server at hand again
    assert body(store, "kept") == b"old"
    with pytest.raises(OSError, match="NoSuchBucket"):
        files.write("s3://nowhere/x", b"x")


def test_a_store_that_does_not_answer_at_planning_costs_no_row(tmp_path, run_manifest, monkeypatch):
    def exists(path, real=files.exists):
        if "/images/" in path:
            raise InputError("cannot be looked up (503 Slow Down)", path=path)
        return real(path)

    monkeypatch.setattr(files, "exists", exists)
    manifest = write_manifest(tmp_path / "m.csv", ["rocket"])
    assert run_manifest(manifest, settings(size=48, steps=1))["ok"] == 1
