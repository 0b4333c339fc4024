"""Progress of a training: a bar on a terminal, and in a log one line every half minute."""

import sys
import time

from tqdm import tqdm

LOG_SECONDS = 30.0


class Progress:
    """Counts trained images and shows epoch, loss, accuracy, images per second and time left, on standard error."""

    def __init__(self, recipe, count, *, done=0, show=True):
        self.total, self.done, self.first = recipe.epochs * count, done, done
        self.began = self.shown = time.perf_counter()
        terminal = show and sys.stderr.isatty()
        self.bar = tqdm(total=self.total, initial=done, unit=" images", unit_scale=True, mininterval=1.0) if terminal else None
        self.log = show and not terminal

    def step(self, images):
        self.done += images
        if self.bar is not None:
            self.bar.update(images)

    def show(self, state, recipe):
        """Say how the epoch goes, where it is time to; reads the losses, so call it where they are looked at anyway."""
        now = time.perf_counter()
        if (self.bar is None and not self.log) or now - self.shown < (1.0 if self.bar is not None else LOG_SECONDS):
            return
        self.shown = now
        seen = min(state.step * recipe.batch_size, self.total // recipe.epochs)
        loss, accuracy = float(state.losses[:state.step].mean()), int(state.correct.sum()) / seen
        if self.bar is not None:
            self.bar.set_postfix_str(f"epoch {state.epoch + 1}/{recipe.epochs}, loss {loss:.4g}, accuracy {accuracy:.1%}", refresh=False)
        else:
            speed = (self.done - self.first) / (now - self.began)
            print(f"epoch {state.epoch + 1}/{recipe.epochs}: loss {loss:.4g}, accuracy {accuracy:.1%}, {speed:,.0f} images/s, "
                  f"{(self.total - self.done) / speed / 60:.1f} min left", file=sys.stderr, flush=True)

    def epoch(self, summary):
        if self.bar is not None:
            self.bar.write(f"epoch {summary['epoch']}: loss {summary['loss']:.4g}, train {summary['train_accuracy']:.1%}, "
                           f"test {summary['test_accuracy']:.1%}, {summary['seconds']:.0f} s", file=sys.stderr)

    def close(self):
        if self.bar is not None:
            self.bar.close()
