import hashlib
import os

import pytest
import torch
from torch import nn

from mmclib import checkpoints, files


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


def test_a_living_process_keeps_what_it_is_writing(tmp_path):
    living, dead = (tmp_path / f".state-000000009-{'a' * 16}.safetensors.{pid}" for pid in (os.getppid(), 2**22 + 1))
    for path in (living, dead):
        path.write_bytes(b"half")
    checkpoints.save_state(tmp_path, 1, {"value": torch.zeros(1)}, {})
    assert living.exists() and not dead.exists()


def test_a_state_that_another_process_replaces_while_it_is_read_is_read_anew(tmp_path, monkeypatch):
    checkpoints.save_state(tmp_path, 1, {"value": torch.zeros(1)}, {})
    listed, asked = checkpoints._states, []

    def listing(folder):
        found = listed(folder)
        if not asked:
            asked.append(checkpoints.save_state.__name__)
            found[0].unlink()
            checkpoints.save_state(tmp_path, 2, {"value": torch.ones(1)}, {})
        return found
    monkeypatch.setattr(checkpoints, "_states", listing)
    assert checkpoints.load_state(tmp_path)[0]["value"] == 1


def test_what_windows_cannot_do_is_left_out(tmp_path, monkeypatch):
    def no_folder(*_):
        raise PermissionError("a folder")
    monkeypatch.setattr(os, "open", no_folder)
    monkeypatch.setattr(os, "kill", no_folder)
    path = tmp_path / "state"  # made before: there are no paths of Windows here
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", "nt")
        files.write_whole(path, b"whole")
        assert checkpoints._lives(1)
    assert path.read_bytes() == b"whole"


def test_what_is_not_durable_makes_no_folder(tmp_path):
    files.write_whole(tmp_path / "new" / "state", b"whole")
    assert (tmp_path / "new" / "state").read_bytes() == b"whole" and len(list((tmp_path / "new").iterdir())) == 1
    with pytest.raises(FileNotFoundError):  # whoever shows a progress has gone, with the folder
        files.write_whole(tmp_path / "gone" / "progress", b"whole", durable=False)
    assert not (tmp_path / "gone").exists()
