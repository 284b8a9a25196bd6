"""Tests of the routes; they stay out of the image (.dockerignore)."""

import pathlib

from catalog.app import make_app


def test_items():
    client = make_app(str(pathlib.Path(__file__).parent.parent)).test_client()
    assert [item["id"] for item in client.get("/items?q=rope").json] == [2]
    assert client.get("/items/9").status_code == 404
