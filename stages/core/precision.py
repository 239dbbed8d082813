"""Choose bfloat16 or float32 for a training: what is faster on this device."""

import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

Precision = Literal["bf16", "fp32"]


class Processor(NamedTuple):
    """What decides how fast a processor computes in bfloat16.

    Attributes
    ----------
    vendor
        As in /proc/cpuinfo: "AuthenticAMD", "GenuineIntel"; empty: unknown.
    avx512_bf16
        Whether it multiplies bfloat16 vectors.
    amx_bf16
        Whether it multiplies bfloat16 matrices, and the operating system lets it.
    """

    vendor: str = ""
    avx512_bf16: bool = False
    amx_bf16: bool = False


def parse_cpuinfo(text: str) -> Processor:
    """Read the facts of the first processor in the text of Linux's /proc/cpuinfo.

    Processors other than x86 have neither of these lines: all facts stay at "no".
    """
    fields: dict[str, str] = {}
    for line in text.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip(), value.strip())
    flags = fields.get("flags", "").split()
    return Processor(fields.get("vendor_id", ""), "avx512_bf16" in flags, "amx_bf16" in flags)


def read_processor() -> Processor:
    """Return the facts of this machine's processor.

    Without /proc/cpuinfo they come from torch, which does not tell the vendor.
    """
    if sys.platform == "linux":
        try:
            return parse_cpuinfo(Path("/proc/cpuinfo").read_text("utf-8"))
        except OSError:
            pass
    return Processor(
        avx512_bf16=torch.cpu._is_avx512_bf16_supported(),
        amx_bf16=torch.cpu._is_amx_tile_supported(),
    )


def has_depthwise_convolutions(model: nn.Module) -> bool:
    """Tell whether a convolution computes each output channel from a single input channel."""
    return any(
        isinstance(module, nn.Conv2d) and 1 < module.groups == module.in_channels
        for module in model.modules()
    )


def faster_on_cpu(processor: Processor, depthwise: bool) -> tuple[Precision, str]:
    """Return the precision in which a network trains faster on a CPU, and the reason.

    The rule is fixed and takes no time itself, so that the same network on the same processor
    always trains in the same precision. `benchmarks/precision.py` checks it. Where nothing was
    measured, it takes float32.

    Parameters
    ----------
    processor
        Facts of the processor.
    depthwise
        Whether the network has depthwise convolutions. Instructions for bfloat16 are fast because
        they add up products over several channels, but these convolutions read only one. On a Xeon
        without AMX the backward pass of a 5 × 5 one takes three to four times as long in bfloat16.
        On other processors it was not measured.
    """
    if processor.amx_bf16:
        reason = "the processor has AMX"
    elif not processor.avx512_bf16:
        return "fp32", "the processor has no fast bfloat16"
    elif processor.vendor == "AuthenticAMD":
        reason = "the processor is AMD's and has AVX-512 BF16"
    elif processor.vendor == "GenuineIntel":
        return "fp32", "bfloat16 is slower on Intel's processors without AMX"
    else:
        return "fp32", "it is unknown whether bfloat16 is faster on this processor"
    if depthwise:
        return "fp32", "bfloat16 is not known to be faster for depthwise convolutions on a CPU"
    return "bf16", reason


def choose_precision(
    wanted: Literal["auto", "bf16", "fp32"], device: torch.device, model: nn.Module
) -> tuple[Precision, str]:
    """Return the precision of a training, and the reason: what the user wants, or what is faster.

    Parameters
    ----------
    wanted
        The setting `precision`.
    device
        Where the network trains.
    model
        The network that trains. A frozen teacher beside it runs in the same precision.
    """
    if wanted != "auto":
        return wanted, "as set"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU has bfloat16"
        return "fp32", "the GPU has no bfloat16"
    return faster_on_cpu(read_processor(), has_depthwise_convolutions(model))


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[Any]:
    """Return a context in which convolutions and matrix products compute in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")
