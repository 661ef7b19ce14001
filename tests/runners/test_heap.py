"""Large blocks go back to the system when they are freed."""

import ctypes
import subprocess
import sys

import pytest

LARGE = 256 * 1024

PROGRAM = f"""
import ctypes, sys
from noodle_ray.actors.heap import map_large_blocks

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

class Figures(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in names]

libc.mallinfo2.restype = Figures
if sys.argv[1] == "mapped":
    map_large_blocks()
libc.free(libc.malloc({LARGE}))
before = libc.mallinfo2().hblks
libc.malloc({LARGE})
print(libc.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="glibc 2.33 or newer tells what it has mapped")
@pytest.mark.parametrize(("how", "mapped"), [("mapped", 1), ("as it is", 0)])
def test_a_block_after_one_that_was_freed_is_mapped_apart(how, mapped):
    answer = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert int(answer.stdout) == mapped
