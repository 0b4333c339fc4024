"""What the environment takes on a disk, and what of it falls away without CUDA.

    python benchmarks/install_size.py [WHEEL ...] [--out FILE.json]

Each WHEEL is a CPU build of PyTorch to hold against the one with CUDA that is installed, such as PyPI's for other systems:

    pip download --no-deps --only-binary :all: --platform win_amd64 --python-version 3.11 torch==VERSION
"""

import argparse
import re
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

from common import finish

ROOT = Path(__file__).resolve().parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("wheels", nargs="*", type=Path, metavar="WHEEL", help="a CPU build of PyTorch")
    parser.add_argument("--out", metavar="FILE.json", help="also keep the numbers there")
    options = parser.parse_args()
    packages = metadata.distributions(path=[sysconfig.get_path("purelib")])
    installed = {normal(package.metadata["Name"]): size(package) for package in packages}
    cuda = {normal(name) for name in re.findall(r"^([\w.-]+)==", (ROOT / "requirements-cuda.lock").read_text(), flags=re.MULTILINE)}
    if not cuda & installed.keys():
        parser.error("this environment has PyTorch's CPU build; what CUDA takes is measured where it is: make setup TORCH=cuda")
    wheels = {wheel.name: sum(entry.file_size for entry in zipfile.ZipFile(wheel).infolist()) / 1e6 for wheel in options.wheels}
    result = {"benchmark": "install size", "platform": sys.platform, "torch": metadata.version("torch"),
              "all_mb": sum(installed.values()), "cuda_mb": sum(installed.get(name, 0) for name in cuda),
              "torch_mb": installed["torch"], "cpu_wheels_mb": wheels}
    finish(result, markdown(result), options.out)


def normal(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def size(package):
    """Megabytes of a package's files, as installed; compiled Python (which comes with use) is not counted."""
    paths = (Path(package.locate_file(file)) for file in package.files or () if file.suffix != ".pyc")
    return sum(path.stat().st_size for path in paths if path.is_file()) / 1e6


def markdown(result):
    without = result["all_mb"] - result["cuda_mb"]
    lines = [f"The environment of `make setup`, PyTorch {result['torch']}, files as installed", "", "| part | MB |", "|---|---:|",
             f"| with PyTorch's CUDA build, Linux | {result['all_mb']:,.0f} |",
             f"| of it CUDA's libraries and Triton | {result['cuda_mb']:,.0f} |",
             f"| of it PyTorch itself, built with CUDA | {result['torch_mb']:,.0f} |"]
    lines += [f"| PyTorch itself, CPU build: `{name}` | {size:,.0f} |" for name, size in result["cpu_wheels_mb"].items()]
    if result["cpu_wheels_mb"]:
        smaller = without - result["torch_mb"] + max(result["cpu_wheels_mb"].values())
        lines.append(f"| so the environment with a CPU build as large as the largest of these | {smaller:,.0f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
