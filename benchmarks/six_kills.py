"""Six kills (SIGKILL) in one training of profile cpu's kind, which must end in the same bits as one that nobody disturbs.

    python benchmarks/six_kills.py [--model at-un-mmc-10] [--images 4000] [--epochs 2] [--out FILE.json]

The row's own network, loss and recipe (airbench, Muon, N-FGSM with its guard, compiled) on the first images of CIFAR-10, with a state every
few seconds. Each kill comes at a random moment after the first new state. Prints one line, and fails where a bit differs.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from common import finish, parse, processor

from artifact.compute import trained
from artifact.experiment import load_profile
from mmclib import data
from mmclib.training import fit

KILLS = 6


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default="at-un-mmc-10", help="a row of profile cpu")
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--train", metavar="FOLDER", help=argparse.SUPPRESS)  # what the processes to kill are started with
    options = parse(parser, device="cpu")
    if options.train:
        _train(options)
        return
    with tempfile.TemporaryDirectory() as place:
        began = time.perf_counter()
        undisturbed = _finished(_start(options, Path(place, "undisturbed")))
        seconds, at = time.perf_counter() - began, []
        draw = random.Random(options.seed)
        for _ in range(KILLS):
            at.append(_kill(options, Path(place, "killed"), draw.uniform(0, 0.1) * seconds))
        killed = _finished(_start(options, Path(place, "killed")))
    result = {"benchmark": "six_kills", "machine": processor(), "threads": options.threads, "torch": torch.__version__,
              "precision": options.precision, "model": options.model, "images": options.images, "epochs": options.epochs,
              "states_at_the_kills": at, "undisturbed": undisturbed, "killed": killed, "same": undisturbed == killed}
    finish(result, markdown(result), options.out)
    sys.exit(0 if result["same"] else "the killed training ended in other bits")


def _train(options):
    profile = load_profile("cpu")
    model = trained.build(profile, options.model)
    sets = [tuple(tensor[:options.images] for tensor in data.load("cifar10", split)) for split in ("train", "test")]
    result = fit(model, *sets, recipe=replace(trained.recipe(profile, options.model), epochs=options.epochs), seed=0, folder=options.train,
                 precision=options.precision, compile=True, progress=False)
    digest = hashlib.sha256()
    for name, tensor in sorted(result.model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    told = json.dumps([{key: value for key, value in epoch.items() if key != "seconds"} for epoch in result.history], sort_keys=True)
    print(f"sha256 {digest.hexdigest()[:16]} history {hashlib.sha256(told.encode()).hexdigest()[:16]}")


def _start(options, folder):
    command = [sys.executable, __file__, "--train", str(folder), "--model", options.model, "--images", str(options.images), "--epochs",
               str(options.epochs), "--threads", str(options.threads), "--precision", options.precision]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"MMC_CHECKPOINT_SECONDS": "3"})


def _finished(process):
    said, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"a training ended with {process.returncode}")
    return said.splitlines()[-1]


def _kill(options, folder, wait):
    """Start the training, kill it some seconds after its first new state, and return the number of the last state's step."""
    before, process = set(folder.glob("state-*")), _start(options, folder)
    while not set(folder.glob("state-*")) - before:
        if process.poll() is not None:
            raise RuntimeError("a training ended before it was killed; give it more images")
        time.sleep(0.1)
    time.sleep(wait)
    os.kill(process.pid, signal.SIGKILL)
    if process.wait() != -signal.SIGKILL:
        raise RuntimeError("a training ended before it was killed; give it more images")
    return int(max(folder.glob("state-*.safetensors")).name.split("-")[1])


def markdown(result):
    same = "the same bits (weights, and history but for the seconds)" if result["same"] else "OTHER BITS"
    return (f"`{result['model']}` of profile `cpu`, {result['images']:,} images of CIFAR-10, {result['epochs']} epochs, compiled, "
            f"{result['precision']}, on {result['machine']} ({result['threads']} thread(s), torch {result['torch']}): killed {KILLS} "
            f"times, after the states of steps {', '.join(map(str, result['states_at_the_kills']))}, the training ends in {same}.")


if __name__ == "__main__":
    main()
