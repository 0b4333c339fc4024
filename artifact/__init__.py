"""The paper's artifact: profiles -> jobs -> receipts -> tables and figures, made with mmclib. `python -m artifact` is its command line."""

import os

if os.name == "nt":
    raise SystemExit("error: the artifact's locks, signals and process groups are not those of Windows; run it in WSL. The library, "
                     "`import mmclib`, works here.")
