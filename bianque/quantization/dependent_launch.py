"""Kernels that begin before the one in front of them has ended, on cards from compute capability 9.0 on.

A decode step is a chain of some two hundred short kernels, each of which needs what the one before computed. Between
two of them the memory idles: the last programs run out, the next kernel is started, its first loads are under way.
Programmatic dependent launch takes most of that away. A kernel says before its end that the next one may start. The
next one takes the places that become free, asks for what does not depend on the chain, its weights, and waits.

A kernel of many programs should say so when little is left to do. Earlier, all programs of the next one would crowd
on the multiprocessors that are free first and leave the others idle: that made a step of eight rows slower.

Every kernel that is started so must call `wait_for_previous` before it reads what others write, and before it writes
anything. As all do, a kernel that has waited knows that everything before it has ended, not the last one alone.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl

_FIRST_CAPABILITY = (9, 0)


@functools.cache
def is_supported(device: torch.device) -> bool:
    """Return whether kernels on a device may be started so: those with `OVERLAPS`, and the option `launch_pdl`."""
    # Triton before 3.4 does not know of it, and its interpreter, on a CPU, has no other kernels.
    if device.type != "cuda" or not hasattr(tl.extra.cuda, "gdc_wait"):
        return False
    return torch.cuda.get_device_capability(device) >= _FIRST_CAPABILITY


def launch_options(overlaps: bool) -> dict[str, bool]:
    """Return what a kernel is launched with besides its arguments: nothing that an older Triton does not know."""
    return {"launch_pdl": True} if overlaps else {}


@triton.jit
def let_next_start(OVERLAPS: tl.constexpr) -> None:
    """Let the next kernel take places that become free, once all programs of this one have said so."""
    if OVERLAPS:
        tl.extra.cuda.gdc_launch_dependents()


@triton.jit
def wait_for_previous(OVERLAPS: tl.constexpr) -> None:
    """Wait until the kernels before this one have ended and all they wrote can be seen."""
    if OVERLAPS:
        tl.extra.cuda.gdc_wait()


@triton.jit
def prefetch(pointer: tl.tensor) -> None:
    """Bring what lies at these addresses into the L2 cache, in lines of 128 bytes, and wait for none of it."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;", "=r,l", [pointer.to(tl.int64)], tl.int32, is_pure=False, pack=1
    )
