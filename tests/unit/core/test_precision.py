"""Which precision a training takes: by processor, network and setting."""

import pytest
import torch
from torch import nn

from stages.core import precision
from stages.core.precision import Processor, choose_precision, faster_on_cpu, parse_cpuinfo

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
INTEL_AMX = Processor("GenuineIntel", avx512_bf16=True, amx_bf16=True)
INTEL_BF16 = Processor("GenuineIntel", avx512_bf16=True)
INTEL_OLD = Processor("GenuineIntel")
AMD_BF16 = Processor("AuthenticAMD", avx512_bf16=True)
AMD_OLD = Processor("AuthenticAMD")
UNKNOWN_AMX = Processor(avx512_bf16=True, amx_bf16=True)
UNKNOWN_BF16 = Processor(avx512_bf16=True)
UNKNOWN = Processor()
PLAIN = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
GROUPED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2))
DEPTHWISE = nn.Sequential(PLAIN, nn.Sequential(nn.Conv2d(8, 16, 3, groups=8)))


@pytest.mark.parametrize(
    ("processor", "plain", "depthwise", "reason"),
    [
        (INTEL_AMX, "bf16", "fp32", "AMX"),
        (INTEL_BF16, "fp32", "fp32", "without AMX"),
        (INTEL_OLD, "fp32", "fp32", "no fast bfloat16"),
        (AMD_BF16, "bf16", "fp32", "AMD"),
        (AMD_OLD, "fp32", "fp32", "no fast bfloat16"),
        (UNKNOWN_AMX, "bf16", "fp32", "AMX"),
        (UNKNOWN_BF16, "fp32", "fp32", "unknown"),
        (UNKNOWN, "fp32", "fp32", "no fast bfloat16"),
    ],
)
def test_a_cpu_takes_the_precision_that_is_faster(processor, plain, depthwise, reason):
    chosen, found = faster_on_cpu(processor, depthwise=False)
    assert chosen == plain and reason in found
    assert faster_on_cpu(processor, depthwise=True)[0] == depthwise


def test_the_reason_names_depthwise_convolutions_where_they_decide():
    assert "depthwise" in faster_on_cpu(INTEL_AMX, depthwise=True)[1]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (PLAIN, False),
        (GROUPED, False),
        (DEPTHWISE, True),
        # One input channel: an ordinary convolution of a grey image.
        (nn.Conv2d(1, 8, 3), False),
    ],
)
def test_depthwise_convolutions_are_found(model, expected):
    assert precision.has_depthwise_convolutions(model) == expected


@pytest.mark.parametrize("device", [CPU, GPU])
@pytest.mark.parametrize("wanted", ["bf16", "fp32"])
@pytest.mark.parametrize("processor", [INTEL_AMX, INTEL_OLD])
def test_the_setting_is_obeyed(wanted, device, processor, monkeypatch):
    monkeypatch.setattr(precision, "read_processor", lambda: processor)
    assert choose_precision(wanted, device, DEPTHWISE) == (wanted, "as set")


@pytest.mark.parametrize(("supported", "expected"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bfloat16_if_it_has_it_without_emulation(supported, expected, monkeypatch):
    def is_supported(including_emulation):
        assert not including_emulation
        return supported

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    monkeypatch.setattr(precision, "read_processor", lambda: INTEL_OLD)
    assert choose_precision("auto", GPU, DEPTHWISE)[0] == expected


@pytest.mark.parametrize(
    ("processor", "model", "expected"),
    [(INTEL_AMX, PLAIN, "bf16"), (INTEL_AMX, DEPTHWISE, "fp32"), (INTEL_BF16, PLAIN, "fp32")],
)
def test_auto_reads_processor_and_network(processor, model, expected, monkeypatch):
    monkeypatch.setattr(precision, "read_processor", lambda: processor)
    assert choose_precision("auto", CPU, model)[0] == expected


@pytest.mark.parametrize("name", ["bf16", "fp32"])
def test_autocast_computes_in_the_given_precision(name):
    expected = {"bf16": torch.bfloat16, "fp32": torch.float32}[name]
    with precision.autocast(CPU, name):
        assert (torch.ones(1, 1) @ torch.ones(1, 1)).dtype == expected


# Reading the processor


CPUINFO = """\
processor\t: 0
vendor_id\t: {vendor}
model name\t: A: processor
flags\t\t: fpu avx512f {flags}
bugs\t\t: spectre_v1

processor\t: 1
vendor_id\t: another
flags\t\t: fpu
"""


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("GenuineIntel", "avx512_bf16 amx_bf16 amx_tile amx_int8", INTEL_AMX),
        ("GenuineIntel", "avx512_bf16 avx512_fp16", INTEL_BF16),
        ("GenuineIntel", "avx2", INTEL_OLD),
        # Tiles of 8-bit integers alone do not help.
        ("GenuineIntel", "avx512_bf16 amx_tile amx_int8", INTEL_BF16),
        ("AuthenticAMD", "avx512_bf16", AMD_BF16),
    ],
)
def test_cpuinfo_of_x86_is_read(vendor, flags, expected):
    assert parse_cpuinfo(CPUINFO.format(vendor=vendor, flags=flags)) == expected


@pytest.mark.parametrize("text", ["", "processor\t: 0\nFeatures\t: fp asimd bf16 i8mm\n"])
def test_nothing_is_known_of_other_processors(text):
    assert parse_cpuinfo(text) == UNKNOWN


def without_proc(monkeypatch):
    monkeypatch.setattr(precision.sys, "platform", "darwin")


def unreadable_proc(monkeypatch):
    def fail(*_):
        raise PermissionError

    monkeypatch.setattr(precision.sys, "platform", "linux")
    monkeypatch.setattr(precision.Path, "read_text", fail)


@pytest.mark.parametrize("hide", [without_proc, unreadable_proc])
@pytest.mark.parametrize("amx", [False, True])
def test_without_cpuinfo_torch_knows_the_instructions_but_not_the_vendor(hide, amx, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    with monkeypatch.context() as patch:
        hide(patch)
        found = precision.read_processor()
    assert found == (UNKNOWN_AMX if amx else UNKNOWN_BF16)


@pytest.mark.skipif(precision.sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_cpuinfo_has_no_instructions_that_torch_does_not_see():
    """The kernel may hide instructions from the programs; torch asks the processor."""
    found = precision.read_processor()
    assert found.avx512_bf16 <= torch.cpu._is_avx512_bf16_supported()
    assert found.amx_bf16 <= torch.cpu._is_amx_tile_supported()
