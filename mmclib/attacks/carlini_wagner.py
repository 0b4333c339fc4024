"""The l_2 attack of Carlini & Wagner (2017a): the least distortion per image, by Adam in tanh space and a binary search over c.

Every image has a clock of its own: it ends a search step when its own loss stalls and starts the next at once, and leaves when
its last step is done. So the result does not depend on the batch, and calls are filled with whichever images are ready for one.
Unlike the authors' code, a search step starts where the one before ended, which takes about a third of the iterations to the same
distortion.
"""

import math

import torch
from torch import Tensor, nn

from mmclib.attacks.door import begin
from mmclib.attacks.frozen import ROWS
from mmclib.attacks.ledger import AttackResult
from mmclib.attacks.objectives import Objective
from mmclib.checks import check_bound, check_setting

_EDGE = 7.25  # w beyond this is within 1e-6 of the box's edge, and its gradient within rounding of zero
_START = 0.99  # where pixels at 0 and 1 start, on tanh's scale: from the edge itself they would need hundreds of steps to be seen to move
# The lowest loss so far is looked at ten times a search step, as in the authors' code, but at least every 25 iterations: a search
# step that starts where the last one ended settles in dozens.
_CHECKS, _LONGEST = 10, 25
_STALLED, _STALLED_LAST = 0.99, 0.999  # a search step ends when its lowest loss is above this share of that at the look before


def carlini_wagner(model: nn.Module, images: Tensor, labels: Tensor, *, targets: Tensor | None = None, objective: Objective | None = None,
                   seed: int | Tensor = 0, binary_search_steps: int = 9, initial_const: float = 0.01, steps: int = 1000,
                   learning_rate: float = 0.005, confidence: float = 0.0, abort_early: bool = True,
                   epsilon: float = math.inf, precision: str = "float32") -> AttackResult:
    """Find for each image the closest one in l_2 that is misclassified, or classified as its target, by a margin above
    `confidence`.

    Images (N, C, H, W) in [0, 1], labels and targets int64 (N,). The default objective is success_margin, which is untargeted_2
    without targets. What is found beyond `epsilon` counts as not found; by default nothing is too far. Images where nothing was found
    come back unchanged with success False. `seed` is accepted for uniformity; nothing is drawn. Defaults are the paper's Sec. 4. Raises
    ValueError for bad input.
    """
    binary_search_steps, steps = check_setting("binary_search_steps", binary_search_steps, 1, int), check_setting("steps", steps, 1, int)
    initial_const, learning_rate = check_setting("initial_const", initial_const, 1e-30), check_setting("learning_rate", learning_rate, 0)
    confidence, epsilon = check_setting("confidence", confidence, 0), check_bound(epsilon)
    with begin(model, images, labels, targets=targets, objective=objective or "success_margin", seed=seed,
               precision=precision) as (frozen, ledger, _):
        search = _Search(ledger.look_at_originals(frozen.logits(ledger.originals), confidence), ledger.originals, initial_const)
        while len(search.rows):
            turn, loss = _turn(frozen, ledger, search, learning_rate, confidence)
            search.advance(turn, loss, binary_search_steps, steps, abort_early)
        return ledger.result("l2", name="carlini_wagner", epsilon=epsilon)


class _Search:
    """Where each image still in the search stands; row i belongs to the image numbered rows[i]."""

    def __init__(self, rows, images, initial_const):
        count, device = len(rows), images.device
        self.rows, self.originals = rows, images[rows]
        self.w = torch.atanh((2 * self.originals - 1).clamp(-_START, _START))
        self.first, self.second = torch.zeros_like(self.w), torch.zeros_like(self.w)  # Adam's moments
        self.c = torch.full((count,), initial_const, dtype=images.dtype, device=device)
        self.low, self.high = torch.zeros_like(self.c), torch.full_like(self.c, torch.inf)
        self.lowest, self.lowest_before = torch.full_like(self.c, torch.inf), torch.full_like(self.c, torch.inf)
        self.iteration, self.search_step = torch.zeros_like(rows), torch.zeros_like(rows)
        self.found = torch.zeros_like(rows, dtype=torch.bool)  # a success in this search step
        self.inside = torch.zeros_like(self.found)  # the latest iterate was a success

    def keep(self, mask):
        for name, tensor in vars(self).items():
            setattr(self, name, tensor[mask])

    def turn(self):
        """Return the positions of the images to evaluate next, all of one kind (latest a success or not) and enough to fill calls."""
        inside, outside = self.inside.nonzero().squeeze(1), (~self.inside).nonzero().squeeze(1)
        # those outside need gradients, which cost about twice a forward pass: they wait until that is worth it
        queue = outside if len(outside) >= min(ROWS, 2 * len(inside)) else inside
        if len(queue) > ROWS:  # the furthest behind go first, so that few are left alone at the end
            behind = (self.search_step * (1 << 32) + self.iteration)[queue].argsort(stable=True)
            queue = queue[behind[:len(queue) // ROWS * ROWS]]
        return queue

    def step(self, turn, gradient, learning_rate):
        """Take one step of Adam, with its usual 0.9, 0.999 and 1e-8, bias-corrected by each image's own clock."""
        self.iteration[turn] += 1
        first = self.first[turn].lerp_(gradient, 0.1)
        second = self.second[turn].lerp_(gradient.square(), 0.001)
        self.first[turn], self.second[turn] = first, second
        clock = self.iteration[turn].to(gradient.dtype)[:, None, None, None]
        denominator = (second / (1 - 0.999**clock)).sqrt() + 1e-8
        self.w[turn] = (self.w[turn] - learning_rate / (1 - 0.9**clock) * first / denominator).clamp_(-_EDGE, _EDGE)

    def advance(self, turn, loss, binary_search_steps, steps, abort_early):
        """Close the search steps that are over, set the next c for their images, and drop images that are through.

        `turn` are the positions of the images that just took a step, `loss` their losses before it.
        """
        stepped = torch.zeros_like(self.found)
        stepped[turn] = True
        last = self.search_step == binary_search_steps - 1
        over = stepped & (self.iteration >= steps)
        if abort_early:
            self.lowest[turn] = torch.minimum(self.lowest[turn], loss)
            due = stepped & (self.iteration % min(_LONGEST, max(1, steps // _CHECKS)) == 0)
            stalled = torch.where(last, _STALLED_LAST, _STALLED).to(self.lowest.dtype)
            over |= due & (self.lowest > stalled * self.lowest_before)
            self.lowest_before = torch.where(due, self.lowest, self.lowest_before)
        if not bool(over.any()):
            return
        self.high = torch.where(over & self.found, torch.minimum(self.high, self.c), self.high)
        self.low = torch.where(over & ~self.found, torch.maximum(self.low, self.c), self.low)
        following = torch.where(self.high.isinf(), self.c * 10, (self.low + self.high) / 2)
        # the last search step polishes at the least c known to work: a smaller one may find nothing
        following = torch.where((self.search_step == binary_search_steps - 2) & self.high.isfinite(), self.high, following)
        self.c = torch.where(over, following, self.c)
        self.search_step += over
        # w goes on from where it is, with fresh moments: the next optimum is near, and the way from the original need not be
        # walked again
        self.first[over], self.second[over], self.iteration[over] = 0, 0, 0
        self.lowest[over], self.lowest_before[over] = torch.inf, torch.inf
        self.found &= ~over
        stay = self.search_step < binary_search_steps
        if not bool(stay.all()):
            self.keep(stay)


def _turn(frozen, ledger, search, learning_rate, confidence):
    """Evaluate the images whose turn it is, book the successes that are closer than what is known, and take their Adam step.

    Returns the positions of those that took one, and their losses before it. An image that was a success just now is tried without
    a backward pass; if it no longer is one, it waits for a call with gradients.
    """
    turn = search.turn()
    within = bool(search.inside[turn[0]])
    rows, tanh = search.rows[turn], search.w[turn].tanh()
    current = (tanh + 1) / 2
    labels, targets = ledger.labels[rows], None if ledger.targets is None else ledger.targets[rows]
    ledger.queries[rows] += 1
    if within:
        logits, values = frozen.evaluate(current, labels, targets)
        gradients = torch.zeros_like(current)
    else:
        logits, values, gradients = frozen.gradients(current, labels, targets)
        ledger.count_gradients(rows, gradients)
        logits = ledger.confirmed(frozen, rows, current, logits)
    difference = current - search.originals[turn]
    squared = difference.flatten(1).square().sum(1)
    success = ledger.keep_closer(rows, current, logits, squared, confidence)
    search.inside[turn] = success
    search.found[turn] |= success
    # ||x' - x||^2 + c f(x') with f = max(confidence - objective, 0): a success no longer pulls
    pull = torch.where(success, 0.0, search.c[turn])
    loss = torch.where(success, squared, squared + pull * (confidence - values).to(squared.dtype))
    gradient = (2 * difference - pull[:, None, None, None] * gradients) * (1 - tanh.square()) / 2
    known = success if within else torch.ones_like(success)
    search.step(turn[known], gradient[known], learning_rate)
    return turn[known], loss[known]
