"""What is asked of a machine that has never been met, in a process of its own: `python -m benchmarks.gpu.probes NAME`.

Each answer is printed as a line of JSON as soon as it is known. Nothing is imported before it is asked for. A package
that cannot be imported is an answer too.
"""

import argparse
import contextlib
import importlib.metadata
import json
import os
import platform
import shutil
import site
import subprocess
import sys
import sysconfig
import time
import traceback
from pathlib import Path
from unittest import mock

PACKAGES = (
    "numpy",
    "numba",
    "numba-cuda",
    "cupy-cuda13x",
    "cupy-cuda12x",
    "cupy",
    "cuda-bindings",
    "cuda-core",
    "cuda-pathfinder",
    "scipy",
    "ml-dtypes",
    "nvidia-nvvm",
    "nvidia-cuda-nvcc",
    "nvidia-cuda-nvrtc",
    "nvidia-cublas",
    "torch",
    "torchaudio",
    "jax",
    "pytest",
    "pytest-xdist",
    "pytest-timeout",
    "hypothesis",
)
NVVM = "libnvvm*.so*"
TOOLKITS = ("usr/local/cuda*", "usr/lib/*-linux-gnu", "usr/lib/cuda", "opt/conda")
"""Where a toolkit may lie, from the root of the file system."""


def tell(**answers) -> None:
    print(json.dumps(answers), flush=True)


def environment() -> None:
    """What a machine is, from files and nvidia-smi alone."""
    tell(python=platform.python_version(), cores=len(os.sched_getaffinity(0)), cpu=processor(), memory=memory())
    versions = {}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    tell(versions=versions)
    tell(
        nvvm=compilers(),
        tools={tool: shutil.which(tool) is not None for tool in ("nvcc", "ncu", "nsys", "compute-sanitizer")},
        cuda_home={name: name in os.environ for name in ("CUDA_HOME", "CUDA_PATH")},
    )
    # Last, because it may hang; its whole text is for the log.
    from . import process

    tell(gpu=process.gpus(seconds=5))
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(["nvidia-smi"], timeout=5)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if "model name" in line), platform.processor())


def memory() -> int:
    """Bytes of the host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def compilers() -> list[str]:
    """Where libnvvm lies: below the folders of packages, or of the system."""
    found = []
    for folder in {sysconfig.get_path("purelib"), *site.getsitepackages()}:
        found += [str(path.relative_to(folder)) for path in Path(folder).glob(f"nvidia/**/{NVVM}")]
    for place in (f"{toolkit}/{inner}/{NVVM}" for toolkit in TOOLKITS for inner in ("nvvm/lib*", "lib", ".")):
        found += [str(path.relative_to("/")) for path in Path("/").glob(place)]
    return sorted(set(found))


def launch() -> None:
    """One kernel the library's own way, each part timed; `no_gpu` says that there is nothing to launch it on."""
    begin = time.perf_counter()
    try:
        import cupy
    except ImportError as error:
        tell(no_gpu=f"CuPy cannot be imported ({error})")
        return
    if not cupy.cuda.is_available():
        tell(no_gpu="CuPy finds no CUDA device, or no driver that is new enough for it")
        return
    try:
        tell(**{"import cupy": time.perf_counter() - begin})
        begin = time.perf_counter()
        cupy.cuda.runtime.memGetInfo()
        tell(context=time.perf_counter() - begin)
        runtime = cupy.cuda.runtime
        known = runtime.getDeviceProperties(0)
        tell(
            device=known["name"].decode(),
            capability=f"{known['major']}.{known['minor']}",
            driver=runtime.driverGetVersion(),
            runtime=runtime.runtimeGetVersion(),
        )
        begin = time.perf_counter()
        from . import device

        tell(**{"import lattice": time.perf_counter() - begin})
        tell(**one_kernel(device.uniform))
    except Exception as error:
        traceback.print_exc()
        tell(error=f"{type(error).__name__}: {error}")


def one_kernel(uniform, T: int = 40, U: int = 9) -> dict:
    """Seconds to compile a kernel, to load, launch and wait for it, and to do so again.

    `launched` says that its result is right.
    """
    from lattice.device import arrays
    from lattice.kernels import ptx

    call, deviation = uniform(2, T, U)
    wait = arrays.cupy().cuda.get_current_stream().synchronize
    seconds = {}

    def clocked(name, function):
        def run(*arguments):
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                seconds[name] = time.perf_counter() - begin

        return run

    wait()
    with (
        mock.patch.object(ptx, "compile_kernel", clocked("compile", ptx.compile_kernel)),
        mock.patch.object(ptx, "load", clocked("load", ptx.load)),
    ):
        begin = time.perf_counter()
        call()
    seconds["launch"] = time.perf_counter() - begin - sum(seconds.values())
    clocked("wait", wait)()
    clocked("again", lambda: (call(), wait()))()
    off = deviation()
    if off <= 1e-9:
        return {**seconds, "launched": True, "off": off}
    return {**seconds, "launched": True, "off": off, "error": f"log_z is off by {off:.1e} of itself"}


def one_call(B: int = 2, T: int = 250, U: int = 50) -> None:
    """A loss and its gradients in few launches, to be looked at by a profiler."""
    import lattice

    from . import problems

    problem = problems.joint(problems.full(B, T, U, 1024), "untrained", problems.real_dtype("bfloat16"))
    loss, _ = lattice.joint_transducer_loss_and_grad(*problem, memory_limit=1 << 30)
    tell(loss=float(loss.get().mean()))


PROBES = {"environment": environment, "launch": launch, "one_call": one_call}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("probe", choices=PROBES)
    PROBES[parser.parse_args().probe]()
    sys.stdout.flush()
