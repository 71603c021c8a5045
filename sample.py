"""Sample images from a prior: `python sample.py --help`."""

import sys

from genstack.cli.main import main

if __name__ == "__main__":
    sys.exit(main(["sample", *sys.argv[1:]]))
