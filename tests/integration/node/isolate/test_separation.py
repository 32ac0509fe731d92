"""What one partition's user can do to another's: nothing. Tried by a service of the one."""

import os
import pwd
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.node.world import IS_ROOT, URL, World, is_running, is_written, until

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not IS_ROOT, reason="only root has partitions of several users"),
]

#: What is tried and changes something.
CHANGES = ("write", "end", "trace", "leave", "lift")
VICTIM, NEIGHBOUR = "slappart0", "slappart1"
SERVICE = """\
#!/bin/sh
export SECRET=of-environment
echo of-output
echo of-file > secret
echo $$ > service.pid
exec sleep 600
"""
CONNECT = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_{}); s.connect(sys.argv[1])"
)


@pytest.fixture
def settled(limited: World) -> Iterator[World]:
    """A world with a service in a partition, whose neighbour belongs to somebody else."""
    world = limited
    other = pwd.getpwnam("games")
    os.chown(world.partition(NEIGHBOUR), other.pw_uid, other.pw_gid)
    world.release(world.installing("service", SERVICE))
    world.want(VICTIM)
    world.configure(partition_open_files="1000", partition_processes="100")
    said = world.run("instance")
    assert said.returncode == 0, said.stdout
    until(lambda: is_written(world.partition(VICTIM) / "service.pid"), "the service runs")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
        agent.bind(str(world.layout.node_socket))
        yield world


def attempts(world: World, own: Path, pid: int) -> dict[str, str]:
    """Return what the neighbour tries, as commands that succeed where they are not prevented."""
    victim, instances = world.partition(VICTIM), world.layout.instance_root
    state = world.layout.state
    read = {
        "its files": victim / "secret",
        "its profile": victim / "buildout.cfg",
        "its output": world.layout.output(VICTIM) / f".{VICTIM}_service.log",
        "its environment": Path(f"/proc/{pid}/environ"),
        "its memory": Path(f"/proc/{pid}/maps"),
        "what the node remembers of it": state / "instance" / f"{VICTIM}.json",
        "its limits": state / "limits" / f"{VICTIM}.json",
        "the journal": state / "journal.db",
        "the configuration of supervisord": world.layout.supervisor_configuration,
        "the log of supervisord": instances / "var" / "log" / "supervisord.log",
    }
    found = {name: f"head -c 1 {path} > /dev/null" for name, path in read.items()}
    found |= {
        "list its directory": f"ls {victim}",
        "enter its working directory": f"ls /proc/{pid}/cwd/",
        "read through its open files": f"ls -l /proc/{pid}/fd/",
        "write into it": f"touch {victim}/mine",
        "write beside it": f"touch {instances}/mine",
        "end it": f"kill {pid}",
        "trace it": f"python3 -c '{TRACE}' {pid}",
        "speak with supervisord": f"python3 -c '{CONNECT.format('STREAM')}' {instances}/sv.sock",
        "feign events": f"python3 -c '{CONNECT.format('DGRAM')}' {instances}/var/run/node.sock",
        "leave its cgroup": "echo $$ > $(ls -d /sys/fs/cgroup/pids/cgroup.procs "
        "/sys/fs/cgroup/cgroup.procs | head -n 1)",
        "lift its open files": "ulimit -n 1001",
        # The same with what it may do, so that the others do not fail for another reason.
        "control: read": f"head -c 1 {own}/secret > /dev/null",
        "control: write": f"touch {own}/mine",
        "control: list": f"ls {own} && ls /proc/$$/cwd/ && ls -l /proc/$$/fd/",
        "control: end": "sleep 600 & kill $!",
        "control: environment": "head -c 1 /proc/$$/environ > /dev/null",
        "control: connect": f"python3 -c '{CONTROL}' {own}/s.sock",
    }
    return found


TRACE = "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(16, int(sys.argv[1]), 0, 0) and 1)"
CONTROL = (
    "import socket, sys; s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1]); s.listen(); "
    "socket.socket(socket.AF_UNIX).connect(sys.argv[1])"
)


def test_a_partition_reaches_nothing_of_its_neighbour(settled: World) -> None:
    victim, own = settled.partition(VICTIM), settled.partition(NEIGHBOUR)
    pid = int((victim / "service.pid").read_text())
    tried = attempts(settled, own, pid)
    for name, command in tried.items():
        if not name.startswith(("control", *CHANGES)):
            # That it fails for the neighbour is to say something.
            subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    trials = "".join(
        f"if ( {command} ) > /dev/null 2>&1; then echo '{name}' >> done; fi\n"
        for name, command in tried.items()
    )
    url = f"{URL}?neighbour"
    script = "#!/bin/sh\necho of-file > secret\n" + trials + "echo end >> done\nexec sleep 600\n"
    settled.release(settled.installing("service", script), url=url)
    settled.want(NEIGHBOUR, url=url)
    said = settled.run("instance")
    assert said.returncode == 0, said.stdout
    done = own / "done"
    until(lambda: done.exists() and done.read_text().endswith("end\n"), "all was tried")
    succeeded = [line for line in done.read_text().splitlines() if line != "end"]
    assert sorted(name for name in succeeded if not name.startswith("control")) == []
    assert len(succeeded) == 6
    assert is_running(pid)
