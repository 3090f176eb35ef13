"""The sign of activations and weights."""

import torch

from rbonn_train.methods.base import hard_sign, sign


def test_sign_is_never_zero() -> None:
    x = torch.tensor([-3.0, -1.0, -1e-30, -0.0, 0.0, 1e-30, 1.0])
    assert sign(x).tolist() == [-1, -1, -1, 1, 1, 1, 1]
    assert hard_sign(x).tolist() == sign(x).tolist()


def test_gradient_of_sign_is_approx_sign() -> None:
    x = torch.tensor([-2.0, -1.0, -0.75, -0.25, 0.0, 0.25, 0.75, 1.0, 2.0], requires_grad=True)
    upstream = torch.tensor([1.0, 1.0, 1.0, 2.0, 1.0, 1.0, -1.0, 1.0, 1.0])
    sign(x).backward(upstream)
    assert x.grad is not None
    assert x.grad.tolist() == [0, 0, 0.5, 3, 2, 1.5, -0.5, 0, 0]
