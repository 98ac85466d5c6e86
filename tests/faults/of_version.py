"""`refrain`, as a release with another key version and other forms of sealed values would be:

python -m tests.faults.of_version KEYS PLAIN PACKED serve ...
"""

from __future__ import annotations

import sys

from cache_tiers import sealed
from gateway import cli, keys

if __name__ == "__main__":
    keys.KEY_VERSION, sealed.PLAIN, sealed.PACKED = map(int, sys.argv[1:4])
    sys.exit(cli.main(sys.argv[4:]))
