"""kernels.cpp against float64, and bit for bit against itself in other company. Everything is
tested as built for this processor, and as built for any, without vector instructions."""

import math
import os
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from langue.errors import LangueWarning
from langue.model import native as module
from langue.model.attention import AttentionConfig, attention_reference
from langue.model.native import Native, NativeError, find_compiler, load_native, native
from langue.model.native_check import (
    RANDOM_KINDS,
    TOLERANCE,
    PlainWeight,
    attend_reference,
    linear_reference,
    passes_self_test,
    random_weight,
)
from langue.model.position import rotate
from tests import forked

PAGE = 16
MOST = 70


def _has_compiler() -> bool:
    try:
        find_compiler()
    except NativeError:
        return False
    return True


needs_compiler = pytest.mark.skipif(not _has_compiler(), reason="no C++ compiler")


@pytest.fixture(scope="module", params=["this processor", "any processor"])
def kernels(request: pytest.FixtureRequest) -> Native:
    """Those of the user's cache folder, as other tests use them; or of one that outlasts the tests,
    as what is built for any processor takes seconds and is of no use to anybody else.
    """
    if not _has_compiler():
        pytest.skip("no C++ compiler")
    if request.param == "this processor":
        return load_native()
    assert request.config.cache is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(request.config.cache.mkdir("kernels")))
        # without options, compilers build for the oldest processors
        return load_native(((),))


@pytest.fixture
def draw() -> torch.Generator:
    return torch.Generator().manual_seed(1)


@pytest.fixture
def threads() -> Iterator[None]:
    """Leaves PyTorch's number of threads as it was."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# ---- products


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@pytest.mark.parametrize(
    ("outputs", "inputs"), [(1, 32), (8, 64), (33, 96), (50, 1024), (17, 1056), (64, 2336)]
)
def test_products_agree_with_float64(
    kernels: Native, draw: torch.Generator, kind: str, outputs: int, inputs: int
) -> None:
    weight = random_weight(kind, (outputs, inputs), draw)
    for rows in (1, 2, 3, 4, 5, 8, 300):
        for bias in (None, torch.randn(outputs, generator=draw)):
            x = torch.randn(rows, inputs, generator=draw)
            want, magnitude = linear_reference(x, weight, bias)
            error = (kernels.linear(x, weight, bias).double() - want).abs()
            assert (error <= TOLERANCE * magnitude).all()


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_any_number_of_inputs_will_do(kernels: Native, draw: torch.Generator, kind: str) -> None:
    for inputs in (1, 7, 15, 33, 1025):
        weight = random_weight(kind, (13, inputs), draw)
        x = torch.randn(6, inputs, generator=draw)
        want, magnitude = linear_reference(x, weight)
        error = (kernels.linear(x, weight).double() - want).abs()
        assert (error <= TOLERANCE * magnitude).all()


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_a_row_has_the_same_bits_in_any_company(
    kernels: Native, draw: torch.Generator, kind: str
) -> None:
    weight = random_weight(kind, (45, 1056), draw)
    bias = torch.randn(45, generator=draw)
    x = torch.randn(MOST, 1056, generator=draw)
    alone = torch.cat([kernels.linear(x[m : m + 1], weight, bias) for m in range(MOST)])
    for rows in range(1, MOST + 1):
        assert torch.equal(kernels.linear(x[:rows], weight, bias), alone[:rows])
        assert torch.equal(kernels.linear(x[MOST - rows :], weight, bias), alone[MOST - rows :])
    many = x.repeat(9, 1)  # more rows than a block has
    assert torch.equal(kernels.linear(many, weight, bias), alone.repeat(9, 1))


@pytest.mark.parametrize("kind", RANDOM_KINDS)
def test_threads_change_no_bit(
    kernels: Native, draw: torch.Generator, threads: None, kind: str
) -> None:
    weight = random_weight(kind, (301, 1056), draw)
    x = torch.randn(40, 1056, generator=draw)
    torch.set_num_threads(1)
    want = kernels.linear(x, weight)
    for count in (2, 3, 7, 2):
        torch.set_num_threads(count)
        for _ in range(20):
            assert torch.equal(kernels.linear(x, weight), want)


def test_several_threads_of_the_program_may_call(
    kernels: Native, draw: torch.Generator, threads: None
) -> None:
    torch.set_num_threads(2)
    weights = [random_weight(kind, (301, 1056), draw) for kind in RANDOM_KINDS]
    x = torch.randn(5, 1056, generator=draw)
    want = [kernels.linear(x, weight) for weight in weights]
    wrong = []

    def work(i: int) -> None:
        for _ in range(50):
            if not torch.equal(kernels.linear(x, weights[i]), want[i]):
                wrong.append(i)

    running = [threading.Thread(target=work, args=(i,)) for i in range(len(weights))]
    for each in running:
        each.start()
    for each in running:
        each.join()
    assert wrong == []


def test_a_forked_process_may_call(kernels: Native, draw: torch.Generator, threads: None) -> None:
    torch.set_num_threads(2)
    weight = random_weight("int8", (301, 1056), draw)
    x = torch.randn(5, 1056, generator=draw)
    want = kernels.linear(x, weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(kernels.linear(x, weight), want) else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("kind", RANDOM_KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_bad_number_spoils_its_own_row_alone(
    kernels: Native, draw: torch.Generator, kind: str, bad: float
) -> None:
    weight = random_weight(kind, (19, 96), draw)
    x = torch.randn(9, 96, generator=draw)
    want = kernels.linear(x, weight)
    x[4, 70] = bad
    y = kernels.linear(x, weight)
    others = torch.arange(9) != 4
    assert torch.equal(y[others], want[others])
    assert not y[4].isfinite().any()


@pytest.mark.parametrize("kind", ["int8", "int8 of 16", "int4", "int4 with mins"])
def test_outliers_and_nothing_at_all(kernels: Native, draw: torch.Generator, kind: str) -> None:
    weight = random_weight(kind, (19, 96), draw)
    x = torch.randn(5, 96, generator=draw)
    x[0] = 0
    x[1, 3] = 1e30
    x[2] *= 1e-30
    x[3, 32:64] = 1e-42  # below the smallest normal number
    x[4] = torch.finfo(torch.float32).max / 1e5
    want, magnitude = linear_reference(x, weight)
    error = (kernels.linear(x, weight).double() - want).abs()
    assert (error <= TOLERANCE * magnitude).all()
    assert kernels.linear(x, weight)[0].abs().max() == 0


@pytest.mark.parametrize("code", [-128, -127, 127])
def test_nothing_saturates(kernels: Native, code: int) -> None:
    scales = torch.ones(9, 32, dtype=torch.float16)
    weight = PlainWeight("int8", torch.full((9, 1024), code, dtype=torch.int8), scales)
    signs = torch.ones(2, 1024)
    signs[1, ::2] = -1
    want = torch.tensor([[1024.0 * code], [0.0]]).expand(2, 9)
    assert torch.allclose(kernels.linear(signs, weight), want, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("byte", [0x00, 0xFF, 0x0F, 0xF0])
def test_nothing_saturates_in_four_bits(kernels: Native, byte: int) -> None:
    scales = torch.ones(9, 32, dtype=torch.float16)
    weight = PlainWeight("int4", torch.full((9, 512), byte, dtype=torch.uint8), scales)
    x = torch.full((2, 1024), 127.0)
    x[1] = -127
    each = 32 * 127 * 16 * ((byte & 15) + (byte >> 4) - 16)
    want = torch.tensor([[float(each)], [float(-each)]]).expand(2, 9)
    assert torch.equal(kernels.linear(x, weight), want)


def test_scales_may_have_32_bits(kernels: Native, draw: torch.Generator) -> None:
    for kind in ("int8", "int8 of 16", "int4", "int4 with mins"):
        half = random_weight(kind, (19, 1120), draw)
        assert half.scales is not None
        mins = None if half.mins is None else half.mins.float()
        full = PlainWeight(half.kind, half.data, half.scales.float(), mins, half.group)
        x = torch.randn(5, 1120, generator=draw)
        assert torch.equal(kernels.linear(x, full), kernels.linear(x, half))


def test_no_rows_and_views(kernels: Native, draw: torch.Generator) -> None:
    for kind in RANDOM_KINDS:
        weight = random_weight(kind, (19, 64), draw)
        assert kernels.linear(torch.zeros(0, 64), weight).shape == (0, 19)
        with pytest.raises(ValueError, match="gaps"):
            kernels.linear(torch.zeros(64, 4).T, weight)
        with pytest.raises(ValueError, match="elements"):
            kernels.linear(torch.zeros(4, 96), weight)
        with pytest.raises(ValueError, match="bias"):
            kernels.linear(torch.zeros(4, 64), weight, torch.zeros(18))
        with pytest.raises(ValueError, match="float64"):
            kernels.linear(torch.zeros(4, 64).double(), weight)
    short = PlainWeight("int8", torch.zeros(4, 64, dtype=torch.int8), torch.zeros(4, 1).half())
    with pytest.raises(ValueError, match="4 scales"):
        kernels.linear(torch.zeros(4, 64), short)
    odd = PlainWeight(
        "int8", torch.zeros(4, 64, dtype=torch.int8), torch.zeros(4, 8).half(), None, 8
    )
    assert not kernels.reads(odd)
    with pytest.raises(ValueError, match="group"):
        kernels.linear(torch.zeros(4, 64), odd)


# ---- pages


def _pages(
    draw: torch.Generator, lengths: list[int], kv_heads: int, width: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Random pages in random order; what no sequence has is NaN."""
    counts = [math.ceil(length / PAGE) for length in lengths]
    total = sum(counts) + 2
    order = torch.randperm(total, generator=draw).tolist()
    tables = torch.full((len(lengths), max(counts)), -1, dtype=torch.int32)
    pages = torch.full((2, total, kv_heads, PAGE, width), math.nan)
    for n, (count, length) in enumerate(zip(counts, lengths, strict=True)):
        for i in range(count):
            page = order.pop()
            tables[n, i] = page
            filled = min(PAGE, length - PAGE * i)
            values = torch.randn(2, kv_heads, filled, width, generator=draw)
            pages[:, page, :, :filled] = values
    return pages, tables, torch.tensor(lengths, dtype=torch.int32)


LENGTHS = [1, 16, 17, 40, 3, 129, 400]


@pytest.mark.parametrize("width", [8, 20, 64, 80, 128])
@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 4), (6, 2)])
@pytest.mark.parametrize(
    ("window", "cap", "alibi", "scale"),
    [(0, 0.0, False, 0.0), (18, 0.0, False, 0.3), (0, 2.0, True, 0.0), (1, 0.0, True, 0.0)],
)
def test_attention_agrees_with_float64(
    kernels: Native,
    draw: torch.Generator,
    width: int,
    heads: int,
    kv_heads: int,
    window: int,
    cap: float,
    alibi: bool,
    scale: float,
) -> None:
    pages, tables, lengths = _pages(draw, LENGTHS, kv_heads, width)
    q = torch.randn(len(LENGTHS), heads, width, generator=draw)
    slopes = torch.rand(heads, generator=draw) if alibi else None
    for sinks in (None, 5 * torch.randn(heads, generator=draw)):
        axes = (scale, window, cap, slopes, sinks)
        mixed = kernels.attend(q, pages, tables, lengths, *axes)
        want = attend_reference(q, pages, tables, lengths, *axes)
        assert torch.allclose(mixed.double(), want, rtol=0, atol=TOLERANCE)


def test_attention_agrees_with_that_of_training(kernels: Native, draw: torch.Generator) -> None:
    """With `attention_reference`, whose last token is the one query here."""
    q, k, v = torch.randn(3, 50, 4, 16, generator=draw).unbind(0)
    pages = torch.zeros(2, 4, 4, PAGE, 16)
    kernels.write(k, v, pages, torch.arange(50))
    tables = torch.arange(4, dtype=torch.int32)[None]
    lengths = torch.tensor([50], dtype=torch.int32)
    slopes = torch.rand(4, generator=draw)
    places = torch.arange(50)
    bias = -slopes[:, None, None] * (places[None, :] - places[:, None]).abs()
    config = AttentionConfig(causal=True, window=20, scale=0.4, cap=3.0)
    starts = torch.tensor([0, 50])
    last = q[-1:].contiguous()
    for sinks in (None, torch.randn(4, generator=draw)):
        want = attention_reference((q, k, v), starts, config=config, bias=bias, sinks=sinks)[-1:]
        mixed = kernels.attend(last, pages, tables, lengths, 0.4, 20, 3.0, slopes, sinks)
        assert torch.allclose(mixed.double(), want, rtol=0, atol=TOLERANCE)


def test_attention_of_a_sequence_has_the_same_bits_in_any_company(
    kernels: Native, draw: torch.Generator, threads: None
) -> None:
    pages, tables, lengths = _pages(draw, LENGTHS, 2, 64)
    q = torch.randn(len(LENGTHS), 4, 64, generator=draw)
    torch.set_num_threads(1)
    together = kernels.attend(q, pages, tables, lengths)
    for n in range(len(LENGTHS)):
        own = slice(n, n + 1)
        few = tables[own, : math.ceil(LENGTHS[n] / PAGE)].contiguous()
        assert torch.equal(kernels.attend(q[own], pages, few, lengths[own]), together[own])
    for count in (2, 5):
        torch.set_num_threads(count)
        assert torch.equal(kernels.attend(q, pages, tables, lengths), together)


def test_a_bad_number_spoils_its_own_sequence_alone(kernels: Native, draw: torch.Generator) -> None:
    pages, tables, lengths = _pages(draw, LENGTHS, 2, 64)
    q = torch.randn(len(LENGTHS), 4, 64, generator=draw)
    want = kernels.attend(q, pages, tables, lengths)
    for which in (0, 1):
        spoilt = pages.clone()
        spoilt[which, tables[3, 1], :, 5] = math.nan
        mixed = kernels.attend(q, spoilt, tables, lengths)
        others = torch.arange(len(LENGTHS)) != 3
        assert torch.equal(mixed[others], want[others])
        assert mixed[3].isnan().all()


def test_scores_of_any_size_give_weights(kernels: Native, draw: torch.Generator) -> None:
    pages, tables, lengths = _pages(draw, [40], 1, 32)
    q = torch.randn(1, 1, 32, generator=draw) * 1e4
    mixed = kernels.attend(q, pages, tables, lengths)
    want = attend_reference(q, pages, tables, lengths)
    assert torch.allclose(mixed.double(), want, rtol=0, atol=1e-4)  # scores of 10,000 in fp32


def test_impossible_pages_and_lengths_are_refused(kernels: Native, draw: torch.Generator) -> None:
    pages, tables, lengths = _pages(draw, [40, 3], 1, 32)
    q = torch.randn(2, 1, 32, generator=draw)
    for wrong in (-1, pages.shape[1]):
        changed = tables.clone()
        changed[0, 1] = wrong
        with pytest.raises(ValueError, match="outside"):
            kernels.attend(q, pages, changed, lengths)
        with pytest.raises(ValueError, match="outside"):
            slot = torch.tensor([wrong * PAGE, 0])
            kernels.write(torch.zeros(2, 1, 32), torch.zeros(2, 1, 32), pages, slot)
    for length in (0, -5, 49):
        with pytest.raises(ValueError, match="length"):
            kernels.attend(q, pages, tables, torch.tensor([length, 3], dtype=torch.int32))
    with pytest.raises(ValueError, match="int32"):
        kernels.attend(q, pages, tables, lengths.long())


def test_written_keys_and_values_stand_in_their_places(
    kernels: Native, draw: torch.Generator
) -> None:
    pages = torch.zeros(2, 5, 3, PAGE, 20)
    slots = torch.randperm(5 * PAGE, generator=draw)[:33]
    k, v = torch.randn(2, 33, 3, 20, generator=draw).unbind(0)
    kernels.write(k, v, pages, slots)
    want = torch.zeros_like(pages)
    want[0, slots // PAGE, :, slots % PAGE] = k
    want[1, slots // PAGE, :, slots % PAGE] = v
    assert torch.equal(pages, want)


@pytest.mark.parametrize("half", [1, 10, 16, 20])
def test_rotations_agree(kernels: Native, draw: torch.Generator, half: int) -> None:
    x = torch.randn(7, 3, 40, generator=draw)
    angles = torch.randn(7, half, generator=draw) * 100
    want = rotate(x.double(), (angles.cos().double(), angles.sin().double()))
    kernels.rotate(x, angles.cos(), angles.sin())
    assert torch.allclose(x.double(), want, rtol=0, atol=1e-6)


# ---- building


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A cache folder with nothing in it, and a process that has not asked for kernels yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv("LANGUE_NATIVE", raising=False)
    native.cache_clear()
    yield tmp_path / "cache" / "langue"
    native.cache_clear()


@pytest.fixture(scope="module")
def quick_compiler(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A compiler that takes seconds once: later it copies what it built."""
    folder = tmp_path_factory.mktemp("compiler")
    built = folder / "built.so"
    real = " ".join(find_compiler())
    script = folder / "c++"
    script.write_text(
        "#!/bin/sh\n"
        'if [ "$1" = --version ]; then echo quick; exit 0; fi\n'
        'while [ "$1" != -o ]; do shift; done\n'
        f"echo built >> {folder}/log\n"
        f"[ -f {built} ] || {real} -std=c++17 -O1 -march=native -ffp-contract=off -shared -fPIC"
        f' -pthread -o {built} "$3"\n'
        f'cp {built} "$2"\n'
    )
    script.chmod(0o755)
    return script


def _builds(compiler: Path) -> int:
    log = compiler.with_name("log")
    return log.read_text().count("built") if log.exists() else 0


def _warned() -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        native()
        native()
    return [str(each.message) for each in caught if each.category is LangueWarning]


def test_without_a_compiler_all_is_said_once(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (said,) = _warned()
    assert "no C++ compiler" in said and "Install" in said
    assert native() is None


def test_a_compiler_that_fails_is_quoted(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "c++"
    broken.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\necho "error: no space" >&2\nexit 1\n'
    )
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (said,) = _warned()
    assert "error: no space" in said
    assert native() is None
    assert list(fresh.iterdir()) == []


def test_a_compiler_that_builds_nonsense_is_not_used(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = tmp_path / "c++"
    odd.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 1 && exit\n'
        'while [ "$1" != -o ]; do shift; done\necho nonsense > "$2"\n'
    )
    odd.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (said,) = _warned()
    assert "does not work" in said
    assert native() is None


def test_it_can_be_switched_off(fresh: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANGUE_NATIVE", "0")
    assert _warned() == []
    assert native() is None


@needs_compiler
def test_built_once_and_kept(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, quick_compiler: Path
) -> None:
    monkeypatch.setenv("CXX", str(quick_compiler))
    assert _warned() == []
    built = _builds(quick_compiler)
    (kept,) = fresh.iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    native.cache_clear()
    assert _warned() == []
    assert native() is not None
    assert _builds(quick_compiler) == built


@needs_compiler
@pytest.mark.parametrize("how", ["empty", "cut", "changed", "of others", "a link"])
def test_a_broken_or_foreign_file_is_built_anew(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, quick_compiler: Path, how: str
) -> None:
    monkeypatch.setenv("CXX", str(quick_compiler))
    assert native() is not None
    built = _builds(quick_compiler)
    (kept,) = fresh.iterdir()
    content = kept.read_bytes()
    if how == "empty":
        kept.write_bytes(b"")
    elif how == "cut":
        kept.write_bytes(content[: len(content) // 2])
    elif how == "changed":
        kept.write_bytes(content[:5000] + bytes([content[5000] ^ 1]) + content[5001:])
    elif how == "of others":
        kept.chmod(0o777)
    else:
        kept.rename(fresh.parent / "elsewhere.so")
        kept.symlink_to(fresh.parent / "elsewhere.so")
    native.cache_clear()
    assert _warned() == []
    found = native()
    assert found is not None
    assert _builds(quick_compiler) == built + 1
    assert passes_self_test(found)
    assert not kept.is_symlink() and kept.read_bytes() == content


@needs_compiler
def test_a_folder_that_cannot_be_written_keeps_nothing(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, quick_compiler: Path
) -> None:
    monkeypatch.setenv("CXX", str(quick_compiler))
    fresh.parent.mkdir()
    fresh.touch()  # a file in its place: refused to root, too
    (said,) = _warned()
    assert "built anew for each process" in said and "langue" in said
    assert native() is not None


@needs_compiler
def test_a_read_only_folder_is_read(
    fresh: Path, monkeypatch: pytest.MonkeyPatch, quick_compiler: Path
) -> None:
    monkeypatch.setenv("CXX", str(quick_compiler))
    assert native() is not None
    fresh.chmod(0o500)
    native.cache_clear()
    assert _warned() == []
    assert native() is not None
    fresh.chmod(0o700)


def build() -> None:
    warnings.simplefilter("error")
    assert native() is not None


@needs_compiler
def test_several_processes_may_build_at_once(fresh: Path, quick_compiler: Path) -> None:
    environment = os.environ | {"CXX": str(quick_compiler)}
    running = [forked.start(build, environment=environment) for _ in range(3)]
    assert [forked.wait(each) for each in running] == [0, 0, 0]
    (kept,) = fresh.iterdir()
    assert kept.suffix == ".so"


def test_the_source_is_part_of_the_package() -> None:
    assert module.SOURCE.is_file()
    assert module.SOURCE.parent == Path(module.__file__).parent
