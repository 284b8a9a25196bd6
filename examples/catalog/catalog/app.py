"""The application: routes and the file they answer from."""

import json
import os
import pathlib

from flask import Flask, abort, jsonify, request


def make_app(folder: str) -> Flask:
    app = Flask("catalog")
    items = {item["id"]: item for item in json.loads((pathlib.Path(folder) / "items.json").read_text("utf-8"))}

    @app.get("/health")
    def health():
        return jsonify(status="ok", release=os.environ.get("CATALOG_RELEASE", "dev"), uid=os.getuid())

    @app.get("/items")
    def list_items():
        wanted = request.args.get("q", "").casefold()
        return jsonify([item for item in items.values() if wanted in item["name"].casefold()])

    @app.get("/items/<int:number>")
    def one_item(number: int):
        return jsonify(items[number]) if number in items else abort(404)

    @app.errorhandler(404)
    def missing(_error):
        return jsonify(error="no such item"), 404

    return app
