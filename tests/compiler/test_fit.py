import dataclasses

import pytest

from compiler.errors import CompileError
from compiler.fit import check_fit, image_words, needs
from compiler.pipeline import compile_tensors
from isa.geometry import GEOMETRIES, TINY, ULX3S_25F, ULX3S_85F
from isa.network import Network, Stem
from isa.registers import Source
from tests.networks import SMALL_NETWORKS, random_checkpoint, small_network

FMNIST = Network("fmnist-s", (28, 28), 1, 10, (32, 64, 128), (2, 2, 2), (0.286,), (0.353,))
RESNET18 = Network(
    "resnet18", (224, 224), 3, 1000, (64, 128, 256, 512), (4, 4, 4, 4), (0.5,) * 3, (0.2,) * 3,
    Stem(7, 2, True),
)  # fmt: skip


def network(**changes):
    return dataclasses.replace(FMNIST, **changes)


def test_fmnist_s_fits_the_25f_with_its_image_in_ram():
    check_fit(FMNIST, ULX3S_25F)
    assert {need.memory: need.needed for need in needs(FMNIST, ULX3S_25F)} == {
        "residual_words": 28 * 28 * 16,
        "bit_words": 2 * 28 * 28,
        "ring_words": 9 * 4 * 4,
        "input_bytes": 784,
        "line_words": 0,
        "channels": 128,
        "classes": 10,
        "image_words": 15373,
    }


def test_resnet18_fits_the_85f_with_its_image_in_sdram():
    check_fit(RESNET18, ULX3S_85F)
    found = {need.memory: need.needed for need in needs(RESNET18, ULX3S_85F)}
    assert found["residual_words"] == 56 * 56 * 8
    assert found["bit_words"] == 2 * 56 * 56
    assert found["ring_words"] == 72 * 8
    assert found["line_words"] == 56 * 8
    assert found["input_bytes"] == (7 + 2) * 224 * 3 + 4
    assert found["sdram_image_words"] == image_words(RESNET18, ULX3S_85F) < 1 << 22
    assert "image_words" not in found


def test_resnet18_of_every_size_compiles_for_the_85f():
    """At full width; its tensors do not depend on the size."""
    small = dataclasses.replace(RESNET18, input_size=(32, 32))
    info, tensors = random_checkpoint(small)
    cycles = []
    for size in (32, 224):
        sized = dataclasses.replace(RESNET18, input_size=(size, size))
        assert sized.final_size == (size // 32, size // 32)
        of_size = dataclasses.replace(info, network=sized)
        built = compile_tensors(of_size, tensors, ULX3S_85F, source=Source.SDRAM, verify=False)
        assert built.image.info.input_shape == (size, size, 3)
        cycles.append(built.report["estimate"]["cycles"])
    assert cycles[0] < cycles[1] < 49 * cycles[0]


REFUSALS = {
    "residual": (
        network(input_size=(32, 32)),
        ULX3S_25F,
        "Residual map must fit 13312 words of 2 residuals of geometry ulx3s-25f, not 16384 (3072 "
        "too many); the smallest known geometry that fits is ulx3s-85f",
    ),
    "bits": (
        network(input_size=(40, 32), widths=(2,), blocks_per_stage=(1,)),
        dataclasses.replace(ULX3S_25F, bit_words=1000),
        "Bit maps must fit 1000 32-bit words of geometry ulx3s-25f, not 1280 (280 too many); the "
        "smallest known geometry that fits is ulx3s-25f",
    ),
    "ring": (
        network(input_size=(4, 4), widths=(128, 256), blocks_per_stage=(1, 2)),
        dataclasses.replace(ULX3S_25F, ring_words=256),
        "Weight ring must fit 256 128-bit words of geometry ulx3s-25f, not 288 for a tile of layer "
        "blocks.2 (32 too many); the smallest known geometry that fits is ulx3s-85f",
    ),
    "input": (
        network(input_size=(36, 36), widths=(2,), blocks_per_stage=(1,)),
        TINY,
        "Bit maps must fit 512 8-bit words of geometry tiny, not 1296 (784 too many); the "
        "smallest known geometry that fits is ulx3s-25f",
    ),
    "image": (
        network(widths=(32, 64, 128, 256), input_size=(24, 24), blocks_per_stage=(1, 1, 1, 1)),
        ULX3S_25F,
        "Image RAM must fit 15872 32-bit words of geometry ulx3s-25f, not 28433 (12561 too many); "
        "the smallest known geometry that fits is ulx3s-85f",
    ),
}


@pytest.mark.parametrize(("shape", "geometry", "message"), REFUSALS.values(), ids=REFUSALS)
def test_refusals(shape, geometry, message):
    with pytest.raises(CompileError) as error:
        check_fit(shape, geometry)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("memory", "available", "message"),
    [
        ("input_bytes", 256, "Input ring must fit 256 bytes of geometry tiny, not 768 (512 too "),
        ("line_words", 4, "Line buffer must fit 4 words of 2 channels of geometry tiny, not 8 (4 "),
        ("channels", 8, "Feature memory must fit 8 channels of geometry tiny, not 12 (4 too many"),
        ("classes", 3, "Result memory must fit 3 classes of geometry tiny, not 4 (1 too many); "),
    ],
)
def test_every_memory_is_checked(memory, available, message):
    geometry = dataclasses.replace(TINY, **{memory: available})
    checkpoint = random_checkpoint(small_network("big-stem"))
    with pytest.raises(CompileError) as error:
        compile_tensors(*checkpoint, geometry)
    assert str(error.value).startswith(message)
    assert str(error.value).endswith("the smallest known geometry that fits is tiny")


def test_the_image_must_fit_where_it_will_be():
    geometry = dataclasses.replace(TINY, image_words=100, sdram_bytes=1024)
    checkpoint = random_checkpoint(small_network("plain"))
    for source, message in {
        None: "Image RAM must fit 100 32-bit words of geometry tiny, not ",
        Source.RAM: "Image RAM must fit 100 32-bit words of geometry tiny, not ",
        Source.SDRAM: "Image half of the SDRAM must fit 128 32-bit words of geometry tiny, not ",
    }.items():
        with pytest.raises(CompileError) as error:
            compile_tensors(*checkpoint, geometry, source=source)
        assert str(error.value).startswith(message)
        assert str(error.value).endswith("the smallest known geometry that fits is tiny")
    compiled = compile_tensors(*checkpoint, geometry, source=Source.LINK)
    assert compiled.report["source"] == "link"
    assert not {"image_words", "sdram_image_words"} & compiled.report["memory"].keys()


@pytest.mark.parametrize("shape", SMALL_NETWORKS, ids=lambda n: n.name)
@pytest.mark.parametrize("geometry", GEOMETRIES.values(), ids=lambda g: g.name)
def test_size_of_the_image_is_known_beforehand(shape, geometry):
    compiled = compile_tensors(*random_checkpoint(shape), geometry, verify=False)
    assert len(compiled.image.words) == image_words(shape, geometry)
