"""A GPU made of shapes: what is on `cuda` has a type, a shape and a device, but no values; the CPU works as ever.

A tensor on the wrong device raises here as on a card, and so does waiting for one: its value cannot be read. No driver
is needed. What only a driver can do has a stand-in: the backward pass gives gradients of zeros.
"""

import contextlib
from collections.abc import Iterator
from unittest import mock

import torch
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._pytree import tree_leaves, tree_map

__all__ = ["WAITED", "fake_gpu"]

WAITED = DataDependentOutputException  # what reading a value of the fake GPU raises


class _FakeGpu(FakeTensorMode):
    """Computes for real what touches the CPU alone."""

    def __init__(self) -> None:
        super().__init__(allow_non_fake_inputs=True)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = {key: value for key, value in (kwargs or {}).items() if key != "pin_memory"}
        leaves = tree_leaves((args, kwargs))
        if not any(isinstance(x, FakeTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in leaves):
            return func(*args, **kwargs)
        with unset_fake_temporarily():  # the mode would compute with real values where it has nothing else
            args, kwargs = tree_map(self._faked, (args, kwargs))
        return super().__torch_dispatch__(func, types, args, kwargs)

    def _faked(self, value):
        real = isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)
        return self.from_tensor(value) if real else value


class _Generator(torch.Generator):
    """A generator that says it is on the device it was asked for."""

    def __new__(cls, device="cpu"):
        made = super().__new__(cls)
        made.asked = torch.device(device)
        return made

    @property
    def device(self):
        return self.asked


def _moved(self: nn.Module, *args, **kwargs) -> nn.Module:
    for module in self.modules():
        for name, value in module._parameters.items():
            if value is not None:
                module._parameters[name] = nn.Parameter(value.detach().to("cuda"), requires_grad=value.requires_grad)
        for name, value in module._buffers.items():
            if value is not None:
                module._buffers[name] = value.to("cuda")
    return self


@contextlib.contextmanager
def fake_gpu() -> Iterator[None]:
    """Within it a model with ``num_gpu: 1`` can be built, trained for a step, and asked to restore."""
    stand_ins = [
        mock.patch("torch.cuda.is_available", return_value=True),
        mock.patch("torch.cuda.device_count", return_value=1),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        mock.patch("torch.cuda.Event"),
        mock.patch("torch.Generator", _Generator),
        mock.patch.object(torch.Tensor, "pin_memory", lambda self: self),
        mock.patch.object(nn.Module, "to", _moved),
    ]
    with _FakeGpu(), contextlib.ExitStack() as stack:  # the mode first: it would look for a driver
        for stand_in in stand_ins:
            stack.enter_context(stand_in)
        yield


def backward_of_zeros(parameters):
    """A stand-in for the backward pass, which needs a driver."""
    parameters = list(parameters)

    def backward(self) -> None:
        assert self.requires_grad and self.shape == ()
        for parameter in parameters:
            parameter.grad = torch.zeros_like(parameter)

    return mock.patch.object(torch.Tensor, "backward", backward)
