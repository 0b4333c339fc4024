"""Models that several test files attack, trained once per session in seconds."""

import signal

import pytest
import torch

from mmclib import centers, data, losses, models


@pytest.fixture(scope="session", autouse=True)
def heard_signals():
    """A suite that nohup or a shell's & started has signals ignored, which what it tests would respect."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(autouse=True)
def seeded():
    """What a test draws from torch's generator does not depend on the tests before it."""
    torch.manual_seed(0)


@pytest.fixture()
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def digits():
    """60 test digits, float (60, 1, 8, 8), with their labels."""
    images, labels = data.load("digits", "test")
    return images[:60].float() / 255, labels[:60]


def _trained(head):
    images, labels = data.load("digits", "train")
    model = models.Classifier(models.small_convnet(1, feature_dim=32, width=16), head, mean=images.float().mean(0) / 255)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(6):
        for part in torch.randperm(len(images)).split(50):
            optimizer.zero_grad()
            model.head.loss(model.features(images[part].float() / 255), labels[part]).backward()
            optimizer.step()
    return model.eval()


@pytest.fixture(scope="session")
def mmc():
    torch.manual_seed(0)
    return _trained(losses.MaxMahalanobisCenter(centers.max_mahalanobis_centers(10, 32), scale=1.0))


@pytest.fixture(scope="session")
def sce():
    torch.manual_seed(0)
    return _trained(losses.SoftmaxCrossEntropy(10, 32))
