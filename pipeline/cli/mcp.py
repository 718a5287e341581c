"""`doit mcp`: the project as tools for an agent, over stdio or HTTP.

Knows how the server is started, not what it offers. Invariant: every lease is given back at the
end. With stdio, the SDK keeps what anybody prints away from the protocol.
"""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import Any

from pipeline.failures import fail
from pipeline.model import Failure, FailureCategory
from pipeline.run.project import STATE_DIR

TOKEN_FILE = "mcp.json"


def run(root: Path, *, http: bool, port: int) -> int | Failure:
    """Until its client goes away. Exit code, or why it cannot begin."""
    try:
        from pipeline.agent.server import make_server
    except ImportError as error:
        message = f"the package {error.name} is not installed"
        hint = "install it with: pip install 'hotplate[mcp]' (or uv sync --extra mcp)"
        return fail(FailureCategory.TOOLCHAIN_MISSING, stage=None, where="mcp", message=message, hint=hint)
    from pipeline.agent.tools import ProjectTools

    tools = ProjectTools(root)
    try:
        server = make_server(root, tools)
        if not http:
            server.run("stdio")
            return 0
        from pipeline.agent.http import serve

        signal.signal(signal.SIGTERM, _stop)  # to which the HTTP server hands it on when it has closed
        serve(server, port, root / STATE_DIR / TOKEN_FILE, lambda text: print(text, file=sys.stderr, flush=True))
    except OSError as error:
        message = f"port {port} cannot be had: {error.strerror}"
        hint = "choose another with --port, or leave it out"
        return fail(FailureCategory.CONFIG_ERROR, stage=None, where="mcp", message=message, hint=hint)
    finally:
        tools.close()
    return 0


def _stop(signum: int, frame: Any) -> None:
    del signum, frame
    raise SystemExit(0)
