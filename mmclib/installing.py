"""How a package that is missing is installed: without torch, so that a command line may say it at once."""

import shlex
import sys
from importlib.machinery import PathFinder

# Not importlib.util's: setuptools takes a search for pip for pip itself, and torch.compile fails in this process from then on.
find_spec = PathFinder.find_spec


def installing(requirement: str) -> str:
    """The command that installs a package into this environment, which has no pip where uv made it."""
    python = shlex.quote(sys.executable)
    install = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return f"{install} {shlex.quote(requirement)}"
