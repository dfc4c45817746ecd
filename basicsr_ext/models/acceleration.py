"""What makes training and restoring fast: precision, memory layout, compilation, TF32, fused optimiser.

Every choice is made by the device and can be forced by an option of ``train:``; ``basicsr doctor`` prints it.
"""

import importlib.util
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from basicsr_ext.common.contracts import NetworkContract

Precision = Literal["fp32", "bf16", "fp16"]
_FUSED = ("Adam", "AdamW", "SGD")  # the optimisers of torch with one kernel on the CPU and on a GPU
_MOST_GRAPHS = 256  # of one compiled function: kinds of blocks x training or not x precision
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_UNITS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # of x86, then of ARM, by torch's names
_COMPILERS = ("cc", "gcc", "clang")  # one of which Triton needs


@dataclass(frozen=True)
class Acceleration:
    """What was chosen; ``device`` is 'cpu' or 'cuda'."""

    device: str
    precision: Precision = "fp32"  # of the network's forward pass; weights, normalisations, schedules stay in fp32
    channels_last: bool = False  # images lie in memory pixel by pixel
    compile: bool = False  # the repeated parts of the network, for any batch and image size
    tf32: bool = False  # products and convolutions in fp32 round their factors to 10 bits (GPUs alone)

    def start(self) -> None:
        """Set what holds for the whole process: TF32."""
        if self.device == "cuda":
            torch.set_float32_matmul_precision("high" if self.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.tf32

    def prepare(self, net: nn.Module) -> nn.Module:
        """Lay out the weights of ``net`` and mark its parts for compilation, in place; the names of weights stay."""
        if self.channels_last:
            net.to(memory_format=torch.channels_last)
        if self.compile:
            torch.fx.experimental._config.use_duck_shape = False  # sizes that are equal once may differ
            torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _MOST_GRAPHS)
            for part in compiled_parts(net):
                part.compile(dynamic=True)
        return net

    def autocast(self) -> torch.autocast:
        """The context of a network call at the chosen precision."""
        dtype = _DTYPES.get(self.precision)
        return torch.autocast(self.device, dtype, enabled=dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that gradients of fp16 do not vanish; does nothing at other precisions."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    @staticmethod
    def optimizer_options(kind: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """``given`` with ``fused: true`` where torch has that for the optimiser and the options say nothing else."""
        settled = {"fused", "foreach", "capturable", "differentiable"} & given.keys()
        return {**given, "fused": True} if kind in _FUSED and not settled else dict(given)

    def lines(self) -> list[str]:
        """One sentence for each choice."""
        where = "GPU" if self.device == "cuda" else "CPU"
        yes = {True: "yes", False: "no"}
        slow = "; bf16 is many times slower here: this CPU has no units for it" if lacks_bf16(self.device) else ""
        return [
            f"precision      {self.precision} (train.precision{slow})",
            f"channels_last  {yes[self.channels_last]} (train.channels_last)",
            f"compile        {yes[self.compile]} (train.compile)",
            f"tf32           {yes[self.tf32] if where == 'GPU' else 'no: a GPU has it'} (train.tf32)",
            f"optimiser      one kernel for {', '.join(_FUSED)} (train.optim_g.fused)",
            "weight average one kernel (torch._foreach_lerp_)",
        ]


def choose(device: torch.device | str, wishes: Mapping[str, Any] | None = None) -> Acceleration:
    """Choose by device what ``wishes``, the block ``train:``, leave open: keys that are absent or 'auto'.

    bf16 on a GPU with units for it, else fp32. Compilation on a GPU where Triton and a C compiler are, never on
    a CPU by itself. channels_last on a CPU, and on a GPU where compiled: its plain GroupNorm copies in that layout.
    """
    kind = torch.device(device).type
    wish = {key: (wishes or {}).get(key, "auto") for key in ("precision", "channels_last", "compile", "tf32")}
    gpu = kind == "cuda"
    compiles = wish["compile"]
    if compiles == "auto":
        compiles = gpu and importlib.util.find_spec("triton") is not None and any(map(shutil.which, _COMPILERS))
    last = (compiles or not gpu) if wish["channels_last"] == "auto" else wish["channels_last"]
    precision = wish["precision"]
    if precision == "auto":
        precision = "bf16" if gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    tf32 = gpu if wish["tf32"] == "auto" else gpu and wish["tf32"]
    return Acceleration(kind, precision, last, compiles, tf32)


def lacks_bf16(device: torch.device | str) -> bool:
    """Whether it is a CPU without units for bf16, where that is many times slower than fp32; False if unknown."""
    if torch.device(device).type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return False
    return not any(torch.cpu.get_capabilities().get(unit) for unit in _BF16_UNITS)


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def compiled_parts(net: nn.Module) -> Iterable[nn.Module]:
    """The parts of a network that are worth compiling one by one, so that compiling takes seconds at any depth.

    A network may say so itself by its contract. Otherwise they are the blocks that lie in a list or a row at least
    twice and are made of several layers.
    """
    if isinstance(net, NetworkContract) and (named := list(net.compiled_parts())):
        return named
    rows = [m for m in net.modules() if isinstance(m, nn.ModuleList | nn.Sequential)]
    blocks = list(dict.fromkeys(b for row in rows for b in row if not type(b).__module__.startswith("torch.nn")))
    often = Counter(map(type, blocks))
    chosen = [b for b in blocks if often[type(b)] > 1 and any(True for _ in b.children())]
    inner = {id(m) for b in chosen for m in b.modules() if m is not b}
    return [b for b in chosen if id(b) not in inner]


def match_layouts(optimizer: torch.optim.Optimizer) -> None:
    """Give the optimiser's state the memory layout of its weights, as fused kernels need it.

    A state that was saved in another layout would be read in the wrong order.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
