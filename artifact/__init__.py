"""The paper's artifact: profiles -> jobs -> receipts -> tables and figures, made with mmclib. `python -m artifact` is its command line."""
