"""Pages on a device: what is written comes back, nothing else changes, and the device is the session's own."""

from __future__ import annotations

from array import array
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest

from models.onnx import CUDA
from models.pages import IN, OUT, DevicePages
from models.utterance import Samples


def cuda_runs() -> bool:
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception:  # onnxruntime's own exceptions have no base of their own
        return False
    return True


DEVICES = [
    pytest.param("CPUExecutionProvider", "cpu", id="cpu"),
    pytest.param(CUDA, "cuda", id="cuda", marks=pytest.mark.skipif(not cuda_runs(), reason="no CUDA device runs here")),
]


def mel(frames: int, seed: int = 0) -> Samples:
    return np.random.default_rng(seed).normal(size=(1, 80, frames)).astype(np.float32)


def on(device: str, values: Samples) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy(values, device, 0)


@pytest.mark.parametrize(("provider", "device"), DEVICES)
def test_a_tensor_comes_back_as_it_was_from_pages_in_any_order(provider: str, device: str) -> None:
    pages = DevicePages(64 * 4096, providers=[provider])
    assert (pages.device, pages.count, pages.page_bytes) == (device, 64, 4096)
    first, second = mel(64), mel(51, 1)  # exactly five pages, and not quite four
    evens, odds = array("q", [0, 2, 4, 6, 8]), array("q", [63, 9, 1, 7])
    assert pages.write(evens, on(device, first)) == (1, 80, 64)
    assert pages.write(odds, on(device, second)) == (1, 80, 51)
    for where, what in ((evens, first), (odds, second)):
        read = pages.read(where, what.shape)
        assert read.device_name() == device
        np.testing.assert_array_equal(read.numpy(), what)


@pytest.mark.parametrize(("provider", "device"), DEVICES)
def test_what_was_read_stays_when_its_pages_are_written_again(provider: str, device: str) -> None:
    pages = DevicePages(16 * 4096, providers=[provider])
    where = array("q", [5, 6, 3])
    pages.write(where, on(device, mel(32)))
    read = pages.read(where, (1, 80, 32))
    pages.write(where, on(device, mel(32, 1)))
    np.testing.assert_array_equal(read.numpy(), mel(32))


@pytest.mark.parametrize(("provider", "device"), DEVICES)
def test_threads_may_work_on_different_pages(provider: str, device: str) -> None:
    pages = DevicePages(24 * 4096, providers=[provider])

    def work(number: int) -> bool:
        where = array("q", range(number, 24, 8))
        mine = [mel(32, number), mel(20, number + 100)]
        same = True
        for turn in range(40):
            pages.write(where, on(device, mine[turn % 2]))
            same &= np.array_equal(pages.read(where, mine[turn % 2].shape).numpy(), mine[turn % 2])
        return same

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))


def test_nothing_is_copied_but_the_pages_that_are_written() -> None:
    """Else a write would take as long as the arena is large."""
    pages = DevicePages(8 * 64, 64)
    before = np.array(pages._arena.numpy())
    at = pages._arena.data_ptr()
    pages.write(array("q", [3]), on("cpu", np.ones((1, 2, 4), np.float32)))
    after = pages._arena.numpy()
    assert pages._arena.data_ptr() == at
    np.testing.assert_array_equal(after[3], [1.0] * 8 + [0.0] * 8)
    others = [0, 1, 2, 4, 5, 6, 7]
    np.testing.assert_array_equal(after[others], before[others])


def test_sizes_that_were_seen_leave_nothing_behind() -> None:
    """onnxruntime would keep a plan for each: 40 MB after a million tensors."""
    pages = DevicePages(4096)
    assert not any(one.get_session_options().enable_mem_pattern for one in (pages._in, pages._out))


def test_what_does_not_fit_is_refused() -> None:
    pages = DevicePages(16 * 4096)
    with pytest.raises(ValueError, match=r"\[1, 80, 32\] does not fit into 2 pages"):
        pages.write(array("q", [0, 1]), on("cpu", mel(32)))
    with pytest.raises(ValueError, match=r"\[1, 80, 0\] does not fit"):
        pages.write(array("q", [0]), on("cpu", mel(0)))
    with pytest.raises(ValueError, match="size is 4095: one page has 4096 bytes"):
        DevicePages(4095)
    with pytest.raises(ValueError, match="page_bytes is 6"):
        DevicePages(4096, 6)


def test_a_device_without_so_much_memory_says_so() -> None:
    with pytest.raises(MemoryError, match="cpu has no 4611686018427387904 bytes"):
        DevicePages(1 << 62)


def test_the_graphs_are_what_the_training_package_writes() -> None:
    pytest.importorskip("onnx", reason="training needs the extra `train`")
    from models.training.pages import graph_in, graph_out

    assert (IN.read_bytes(), OUT.read_bytes()) == (graph_in(), graph_out())
