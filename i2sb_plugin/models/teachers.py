"""The trained bridge that a student learns from: its options, its network, and its weights in the student's network."""

import copy
import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from basicsr.archs import build_network
from basicsr.utils.registry import ARCH_REGISTRY
from torch import Tensor, nn

from basicsr_ext.checkpoints.networks import check_fit, network_channels
from basicsr_ext.checkpoints.storage import load_weights
from basicsr_ext.common.errors import InputError
from basicsr_ext.images.values import difference, values_of
from basicsr_ext.options.check import model_class
from basicsr_ext.restoring.configuration import find_options
from i2sb_plugin.archs.bridge_network import BridgeNetwork
from i2sb_plugin.models.bridge_options import BridgeOptions, read_block
from i2sb_plugin.models.i2sb_model import I2SBModel

__all__ = ["Teacher", "load_network", "read_teacher", "widened"]

_OPTION = "path.teacher"
# What a student may set otherwise: how its network is computed, and which nodes the teacher was trained at
_OF_THE_NETWORK = {"type", "cond_channels", "checkpoint", "fold_upsampling", "dropout"}
_OF_TRAINING = {"x1_share", "nodes", "residual_variance"}


@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained bridge that sees x1.

    Attributes:
        file: its checkpoint.
        network: its ``network_g``.
        bridge: its ``bridge``, a measured ``residual_variance`` included.
    """

    file: Path
    network: Mapping[str, Any]
    bridge: BridgeOptions


def read_teacher(opt: Mapping[str, Any]) -> Teacher:
    """Find the options of ``path.teacher`` as ``basicsr restore`` does, and compare them with those of its student.

    Raises:
        InputError: there is no such file, it holds no options, it is no bridge or one that no student can learn from,
            or ``scale``, ``bridge`` or ``network_g`` do not fit it; names the option, both values and the cure.
    """
    file = (opt.get("path") or {}).get("teacher")
    if not file or not isinstance(file, str):
        said = f"is {file!r}" if file else "is missing"
        raise InputError(f"{_OPTION} {said}; give the checkpoint of a trained bridge that sees x1")
    found, _ = find_options(file, option=_OPTION)
    lead, model = f"{_OPTION} is {file}", model_class(found)
    if model is None or not issubclass(model, I2SBModel) or list(model.option_blocks) != list(I2SBModel.option_blocks):
        raise InputError(f"{lead}, whose model_type is {found['model_type']}; it must be a bridge, I2SBModel")
    bridge = read_block(BridgeOptions, found.get("bridge"), "bridge")
    if not bridge.cond_x1 or bridge.ot_ode:
        wrong = "ot_ode is true: it carries no noise" if bridge.cond_x1 else "cond_x1 is false: it does not see x1"
        raise InputError(f"{lead}, whose bridge.{wrong}; train one with cond_x1: true and ot_ode: false")
    if bridge.predicts == "preconditioned" and bridge.residual_variance == "auto":
        raise InputError(f"{lead}, whose bridge.residual_variance is auto, not a measured number; export it again")
    faults = _scale_faults(opt, found) + _bridge_faults(opt, bridge) + _network_faults(opt, found["network_g"])
    if differs := difference(values_of(opt), values_of(found)):
        raise InputError(f"{lead}, which was trained on {differs}")
    if faults:
        raise InputError(f"{lead}, which does not fit: {'; '.join(faults)}")
    return Teacher(Path(file).expanduser(), found["network_g"], bridge)


def _scale_faults(opt: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[str]:
    ours, its = opt.get("scale", 1), teacher.get("scale", 1)
    return [] if ours == its else [f"scale is {ours}, the teacher's is {its}; set scale: {its}"]


def _bridge_faults(opt: Mapping[str, Any], teacher: BridgeOptions) -> list[str]:
    own, faults = read_block(BridgeOptions, opt.get("bridge"), "bridge"), []
    for field in dataclasses.fields(BridgeOptions):
        ours, its = getattr(own, field.name), getattr(teacher, field.name)
        if ours != its and (field.name not in _OF_TRAINING or (field.name == "residual_variance" and ours != "auto")):
            cure = f"set bridge.{field.name}: {_written(its)}"
            faults.append(f"bridge.{field.name} is {_written(ours)}, the teacher's is {_written(its)}; {cure}")
    return faults


def _network_faults(opt: Mapping[str, Any], teacher: Mapping[str, Any]) -> list[str]:
    own = opt["network_g"]
    if own["type"] != teacher["type"]:
        return [f"network_g.type is {own['type']}, the teacher's is {teacher['type']}; set it to that"]
    cls = ARCH_REGISTRY.get(own["type"])
    if getattr(cls, "first_weight", None) is None:
        said = f"network_g.type is {own['type']}, of which it is not known where it would take the noise in"
        return [f"{said}; train a teacher of type ADMUNet or ConditionalNAFNet"]
    faults, wanted = [], (teacher.get("cond_channels") or 0) + (network_channels(teacher)[0] or 0)
    for name, parameter in inspect.signature(cls).parameters.items():
        ours, its = (block.get(name, parameter.default) for block in (own, teacher))
        if name not in _OF_THE_NETWORK and ours != its:
            cure = f"set network_g.{name}: {_written(its)}"
            faults.append(f"network_g.{name} is {_written(ours)}, the teacher's is {_written(its)}; {cure}")
    if not faults and own.get("cond_channels", 0) != wanted:
        said = f"network_g.cond_channels is {own.get('cond_channels', 0)}"
        why = f"the teacher's {teacher.get('cond_channels') or 0} and the noise make {wanted}"
        faults.append(f"{said}, but {why}; set network_g.cond_channels: {wanted}")
    return faults


def _written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "~" if value is None else str(value)


def load_network(teacher: Teacher) -> nn.Module:
    """Build the teacher's network with its averaged weights, or the only ones; InputError if they do not fit."""
    net = build_network(copy.deepcopy(dict(teacher.network)))
    lead = f"{_OPTION} {teacher.file} does not fit its own network_g, a {type(net).__name__}"
    net.load_state_dict(check_fit(load_weights(teacher.file, "params_ema", _OPTION), net, lead, "export it again"))
    return net.eval().requires_grad_(False)


def widened(teacher: nn.Module, student: BridgeNetwork) -> dict[str, Tensor]:
    """The teacher's weights for a network that sees more channels behind its own, which change nothing yet.

    The first layer sees each channel of the image as ``unshuffle``^2 channels in a row, so that what is new comes last
    there too: its weights are zero.

    Args:
        teacher: a trained network.
        student: the same one with more ``cond_channels``.

    Returns:
        A state dict for ``student``.

    Raises:
        InputError: it is not known which layer of such a network sees its input.
    """
    weights, name = teacher.state_dict(), student.first_weight
    if name is None:
        raise InputError(f"it is not known which layer of a {type(student).__name__} sees its input")
    first = student.state_dict()[name].new_zeros(student.state_dict()[name].shape)
    first[:, : weights[name].shape[1]] = weights[name]
    return {**weights, name: first}
