"""The one place where NVML's error codes become words: absent, denied, unsupported or lost, each with what to do."""

from __future__ import annotations

from typing import Any

from adaptbench.meters.reading import Kind, Missing

_INSTALL = "install the NVIDIA driver, or pass the GPU into the container (docker run --gpus all …)"
_GROUPS = "ask the administrator: ls -l /dev/nvidia*; in a container, NVIDIA_DRIVER_CAPABILITIES=utility,compute"
_RESET = "sudo nvidia-smi --gpu-reset, or reboot; sudo dmesg | grep -i xid says what happened"
_REBOOT = "reboot, so that the kernel module and the library are of one version"

_TABLE: dict[str, tuple[Kind, str, str]] = {
    "UNINITIALIZED": ("absent", "NVML is not initialised", "open the meter before reading it"),
    "INVALID_ARGUMENT": ("unsupported", "this GPU does not know the query", ""),
    "NOT_SUPPORTED": ("unsupported", "this GPU or its mode (MIG, vGPU) does not support the query", ""),
    "NO_PERMISSION": ("denied", "the driver denies this user the query", _GROUPS),
    "NOT_FOUND": ("absent", "the GPU was not found", "nvidia-smi -L lists those that the driver sees"),
    "INSUFFICIENT_POWER": ("lost", "the GPU's power cables are not attached properly", "check the cables"),
    "DRIVER_NOT_LOADED": ("absent", "the NVIDIA driver is not loaded", _INSTALL),
    "TIMEOUT": ("lost", "the GPU did not answer in time", _RESET),
    "IRQ_ISSUE": ("lost", "the kernel found an interrupt problem with the GPU", _RESET),
    "LIBRARY_NOT_FOUND": ("absent", "there is no NVIDIA driver library (libnvidia-ml.so.1)", _INSTALL),
    "FUNCTION_NOT_FOUND": ("unsupported", "this driver is too old for the query", "update the NVIDIA driver"),
    "CORRUPTED_INFOROM": ("lost", "the GPU's infoROM is corrupted", "have the board repaired"),
    "GPU_IS_LOST": ("lost", "the GPU fell off the bus", _RESET),
    "RESET_REQUIRED": ("lost", "the GPU needs a reset", _RESET),
    "OPERATING_SYSTEM": ("denied", "the operating system blocks the driver", _GROUPS),
    "LIB_RM_VERSION_MISMATCH": ("absent", "the driver's library and kernel module differ in version", _REBOOT),
    "IN_USE": ("denied", "another process holds the GPU alone", "nvidia-smi shows which one"),
    "MEMORY": ("lost", "the driver is out of memory", "free host memory"),
    "NO_DATA": ("unsupported", "the GPU has no data for the query", ""),
    "INSUFFICIENT_RESOURCES": ("lost", "the driver is out of resources", _RESET),
    "ARGUMENT_VERSION_MISMATCH": ("unsupported", "the driver knows another version of the query", "update the driver"),
    "DEPRECATED": ("unsupported", "the driver has dropped the query", "update nvidia-ml-py"),
    "NOT_READY": ("lost", "the GPU is not ready yet", "nvidia-smi -pm 1 keeps it awake"),
    "GPU_NOT_FOUND": ("absent", "no GPU was found", "nvidia-smi -L lists those that the driver sees"),
    "INVALID_STATE": ("lost", "the GPU is in a state that does not allow the query", _RESET),
    "UNKNOWN": ("lost", "the driver reports an unknown error", _RESET),
}


def translate(error: BaseException, binding: Any) -> Missing:
    """What an error of the binding means.

    Args:
        error: an ``NVMLError``, or the binding's mismatch error.
        binding: the module ``pynvml``, which knows the codes.
    """
    code = getattr(error, "value", None)
    for name, (kind, reason, advice) in _TABLE.items():
        if code is not None and getattr(binding, f"NVML_ERROR_{name}", None) == code:
            return Missing(f"{kind}: {reason} (NVML {name})", advice, kind)
    if code is None:
        return Missing(
            f"unsupported: the driver is too old for the binding ({error})", "update the driver", "unsupported"
        )
    return Missing(f"lost: NVML error {code}", _RESET, "lost")
