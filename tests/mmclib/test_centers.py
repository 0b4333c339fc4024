"""Centers: norms as well as inner products, known optima, the tree's rules, and one sentence for bad input."""

import math
import random

import pytest
import torch

from mmclib import centers


def gram(points):
    return points.double() @ points.double().T


def off_diagonal(matrix):
    return matrix[~torch.eye(len(matrix), dtype=torch.bool)]


@pytest.mark.parametrize("num_classes, feature_dim",
                         [(2, 256), (3, 256), (4, 256), (10, 256), (100, 256), (2, 1), (4, 3), (101, 100)])
@pytest.mark.parametrize("radius", [1.0, 10.0, 100.0])
def test_max_mahalanobis_norms_and_inner_products(num_classes, feature_dim, radius):
    points = centers.max_mahalanobis_centers(num_classes, feature_dim, radius)
    assert points.shape == (num_classes, feature_dim) and points.dtype == torch.float32
    products = gram(points)
    wanted = -radius**2 / (num_classes - 1)
    assert torch.allclose(products.diagonal().sqrt(), torch.tensor(radius).double(), rtol=1e-5)
    assert ((off_diagonal(products) - wanted).abs() <= 1e-5 * abs(wanted)).all()


def test_equals_algorithm_1_as_printed():
    num_classes, dim, radius = 7, 9, 3.0
    mu = torch.zeros(num_classes, dim, dtype=torch.float64)
    mu[0, 0] = 1
    for i in range(1, num_classes):
        for j in range(i):
            mu[i, j] = -(1 + (mu[i] @ mu[j]) * (num_classes - 1)) / (mu[j, j] * (num_classes - 1))
        mu[i, i] = (1 - mu[i].square().sum()).clamp_min(0).sqrt()
    # Printed, the last vertex takes the square root of a rounded zero, 1e-8: hence not closer than 1e-6.
    assert torch.allclose(centers.max_mahalanobis_centers(num_classes, dim, radius).double(), radius * mu, atol=1e-6)


@pytest.mark.parametrize("num_classes", [5, 8])
def test_optimised_in_the_plane_is_the_regular_polygon(num_classes):
    points = centers.optimised_centers(num_classes, 2, radius=3.0).double()
    angles = torch.atan2(points[:, 1], points[:, 0]).sort().values
    gaps = torch.cat([angles.diff(), angles[:1] + 2 * math.pi - angles[-1:]])
    assert torch.allclose(points.norm(dim=1), torch.tensor(3.0).double())
    assert torch.allclose(gaps, torch.tensor(2 * math.pi / num_classes).double(), atol=1e-5)


@pytest.mark.parametrize("num_classes, dim, cosine", [(6, 3, 0.0), (12, 3, 1 / math.sqrt(5)), (8, 4, 0.0)])
def test_optimised_finds_known_optima(num_classes, dim, cosine):
    assert centers.largest_cosine(centers.optimised_centers(num_classes, dim)) == pytest.approx(cosine, abs=1e-4)


def test_optimised_is_the_simplex_where_there_is_one_and_is_seeded():
    assert torch.equal(centers.optimised_centers(4, 3), centers.max_mahalanobis_centers(4, 3))
    assert torch.equal(centers.optimised_centers(6, 3, seed=1), centers.optimised_centers(6, 3, seed=1))


def test_random_centers_lie_on_the_sphere_and_are_worse_spread():
    points = centers.random_centers(10, 256, seed=3)
    assert torch.allclose(points.norm(dim=1), torch.tensor(10.0), rtol=1e-6)
    assert torch.equal(points, centers.random_centers(10, 256, seed=3))
    assert not torch.equal(points, centers.random_centers(10, 256, seed=4))
    assert centers.largest_cosine(points) > centers.largest_cosine(centers.max_mahalanobis_centers(10, 256))


TREE = [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]]


def test_hierarchical_leaf_is_the_sum_along_its_path():
    points = centers.hierarchical_centers(TREE, 16, (10.0, 2.0))
    upper, lower = centers.max_mahalanobis_centers(3, 16, 10.0), centers.max_mahalanobis_centers(5, 16, 2.0)
    for i, group in enumerate(TREE):
        for j, label in enumerate(group):
            assert torch.allclose(points[label], upper[i] + lower[j], atol=1e-6)


@pytest.mark.parametrize("seed", [None, 0])
def test_hierarchical_siblings(seed):
    points = centers.hierarchical_centers(TREE, 16, (10.0, 2.0), seed=seed).double()
    upper = centers.max_mahalanobis_centers(3, 16, 10.0).double()
    for i, group in enumerate(TREE):
        products = gram(points[group] - upper[i])  # seen from their parent, siblings are a simplex of their own radius
        assert torch.allclose(products.diagonal(), torch.tensor(4.0).double(), rtol=1e-5)
        assert torch.allclose(off_diagonal(products), torch.tensor(-1.0).double(), rtol=1e-4)


def test_hierarchical_rotation_differs_by_subtree_and_is_seeded():
    plain, turned = (centers.hierarchical_centers(TREE, 16, (10.0, 2.0), seed=seed) for seed in (None, 0))
    shape = [points[group] - points[group].mean(0) for points in (plain, turned) for group in TREE[:2]]
    assert torch.allclose(shape[0], shape[1], atol=1e-5) and not torch.allclose(shape[2], shape[3], atol=0.1)
    assert torch.equal(turned, centers.hierarchical_centers(TREE, 16, (10.0, 2.0), seed=0))


def test_hierarchical_does_not_care_for_label_order():
    labels = list(range(15))
    random.Random(0).shuffle(labels)
    renamed = [[labels[label] for label in group] for group in TREE]
    for seed in (None, 5):
        plain, other = (centers.hierarchical_centers(tree, 16, (10.0, 2.0), seed=seed) for tree in (TREE, renamed))
        assert torch.equal(other[labels], plain)


def test_hierarchical_takes_uneven_trees_and_only_children():
    points = centers.hierarchical_centers([0, [1, [2, 3]], [4]], 8, (10.0, 3.0, 1.0))
    top = centers.max_mahalanobis_centers(3, 8, 10.0)
    assert torch.allclose(points[0], top[0]) and torch.allclose(points[4], top[2])
    assert torch.dist(points[2], points[3]).item() == pytest.approx(2.0, rel=1e-5)


@pytest.mark.parametrize("call, words", [
    (lambda: centers.max_mahalanobis_centers(12, 10), "num_classes must be at most feature_dim \\+ 1 = 11.*optimised_centers"),
    (lambda: centers.max_mahalanobis_centers(1, 10), "num_classes"),
    (lambda: centers.max_mahalanobis_centers(3, 0), "feature_dim"),
    (lambda: centers.random_centers(3, 5, -1.0), "radius"),
    (lambda: centers.random_centers(3, 5, float("nan")), "radius"),
    (lambda: centers.optimised_centers(3, 1), "feature_dim"),
    (lambda: centers.hierarchical_centers([[0, 1], [1, 2]], 8, (10, 1)), "tree repeats label 1"),
    (lambda: centers.hierarchical_centers([[0, 1], [3, 4]], 8, (10, 1)), "label 2 is missing"),
    (lambda: centers.hierarchical_centers([[-1, 1], [0, 2]], 8, (10, 1)), "label -1 is negative"),
    (lambda: centers.hierarchical_centers([[0, 1], []], 8, (10, 1)), "tree has an empty list"),
    (lambda: centers.hierarchical_centers([[0, "cat"]], 8, (10, 1)), "tree must hold integer"),
    (lambda: centers.hierarchical_centers("tree", 8, (10, 1)), "tree must be nested lists"),
    (lambda: centers.hierarchical_centers([[0, 1], [2, 3]], 8, (10,)), "radii must hold one radius per depth"),
    (lambda: centers.hierarchical_centers([[0, 1], [2, 3]], 8, (5, 5)), "same center"),
])
def test_bad_input_is_one_sentence_that_names_it(call, words):
    with pytest.raises(ValueError, match=words) as error:
        call()
    assert "\n" not in str(error.value)
