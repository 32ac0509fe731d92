import subprocess
import sys
from pathlib import Path

import pytest

#: Threads that allocate at the same time, and then how many arenas there are by glibc's account.
PROGRAM = """\
import ctypes, sys, threading
from slapos.system.memory import share_arenas
if len(sys.argv) > 2:
    share_arenas()
together = threading.Barrier(12)
def work():
    together.wait()
    kept = [bytearray(2000) for _ in range(1000)]
    together.wait()
threads = [threading.Thread(target=work) for _ in range(12)]
for thread in threads: thread.start()
for thread in threads: thread.join()
c = ctypes.CDLL(None)
c.fopen.restype = ctypes.c_void_p
stream = c.fopen(sys.argv[1].encode(), b"w")
c.malloc_info(0, ctypes.c_void_p(stream))
c.fclose(ctypes.c_void_p(stream))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="glibc on Linux only")
def test_threads_share_two_arenas(tmp_path: Path) -> None:
    report = tmp_path / "arenas"
    words = [sys.executable, "-c", PROGRAM, str(report)]
    subprocess.run(words, check=True)
    before = report.read_text().count("<heap ")
    subprocess.run([*words, "few"], check=True)
    assert report.read_text().count("<heap ") <= 2 < before
