"""How a package that is missing is installed: without torch, so that a command line may say it at once."""

import shlex
import sys
from importlib.util import find_spec


def installing(requirement: str) -> str:
    """The command that installs a package into this environment, which has no pip where uv made it."""
    python = shlex.quote(sys.executable)
    install = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return f"{install} {shlex.quote(requirement)}"
