"""Groups of the optimiser, the learning rate, the average of the weights."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from rbonn_train.config import ModelConfig
from rbonn_train.data import Dataset, to_tensor
from rbonn_train.diagnose import TrainingError
from rbonn_train.loop import Trainer
from rbonn_train.methods import layer_maker
from rbonn_train.methods.base import binary_layers
from rbonn_train.methods.rbonn import RBONNConv2d
from rbonn_train.network import BinaryNetwork
from rbonn_train.optim import Average, LostGradient, make_optimizer, set_learning_rate, update
from rbonn_train.recipe import Step


def groups(model: BinaryNetwork) -> list[list[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    found = make_optimizer(model, Step(1, 0.02, 1e-5), 0.1).param_groups
    return [[names[parameter] for parameter in group["params"]] for group in found]


def test_groups_of_the_optimizer(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network, layer_maker("released"))
    weights, u, others = groups(model)
    assert u == ["blocks.0.conv.u", "blocks.1.conv.u"]
    assert set(weights) == {
        "stem.conv.weight",
        "blocks.0.conv.weight",
        "blocks.1.conv.weight",
        "blocks.1.shortcut.conv.weight",
        "fc.weight",
    }
    assert len(weights) + len(u) + len(others) == len(list(model.parameters()))
    optimizer = make_optimizer(model, Step(1, 0.02, 1e-5), 0.1)
    assert [g["lr"] for g in optimizer.param_groups] == [0.02, pytest.approx(0.002), 0.02]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [1e-5, 0, 0]


def test_no_optimiser_touches_weights_without_latent_ones(config: ModelConfig) -> None:
    weights, _, _ = groups(BinaryNetwork(config.network, layer_maker("bop")))
    assert set(weights) == {"stem.conv.weight", "blocks.1.shortcut.conv.weight", "fc.weight"}


def test_the_learning_rate_falls_linearly(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network, layer_maker("released"))
    optimizer = make_optimizer(model, Step(1, 0.02), 0.1)
    for done in (0.75, 0.0, 0.5):  # any order: it has no memory
        set_learning_rate(optimizer, done)
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([0.02 * (1 - done), 0.002 * (1 - done), 0.02 * (1 - done)])


def gradients_of_u(
    config: ModelConfig, dataset: Dataset, clip: float, strength: float
) -> tuple[Tensor, float]:
    """After two steps of mode ``paper``, the second clipped; and the norm of all gradients."""
    torch.manual_seed(0)
    model = BinaryNetwork(config.network, layer_maker("paper", penalty=0.1))
    optimizer = make_optimizer(model, Step(1, 1e-3), 0.1)
    images, labels = to_tensor(dataset.images), torch.from_numpy(dataset.labels)
    for limit in (0.0, clip):
        loss = strength * functional.cross_entropy(model(images), labels)
        update(model, optimizer, loss, limit)
    gradients = [parameter.grad for parameter in model.parameters()]
    norm = nn.utils.get_total_norm([grad for grad in gradients if grad is not None])
    found = [layer.u.grad for layer in binary_layers(model) if isinstance(layer, RBONNConv2d)]
    return torch.cat([grad.flatten() for grad in found if grad is not None]), float(norm)


def test_the_recurrence_sees_gradients_before_they_are_clipped(
    config: ModelConfig, dataset: Dataset
) -> None:
    whole, norm = gradients_of_u(config, dataset, 0.0, 10.0)
    clipped, limited = gradients_of_u(config, dataset, 0.01, 10.0)
    assert whole.count_nonzero() > 3
    assert limited == pytest.approx(0.01, rel=1e-3)
    torch.testing.assert_close(clipped, whole * (0.01 / norm), rtol=1e-3, atol=0)


@pytest.mark.parametrize("clip", [0.0, 1.0])
def test_a_lost_gradient_is_named_and_changes_nothing(
    clip: float, config: ModelConfig, dataset: Dataset
) -> None:
    model = BinaryNetwork(config.network, layer_maker("released"))
    optimizer = make_optimizer(model, Step(1, 1e-3), 0.1)
    images, labels = to_tensor(dataset.images[:8]), torch.from_numpy(dataset.labels[:8])
    block = model.binary_blocks()[1]
    block.bn.weight.register_hook(lambda grad: grad * torch.nan)
    before = {name: value.clone() for name, value in model.named_parameters()}
    with pytest.raises(LostGradient, match=r"^blocks\.1\.bn\.weight$"):
        update(model, optimizer, functional.cross_entropy(model(images), labels), clip)
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())


def test_a_run_stops_at_the_batch_whose_gradient_is_lost(
    config: ModelConfig, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Trainer(config, dataset, dataset, 0, tmp_path, progress=False)
    real = Trainer._step

    def breaks(self: Trainer, images: Tensor, labels: Tensor, place: str) -> bool:
        if place == "step 1 1/2, batch 3":
            # Everything before it in the network is lost as well, but later in the backward pass.
            self.model.binary_blocks()[1].bn.register_full_backward_hook(
                lambda module, into, out: (into[0] * torch.nan,)
            )
        return real(self, images, labels, place)

    monkeypatch.setattr(Trainer, "_step", breaks)
    with pytest.raises(TrainingError) as error:
        run.run()
    assert str(error.value) == (
        "Gradients must be finite, not NaN or infinite in step 1 1/2, batch 3, at "
        "blocks.1.conv.weight; none was saved"
    )


def test_average_of_weights_and_statistics(config: ModelConfig) -> None:
    model = BinaryNetwork(config.network)
    average = Average(model, 0.5)
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    start = model.fc.weight.detach().clone()
    with torch.no_grad():
        model.fc.weight += 1
        model.stem.bn.running_mean += 11
    average.update(model)  # 1/11 is kept of the first value
    torch.testing.assert_close(average.model.fc.weight, start + 10 / 11)
    torch.testing.assert_close(average.model.stem.bn.running_mean, torch.full((8,), 10.0))
    for _ in range(40):
        average.update(model)
    before = average.model.fc.weight.clone()
    with torch.no_grad():
        model.fc.weight += 1
    average.update(model)
    torch.testing.assert_close(average.model.fc.weight, before + 0.5)
    again = Average(model, 0.5)
    again.load_state_dict(average.state_dict())
    assert again.updates == 42
    assert torch.equal(again.model.fc.weight, average.model.fc.weight)
