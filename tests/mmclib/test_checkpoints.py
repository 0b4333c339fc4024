import hashlib

import pytest
import torch
from torch import nn

from mmclib import checkpoints


def test_a_model_comes_back_to_the_bit_whatever_its_layout(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    digest = checkpoints.save_model(tmp_path / "deep" / "model.safetensors", model, {"name": "a", "seconds": 1.5})
    tensors, metadata = checkpoints.load_model_state(tmp_path / "deep" / "model.safetensors")
    assert metadata == {"name": "a", "seconds": 1.5}
    assert digest == hashlib.sha256((tmp_path / "deep" / "model.safetensors").read_bytes()).hexdigest()
    assert tensors.keys() == model.state_dict().keys()
    assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items())


def test_missing_and_unreadable_files_say_so(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoints.load_model_state(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(ValueError, match="junk.safetensors cannot be read"):
        checkpoints.load_model_state(tmp_path / "junk.safetensors")


def test_the_last_two_states_are_kept_and_nothing_half_written(tmp_path):
    (tmp_path / ".state-000000001-aa.safetensors.123").write_bytes(b"half")  # a process killed while it wrote
    for step in (1, 2, 10):
        checkpoints.save_state(tmp_path, step, {"value": torch.tensor([step])}, {"step": step})
    assert sorted(path.name[:15] for path in tmp_path.iterdir()) == ["state-000000002", "state-000000010"]
    assert checkpoints.load_state(tmp_path)[1] == {"step": 10}
    checkpoints.remove_states(tmp_path)
    assert checkpoints.load_state(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "flipped bit", "empty"])
def test_a_damaged_state_falls_back_to_the_one_before(tmp_path, damage):
    for step in (1, 2):
        last = checkpoints.save_state(tmp_path, step, {"value": torch.arange(1000) * step}, {"step": step})
    content = bytearray(last.read_bytes())
    content[-5] ^= 1
    last.write_bytes({"cut": content[:500], "flipped bit": content, "empty": b""}[damage])
    with pytest.warns(UserWarning, match="state-000000002-.* is damaged .* goes on from the one before it, state-000000001"):
        tensors, metadata = checkpoints.load_state(tmp_path)
    assert metadata == {"step": 1} and torch.equal(tensors["value"], torch.arange(1000))
    (next(tmp_path.glob("state-000000001-*.safetensors"))).write_bytes(b"")
    with pytest.warns(UserWarning, match="starts anew"):
        assert checkpoints.load_state(tmp_path) is None
