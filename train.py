"""Train a compressor or a prior: `python train.py compressor --help`."""

import sys

from genstack.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
