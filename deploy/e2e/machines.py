"""Machines: each is a set of namespaces (network, mounts, processes, host name) on one bridge, independent of
Kubernetes. The first process of a machine holds its namespaces, and the machine ends with it.
"""

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

WORK = Path(tempfile.mkdtemp(prefix="ropewalk-e2e-"))
# Address of the control plane, reachable from every machine: the first address of the bridge.
CONTROL = "10.89.0.1"
# Directories that are private to a machine, beside /run and /etc.
OWN = ("/var/lib", "/var/log")
# Kernel parameters that a kubelet would set for the whole host. A machine shows the expected values instead.
KERNEL = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1,
          "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, **more)


def succeeds(*command):
    return subprocess.run([str(part) for part in command], capture_output=True).returncode == 0


def start(name, *command):
    """Starts a process that runs until the end, with its output in WORK/name.log."""
    with open(WORK / f"{name}.log", "a") as log:
        return subprocess.Popen([str(part) for part in command], stdout=log, stderr=log, stdin=subprocess.DEVNULL)


def wait(what, done, within_s, process=None):
    """Waits until done() is true. Exits if the time is over, or if the process ends."""
    until = time.monotonic() + within_s
    while not done():
        if time.monotonic() > until or (process and process.poll() is not None):
            raise SystemExit(f"{what}: timed out after {within_s} s, or its process ended; see the logs in {WORK}")
        time.sleep(0.2)


def network():
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "machines", "type", "bridge")
    run("ip", "addr", "add", f"{CONTROL}/24", "dev", "machines")
    run("ip", "link", "set", "machines", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


class Machine:
    """Machine number n, with the address 10.89.0.(10+n), and 10.90.n.0/24 for its pods."""

    def __init__(self, number):
        self.number, self.name = number, f"machine-{number}"
        self.address, self.pods = f"10.89.0.{10 + number}", f"10.90.{number}.0/24"
        self.files = WORK / self.name
        self.files.mkdir()
        # A shell, since it reaps orphaned processes.
        self.holder = subprocess.Popen(["unshare", "-n", "-m", "-u", "-p", "--fork", "--kill-child",
                                        "sh", "-c", "sleep infinity & wait"])
        wait(self.name, self.is_apart, 10, self.holder)
        self.first = int(self.children()[0])
        run("ip", "link", "add", f"machine{number}", "type", "veth", "peer", "name", "eth0", "netns", self.first)
        run("ip", "link", "set", f"machine{number}", "master", "machines", "up")
        run("ip", "route", "add", self.pods, "via", self.address)
        self.enter("sh", "-euc", "\n".join([*self.links(), *self.mounts()]), check=True)

    def children(self):
        return Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text().split()

    def is_apart(self):
        return self.children() and all(os.readlink(f"/proc/{self.children()[0]}/ns/{kind}") != os.readlink(f"/proc/self/ns/{kind}")
                                       for kind in ("net", "mnt", "uts", "pid"))

    def links(self):
        yield f"hostname {self.name}"
        yield f"ip addr add {self.address}/24 dev eth0; ip link set eth0 up; ip link set lo up"
        yield f"ip route add default via {CONTROL}; echo 1 >/proc/sys/net/ipv4/ip_forward"

    def mounts(self):
        """Prepares for a kubelet: shared mounts, private directories, and the expected kernel parameters."""
        yield "mount --make-rshared /; mount -t proc proc /proc; mount -t tmpfs tmpfs /run"
        for path in OWN:
            own = self.files / path.strip("/").replace("/", "-")
            own.mkdir()
            yield f"mount --bind {own} {path}"
        etc = self.files / "etc"
        yield f"mkdir -p {etc}/own {etc}/work"
        yield f"mount -t overlay overlay -o lowerdir=/etc,upperdir={etc}/own,workdir={etc}/work /etc"
        yield f"printf '127.0.0.1 localhost\\n{self.address} {self.name}\\n' >/etc/hosts"
        for name, value in KERNEL.items():
            file = self.files / name.replace("/", "-")
            file.write_text(f"{value}\n")
            yield f"mount --bind {file} /proc/sys/{name}"

    def command(self, *command):
        return ["nsenter", "-t", str(self.first), "-n", "-m", "-u", "-p", *map(str, command)]

    def enter(self, *command, **more):
        return subprocess.run(self.command(*command), **more)

    def start(self, name, *command):
        return start(f"{self.name}-{name}", *self.command(*command))

    def lose(self):
        """Simulates a power loss: all processes end at once, and the address does not answer."""
        run("ip", "link", "delete", f"machine{self.number}")
        self.holder.kill()
        self.holder.wait()


def clean():
    shutil.rmtree(WORK, ignore_errors=True)
