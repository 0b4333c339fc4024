"""Progress of a training: a bar on a terminal, in a log one line every half minute, or a file for a program that shows it."""

import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from mmclib.files import write_whole

LOG_SECONDS = 30.0
SHOW_SECONDS = 1.0  # of a bar and of a file


class Progress:
    """Counts trained images and shows epoch, loss, accuracy, images per second and time left, on standard error.

    Where MMC_PROGRESS names a file, whoever started this process shows how it goes: the file holds {epoch, epochs, loss, left (seconds),
    time} instead, replaced whole about once a second and removed at the end. A file that cannot be written ends no training.
    """

    def __init__(self, recipe, count, *, done=0, show=True):
        self.total, self.done, self.first = recipe.epochs * count, done, done
        self.began = self.shown = time.perf_counter()
        self.file = os.environ.get("MMC_PROGRESS")
        terminal = show and not self.file and sys.stderr.isatty()
        self.bar = tqdm(total=self.total, initial=done, unit=" images", unit_scale=True, mininterval=SHOW_SECONDS) if terminal else None
        self.log = show and not self.file and not terminal

    def step(self, images):
        self.done += images
        if self.bar is not None:
            self.bar.update(images)

    def show(self, state, recipe):
        """Say how the epoch goes, where it is time to; reads the losses, so call it where they are looked at anyway."""
        now = time.perf_counter()
        if not (self.bar is not None or self.log or self.file) or now - self.shown < (LOG_SECONDS if self.log else SHOW_SECONDS):
            return
        self.shown = now
        seen = min(state.step * recipe.batch_size, self.total // recipe.epochs)
        loss, accuracy = float(state.losses[:state.step].mean()), int(state.correct.sum()) / seen
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {state.epoch + 1}/{recipe.epochs}, loss {loss:.4g}, accuracy {accuracy:.1%}", refresh=False)
            return
        speed = (self.done - self.first) / (now - self.began)
        left = (self.total - self.done) / speed
        if self.file:
            self._write({"epoch": state.epoch + 1, "epochs": recipe.epochs, "loss": loss, "left": left, "time": time.time()})
        else:
            print(f"epoch {state.epoch + 1}/{recipe.epochs}: loss {loss:.4g}, accuracy {accuracy:.1%}, {speed:,.0f} images/s, "
                  f"{left / 60:.1f} min left", file=sys.stderr, flush=True)

    def epoch(self, summary):
        if self.bar is not None:
            self.bar.write(f"epoch {summary['epoch']}: loss {summary['loss']:.4g}, train {summary['train_accuracy']:.1%}, "
                           f"test {summary['test_accuracy']:.1%}, {summary['seconds']:.0f} s", file=sys.stderr)

    def close(self):
        if self.bar is not None:
            self.bar.close()
        if self.file:
            with suppress(OSError):
                os.unlink(self.file)

    def _write(self, content):
        if not self.file:
            return
        with suppress(OSError):
            write_whole(Path(self.file), json.dumps(content).encode(), durable=False)
