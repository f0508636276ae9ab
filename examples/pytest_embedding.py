"""A file server inside a test: a real one, on a free port, gone when the test is through.

    pytest pytest_embedding.py          (callfs.py must be importable: beside this file, installed, or in PYTHONPATH)
"""
import urllib.request

import pytest

import callfs


@pytest.fixture
def server(tmp_path):
    """A callfs of its own for each test: its files are below `tmp_path`, `url` and `key` say how to reach it."""
    with callfs.Server(root=tmp_path) as running:
        yield running


@pytest.fixture
def client(server):
    """A signed-in client."""
    with callfs.Client(server.url, server.key) as signed_in:
        yield signed_in


def test_upload_and_download(client):
    client.upload("/reports/today.txt", b"all is well")
    assert client.download("/reports/today.txt") == b"all is well"


def test_what_the_program_under_test_sees(server, tmp_path):
    """Prepare files in the folder, let the program under test fetch them by HTTP."""
    (tmp_path / "input.csv").write_bytes(b"a,b\n1,2\n")
    request = urllib.request.Request(server.url + "/v1/files/input.csv", headers={"Authorization": "Bearer " + server.key})
    with urllib.request.urlopen(request) as answer:
        assert answer.read() == b"a,b\n1,2\n"


def test_errors_are_exceptions(server, client):
    with pytest.raises(callfs.FileNotFound):
        client.download("/nothing/here")
    with callfs.Client(server.url, "not-the-right-key") as stranger, pytest.raises(callfs.AuthenticationFailed):
        stranger.download("/input.csv")


def test_two_servers_side_by_side(tmp_path):
    with callfs.Server(root=tmp_path / "one") as one, callfs.Server(root=tmp_path / "two") as two:
        with callfs.Client(one.url, one.key) as client:
            client.upload("/only-here.txt", b"1")
        with callfs.Client(two.url, two.key) as client:
            assert [entry.path for entry in client.list("/")] == []
