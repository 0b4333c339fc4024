"""Features of small networks trained on the spot on scikit-learn's digits: Fig. 1, and measured density beside the formulas."""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import gaussian_kde, spearmanr
from torch import nn

from artifact.theory import density
from artifact.theory.trials import rounded
from mmclib import centers, data, losses, models, seeds


@dataclass(frozen=True)
class Trained:
    """A trained classifier with the training features (N, d) that it had after some epochs, float64 arrays by epoch."""

    classifier: nn.Module
    labels: np.ndarray
    features: dict[int, np.ndarray]
    test_accuracy: float

    @property
    def final(self):
        return self.features[max(self.features)]

    def own_losses(self):
        """The loss of each training sample at the end, (N,)."""
        with torch.no_grad():
            return self.classifier.head.loss(torch.from_numpy(self.final), torch.from_numpy(self.labels), "none").numpy()


def train(head, *, epochs, keep=(), classes=None, seed=0, learning_rate=0.02, batch_size=100, width=16):
    """Train a small ConvNet with `head` on the digits by momentum SGD, one drop at ¾ of the epochs, and keep its features.

    `head` makes the head, after the seed is set; `classes` takes some digits only, relabelled 0, 1, ...; features are kept after
    the epochs in `keep` and after the last. Runs on the CPU in seconds.
    """
    (images, labels), (test_images, test_labels) = _digits("train", classes), _digits("test", classes)
    torch.manual_seed(seeds.derive(seed, "theory", "weights"))
    head = head()
    model = models.Classifier(models.small_convnet(images.shape[1], head.feature_dim, width), head, mean=images.mean(0))
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate, momentum=0.9)
    order = torch.Generator().manual_seed(seeds.derive(seed, "theory", "order"))
    kept = {}
    for epoch in range(1, epochs + 1):
        if epoch == round(0.75 * epochs) + 1:
            optimizer.param_groups[0]["lr"] *= 0.1
        model.train()
        for batch in torch.randperm(len(images), generator=order).split(batch_size):
            optimizer.zero_grad()
            head.loss(model.features(images[batch]), labels[batch]).backward()
            optimizer.step()
        if epoch in keep or epoch == epochs:
            model.eval()
            with torch.no_grad():
                kept[epoch] = model.features(images).double().numpy()
    with torch.no_grad():
        right = model(test_images).argmax(1) == test_labels
    return Trained(model, labels.numpy(), kept, right.double().mean().item())


def softmax_run(feature_dim, **settings):
    """SCE on all ten digits."""
    return train(lambda: losses.SoftmaxCrossEntropy(10, feature_dim), **settings)


def mmc_run(feature_dim, radius=10.0, **settings):
    """MMC on all ten digits; in two dimensions, where there is no simplex of ten, the centers are the regular decagon's."""
    return train(lambda: losses.MaxMahalanobisCenter(centers.optimised_centers(10, feature_dim, radius)), **settings)


def pair_run(contours, **settings):
    """The two-class g-SCE loss of Theorem 1 with the fixed means and scales of `contours` (density.SoftmaxContours)."""
    def head():
        sigmas = torch.tensor([contours.sigma, contours.rival_sigma])
        made = losses.LargeMarginGaussianMixture(2, contours.dim, margin=0.0, likelihood=0.0).requires_grad_(False)
        made.means.copy_(torch.from_numpy(np.stack([contours.mean, contours.rival_mean])))
        made.log_variances.copy_((-(2 * sigmas).log())[:, None].expand(-1, contours.dim))  # ½ / variance = σ
        return made
    return train(head, **settings)


def biased(contours):
    """The same contours with the biases B = ½ d log 2σ that the Gaussian mixture's logits carry."""
    bias, rival = (contours.dim / 2 * np.log(2 * sigma) for sigma in (contours.sigma, contours.rival_sigma))
    return density.SoftmaxContours(contours.mean, contours.rival_mean, contours.sigma, contours.rival_sigma, bias, rival)


def rival_counts(run):
    """N_k (L,) and N_{k,k̃} (L, L): training samples by class, and by class and strongest other class."""
    with torch.no_grad():
        logits = run.classifier.head.logits(torch.from_numpy(run.final)).numpy()
    size = logits.shape[1]
    logits[np.arange(len(logits)), run.labels] = -np.inf
    counts = np.zeros((size, size), dtype=int)
    np.add.at(counts, (run.labels, logits.argmax(1)), 1)
    return counts.sum(1), counts


def unit_length(features, labels):
    """The mean distance from a class's mean feature to the nearest other class's: what makes two feature spaces comparable."""
    means = np.stack([features[labels == label].mean(0) for label in np.unique(labels)])
    gaps = np.linalg.norm(means[:, None] - means, axis=2)
    np.fill_diagonal(gaps, np.inf)
    return float(gaps.min(1).mean())


def own_class_density(features, labels, neighbours=10):
    """Log-density of every sample among those of its class by neighbours' distance, (N,): it knows no loss."""
    out = np.empty(len(features))
    for label in np.unique(labels):
        mine = labels == label
        out[mine] = density.log_neighbour_density(features[mine], neighbours)
    return out


def compare_with_formula(features, losses_, labels, contours, neighbours=10):
    """Measured log-density of each sample beside Theorem 1's or 2's formula, in both forms.

    p_k(C) is a kernel estimate over log C. Returns the log-densities (N,), their rank correlation and the median ratios.
    """
    measured, log_pdf = own_class_density(features, labels, neighbours), np.empty(len(losses_))
    count = np.empty(len(losses_))
    for label in np.unique(labels):
        mine = labels == label
        log_c = np.log(losses_[mine])
        log_pdf[mine] = gaussian_kde(log_c).logpdf(log_c) - log_c
        count[mine] = mine.sum()
    result = {"losses": losses_, "measured": measured}
    for form in ("exact", "paper"):
        formula = density.log_sample_density(contours, losses_, count, log_pdf, form)
        result[form] = formula
        result[f"{form}_rank_correlation"] = float(spearmanr(measured, formula).statistic)
        result[f"{form}_median_log_ratio"] = float(np.median(measured - formula))
        result[f"{form}_spread_log_ratio"] = float(np.subtract(*np.percentile(measured - formula, [75, 25])))
    return result


def figure_1(runs, *, points=500, arrows=60, levels=(1.0,), seed=0):
    """Fig. 1: where training moves features in the plane, and how dense they are, under SCE and MMC.

    `runs` maps "sce" and "mmc-10" to a `Trained` with two features and at least one epoch kept before the last.
    """
    panels = {}
    for name, run in runs.items():
        first, last = min(run.features), max(run.features)
        unit = unit_length(run.final, run.labels)
        log_density = own_class_density(run.final, run.labels) + 2 * np.log(unit)
        chosen = np.random.default_rng(seed).permutation(len(run.labels))[:points]
        head = run.classifier.head
        linear = name == "sce"
        panels[name] = {
            "epochs": [first, last], "unit": unit, "test_accuracy": 100 * run.test_accuracy, "levels": list(levels),
            "points": run.final[chosen], "before": run.features[first][chosen[:arrows]], "labels": run.labels[chosen],
            "log10_density": log_density[chosen] / np.log(10),
            "median_density": float(np.exp(np.median(log_density))),
            "weight": head.linear.weight if linear else None, "bias": head.linear.bias if linear else None,
            "centers": None if linear else head.centers,
        }
    sce, mmc = (panels[name]["median_density"] for name in ("sce", "mmc-10"))
    says = (f"Half of the training features lie at a density of {mmc:.0f} or more per unit area under MMC-10 "
            f"and {sce:.0f} under SCE, {mmc / sce:.1f} times as dense (unit: distance between neighbouring class means).")
    return rounded({"panels": panels, "data": "handwritten digits (stand-in)", "says": says}, 4)


def _digits(split, classes):
    images, labels = data.load("digits", split)
    if classes is not None:
        mine = torch.isin(labels, torch.tensor(classes))
        images, labels = images[mine], torch.searchsorted(torch.tensor(sorted(classes)), labels[mine])
    return images.float() / 255, labels
