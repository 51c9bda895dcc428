"""What adaptation changes of a general model beside its parameters."""

import torch

from eat.models import create_model
from eat.personal.adaptation import training_mode


def test_adaptation_leaves_the_statistics_of_batch_norm_as_they_are() -> None:
    model = create_model("psvit_nano", 1, 64, points=4, dim=16, stem_dims=(8, 8))
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    for on in (True, False):
        training_mode(model, on)
        assert model.trans_layers[0].training == on
        model(torch.randn(2, 3, 64, 64))
    assert len(before) == 24  # three of each of eight layers
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
