"""Serves the catalog: `python3 -m catalog [--port N]`."""

import argparse
import signal
import sys

import waitress

from .app import make_app


def main() -> None:
    parser = argparse.ArgumentParser(prog="catalog", description="Serves the shop's catalog.")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--data", default="/srv/catalog/data", help="the folder of items.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGINT, lambda *_: sys.exit(0))
    waitress.serve(make_app(arguments.data), host="0.0.0.0", port=arguments.port, threads=4, ident=None)


if __name__ == "__main__":
    main()
