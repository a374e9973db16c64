"""A server that speaks S3, on this machine: moto's, which keeps objects in memory."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import Iterator

import pytest


@contextlib.contextmanager
def s3_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield the URI of an empty bucket; this process and those that it starts find the server by its environment."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "anyone",
        "AWS_SECRET_ACCESS_KEY": "anything",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{uuid.uuid4().hex[:8]}"  # moto's servers of one process share what they keep
    _make_bucket(f"{host}:{port}", bucket)
    yield f"s3://{bucket}"
    server.stop()


def _make_bucket(address: str, bucket: str) -> None:
    from pyarrow.fs import S3FileSystem

    S3FileSystem(allow_bucket_creation=True, endpoint_override=address, scheme="http").create_dir(bucket)
