import pytest
import torch
from torch.nn import functional as F

from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError
from cathodeflow.fibsem import global_training
from cathodeflow.fibsem.appearance_options import ImageChanges
from cathodeflow.fibsem.global_training import UNKNOWN, LabelledSlices, _augmented, class_weights
from cathodeflow.fibsem.neighbours import neighbours
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.stored_slices import StoredSlices
from cathodeflow.io.volumes import write_volume
from tests.unit.test_fibsem_unet import predict_slices

SMALL = {"widths": (8, 16), "device": "cpu", "precision": "32-true"}


def train_network(train, validation, *, weight=None, architecture="unet", **options):
    """Train on three classes, without dropout unless it is given; the architecture may be one that a test adds."""
    options = TrainGlobal(**{"dropout": 0.0, "patience": None} | options)
    options = options.model_copy(update={"architecture": architecture})
    return global_training.train_network(train, validation, options, n_classes=3, weight=weight)


def labelled(seed=0, n=8, side=32, context=1):
    random = generator(seed)
    field = F.interpolate(torch.randn(n, 1, side // 4, side // 4, generator=random), (side, side), mode="bicubic")[:, 0]
    labels = (field > -0.5).to(torch.uint8) + (field > 0.3).to(torch.uint8)
    grey = 100 + 30 * labels + 15 * torch.randn(n, side, side, generator=random)
    return LabelledSlices(grey.clamp(0, 255).to(torch.uint8), labels, neighbours(n, context))


@pytest.mark.parametrize(("dropout", "context"), [(0.0, 1), (0.3, 3)])
def test_training_learns_phases_and_depends_on_the_seed_alone(dropout, context):
    train, validation, test = (labelled(seed, context=context) for seed in range(3))
    options = {"dropout": dropout, "epochs": 12, "batch_size": 2, "learning_rate": 1e-2, "context": context} | SMALL
    trained = train_network(train, validation, **options)
    found = predict_slices(trained.model, test.slices[test.neighbours], passes=8)
    assert (found.logits.argmax(1) == test.labels).float().mean() > 0.8
    assert trained.model.architecture["context"] == context
    assert float(trained.model.grey_mean) == pytest.approx(float(train.slices.float().mean()), rel=1e-4)
    if not dropout:
        again = train_network(train, validation, **options).model.state_dict()
        assert all(torch.equal(value, again[name]) for name, value in trained.model.state_dict().items())


def test_unknown_pixels_do_not_count():
    train, validation = labelled(0), labelled(1)
    hidden = train.labels.clone()
    hidden[:, :16] = UNKNOWN
    losses = []
    for upper in (0, 2):
        labels = train.labels.clone()
        labels[:, :16] = upper
        part = LabelledSlices(train.slices, torch.where(hidden == UNKNOWN, hidden, labels), train.neighbours)
        losses.append(train_network(part, validation, epochs=1, batch_size=4, weight=[1, 2, 3], **SMALL).training.best)
    assert losses[0] == losses[1]
    blank = LabelledSlices(train.slices, torch.full_like(hidden, UNKNOWN), train.neighbours)
    joined = LabelledSlices(*(torch.cat([a, b]) for a, b in zip(train[:2], blank[:2], strict=True)), neighbours(16, 1))
    assert train_network(joined, validation, epochs=1, batch_size=1, **SMALL).training.best["train_loss"] > 0


def test_class_weights_even_out_the_classes():
    labels = torch.tensor([0] * 60 + [1] * 26 + [2] * 14 + [UNKNOWN] * 9)
    weights = class_weights(labels, ["a", "b", "c"])
    assert [w * c for w, c in zip(weights, (60, 26, 14), strict=True)] == pytest.approx([100 / 3] * 3)
    with pytest.raises(InputError, match="no pixel of binder"):
        class_weights([0, 1, 1], ["pore", "active", "binder"])


def test_parts_and_views_keep_labels_on_their_pixels():
    y = torch.arange(4 * 20 * 30).view(4, 20, 30)
    x = torch.stack([y, -y], 1).float()
    seen = set()
    for number in range(20):
        grey, labels = _augmented(x, y, TrainGlobal.model_construct(crop=12), generator(number))
        assert grey.shape == (4, 2, 12, 12)
        assert torch.equal(grey[:, 0].long(), labels) and torch.equal(-grey[:, 1].long(), labels)
        seen |= {(int((one[0, 1] - one[0, 0]).sign()), int((one[1, 0] - one[0, 0]).sign())) for one in labels}
    assert seen == {(1, 1), (1, -1), (-1, 1), (-1, -1)}
    grey, labels = _augmented(x, y, TrainGlobal(augment=ImageChanges(flip=False)), generator(0))
    assert torch.equal(grey, x) and torch.equal(labels, y)


def test_bad_input_is_named():
    train = labelled()
    for part, named in [
        (train._replace(neighbours=train.neighbours[:0]), "slices: found none"),
        (train._replace(labels=train.labels + 2), "the label 4"),
        (train._replace(labels=train.labels[:, 1:]), "the same shape"),
        (train._replace(slices=torch.full_like(train.slices, 7)), "some contrast"),
    ]:
        with pytest.raises(InputError, match=named):
            train_network(part, train, epochs=1, **SMALL)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32])
def test_images_from_disk_give_the_same_network_as_images_in_memory(tmp_path, dtype):
    part = labelled(context=3)
    slices = part.slices.to(torch.int32).mul(7).to(dtype) if dtype == torch.uint16 else part.slices.to(dtype)
    for name, images in (("slices", slices), ("labels", part.labels)):
        write_volume(tmp_path / f"{name}.zarr", images.numpy(), axes=("image", "y", "x"))
    stored = [StoredSlices(tmp_path / f"{name}.zarr") for name in ("slices", "labels")]
    trained = [
        train_network(
            LabelledSlices(*images, part.neighbours[:6]), LabelledSlices(*images, part.neighbours[6:]),
            epochs=2, batch_size=2, context=3, **SMALL,
        ).model.state_dict()
        for images in ((slices, part.labels), stored)
    ]  # fmt: skip
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
