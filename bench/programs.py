"""How programs of this project are begun by others; apart, because it must import nothing that they do."""

from __future__ import annotations

import sys


def interruptible(module: str) -> list[str]:
    """A command that runs the `main` of a module and heeds SIGINT, even if begun by a program that ignores it, as what
    a shell starts in the background does."""
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    return [sys.executable, "-c", f"{heed}; import sys; from {module} import main; sys.exit(main())"]
