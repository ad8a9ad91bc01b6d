"""NVIDIA's management library through nvidia-ml-py: finding a GPU by UUID and asking it. Nothing here raises."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adaptbench.meters.nvml_errors import translate
from adaptbench.meters.reading import Missing

_HARMLESS = 0x1 | 0x2 | 0x100  # idle, clocks set by the user, display clock
_REASONS = {
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


_U32, _U64 = 2**32 - 1, 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE: -1 in an unsigned field
_NO_VALUE = Missing("lost: the driver gives its mark for 'not available' as the value", kind="lost")


def throttle_reasons(bits: int) -> list[str]:
    """Names of the reasons that slow a GPU down; idling and clocks that the user set are none."""
    known = [name for bit, name in _REASONS.items() if bits & bit]
    unknown = bits & ~_HARMLESS & ~sum(_REASONS)
    return [*known, *([f"reason {unknown:#x}"] if unknown else [])]


def bare_uuid(uuid: str) -> str:
    """A UUID without its GPU- or MIG- prefix, which torch leaves out, in lower case."""
    return str(uuid).strip().lower().removeprefix("gpu-").removeprefix("mig-")


def load_binding() -> Any:
    """The module ``pynvml`` of nvidia-ml-py, or `Missing`."""
    try:
        module = importlib.import_module("pynvml")
    except ImportError:
        return Missing("absent: nvidia-ml-py is not installed", "pip install nvidia-ml-py", "absent")
    # Older packages called pynvml install a module of that name, with other contents.
    if not hasattr(module, "_nvmlGetFunctionPointer") or not hasattr(module, "nvmlDeviceGetTotalEnergyConsumption"):
        return Missing(
            f"absent: {module.__file__} is not NVIDIA's binding but a package of the same name",
            "pip uninstall pynvml; pip install --force-reinstall nvidia-ml-py",
            "absent",
        )
    return module


@dataclass(frozen=True, slots=True)
class Gpu:
    """One board.

    Args:
        handle: NVML's.
        index: NVML's, which is the PCI order and not torch's.
        uuid: as NVML writes it.
        name: of the product.
        mig: the board is cut into MIG instances; energy and power are of the whole board.
    """

    handle: Any
    index: int
    uuid: str
    name: str
    mig: bool


class Driver:
    """An initialised NVML; `close` it.

    Args:
        binding: the module ``pynvml``.
    """

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    @classmethod
    def connect(cls) -> Driver | Missing:
        """Load the binding and initialise the library."""
        binding = load_binding()
        if isinstance(binding, Missing):
            return binding
        driver = cls(binding)
        started = driver.ask("nvmlInit")
        return started if isinstance(started, Missing) else driver

    def close(self) -> None:
        """Shut the library down; an error of a lost GPU is of no more interest."""
        self.ask("nvmlShutdown")

    def ask(self, function: str, *arguments: Any) -> Any:
        """What a function of the binding returns, or `Missing`."""
        call: Callable[..., Any] | None = getattr(self._binding, function, None)
        if call is None:
            return Missing(
                f"unsupported: this nvidia-ml-py has no {function}", "pip install -U nvidia-ml-py", "unsupported"
            )
        try:
            return call(*arguments)
        except (self._binding.NVMLError, self._binding.NVMLLibraryMismatchError) as error:
            return translate(error, self._binding)

    def version(self) -> str | None:
        """The driver's version."""
        answer = self.ask("nvmlSystemGetDriverVersion")
        return None if isinstance(answer, Missing) else str(answer)

    def gpus(self) -> list[Gpu] | Missing:
        """All boards that the driver shows; one that cannot be asked for its UUID is left out."""
        count = self.ask("nvmlDeviceGetCount")
        if isinstance(count, Missing):
            return count
        boards, failure = [], Missing("absent: the driver sees no GPU", "nvidia-smi -L", "absent")
        for index in range(count):
            handle = self.ask("nvmlDeviceGetHandleByIndex", index)
            uuid = handle if isinstance(handle, Missing) else self.ask("nvmlDeviceGetUUID", handle)
            if isinstance(uuid, Missing):
                failure = uuid
                continue
            name, mig = self.ask("nvmlDeviceGetName", handle), self.ask("nvmlDeviceGetMigMode", handle)
            cut = not isinstance(mig, Missing) and mig[0] == 1
            boards.append(Gpu(handle, index, uuid, "GPU" if isinstance(name, Missing) else str(name), cut))
        return boards or failure

    def find(self, uuid: str) -> Gpu | Missing:
        """The board of a UUID, or the board that a MIG instance of that UUID is part of."""
        boards = self.gpus()
        if isinstance(boards, Missing):
            return boards
        wanted = bare_uuid(uuid)
        for board in boards:
            if bare_uuid(board.uuid) == wanted or (board.mig and wanted in self._instances(board)):
                return board
        seen = ", ".join(board.uuid for board in boards)
        return Missing(f"absent: NVML does not show the GPU {uuid}, but {seen}", "nvidia-smi -L", "absent")

    def _instances(self, board: Gpu) -> set[str]:
        most = self.ask("nvmlDeviceGetMaxMigDeviceCount", board.handle)
        handles = [
            self.ask("nvmlDeviceGetMigDeviceHandleByIndex", board.handle, i)
            for i in range(0 if isinstance(most, Missing) else most)
        ]
        uuids = [self.ask("nvmlDeviceGetUUID", one) for one in handles if not isinstance(one, Missing)]
        return {bare_uuid(uuid) for uuid in uuids if not isinstance(uuid, Missing)}

    def energy_mj(self, gpu: Gpu) -> int | Missing:
        """The total-energy counter, millijoules since the driver was loaded."""
        answer: int | Missing = self.ask("nvmlDeviceGetTotalEnergyConsumption", gpu.handle)
        return _NO_VALUE if answer == _U64 else answer

    def power_mw(self, gpu: Gpu) -> tuple[int, bool] | Missing:
        """(milliwatts, instantaneous): the instant field where the driver has it, else the board's usual figure."""
        field = getattr(self._binding, "NVML_FI_DEV_POWER_INSTANT", None)
        values = None if field is None else self.ask("nvmlDeviceGetFieldValues", gpu.handle, [field])
        if values is not None and not isinstance(values, Missing) and values[0].nvmlReturn == 0:
            instant = int(values[0].value.uiVal)
            return _NO_VALUE if instant == _U32 else (instant, True)
        usual = self.ask("nvmlDeviceGetPowerUsage", gpu.handle)
        if isinstance(usual, Missing):
            return usual
        return _NO_VALUE if usual == _U32 else (int(usual), False)

    def temperature_c(self, gpu: Gpu) -> int | None:
        """Of the chip."""
        sensor = self._binding.NVML_TEMPERATURE_GPU
        return self._first(gpu, ("nvmlDeviceGetTemperatureV", sensor), ("nvmlDeviceGetTemperature", sensor))

    def reasons(self, gpu: Gpu) -> int | None:
        """Bits of why the clocks are what they are."""
        return self._first(
            gpu, ("nvmlDeviceGetCurrentClocksEventReasons",), ("nvmlDeviceGetCurrentClocksThrottleReasons",)
        )

    def clock_mhz(self, gpu: Gpu, kind: str) -> int | None:
        """Present clock: "SM" or "MEM"."""
        return self._first(gpu, ("nvmlDeviceGetClockInfo", getattr(self._binding, f"NVML_CLOCK_{kind}")))

    def power_limit_w(self, gpu: Gpu) -> float | None:
        """The limit in force; None where the driver has none, or gives 0 for it."""
        answer = self._first(gpu, ("nvmlDeviceGetEnforcedPowerLimit",))
        return answer / 1000 if answer and answer != _U32 else None

    def persistence(self, gpu: Gpu) -> bool | None:
        """Whether the driver stays loaded between uses."""
        answer = self._first(gpu, ("nvmlDeviceGetPersistenceMode",))
        return None if answer is None else bool(answer)

    def foreign_processes(self, gpu: Gpu) -> int | None:
        """How many other processes compute on the board; None where the driver does not say."""
        listed = self.ask("nvmlDeviceGetComputeRunningProcesses", gpu.handle)
        if isinstance(listed, Missing):
            return None
        return _foreign({int(process.pid) for process in listed}, os.getpid(), _is_visible)

    def _first(self, gpu: Gpu, *queries: tuple[Any, ...]) -> int | None:
        for function, *rest in queries:
            answer = self.ask(function, gpu.handle, *rest)
            if not isinstance(answer, Missing):
                return int(answer)
        return None


def _is_visible(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _foreign(pids: set[int], own: int, visible: Callable[[int], bool]) -> int:
    """Processes that are not this one.

    In a container NVML lists the host's ids: this process is then there under an id that is not visible here.
    """
    others = pids - {own}
    if own not in pids and others and not any(visible(pid) for pid in others):
        return len(others) - 1
    return len(others)
