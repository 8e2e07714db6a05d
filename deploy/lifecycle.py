"""Runs the rendered chart without Kubernetes. Each pod's container is a process in its own network and mount
namespaces, with the rendered environment, configuration, volume, user, probes, preStop and grace period. Pods are
started, restarted and scaled in the order of a StatefulSet. The test shows that the chart works on real nodes. It does
not cover the kubelet and the API server.

Needs root, for the namespaces. Connects only to addresses inside them. Run it with make lifecycle.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from load import Load

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/ropewalk"
BINARY = Path(sys.argv[1])
WORK = Path(tempfile.mkdtemp(prefix="ropewalk-lifecycle-"))
# Smaller sizes and shorter waits than in production.
VALUES = {"minReadySeconds": 3, "networkPolicy": {"acknowledgeOpenToAll": True}, "persistence": {"size": "1Gi"},
          "resources": {"requests": {"memory": "512Mi"}, "limits": {"memory": "512Mi"}}}
SERVICE = "log-ropewalk.events.svc.cluster.local"
HOSTS = 9
# A longer pause of publishing is an outage.
OUTAGE_S = 3.0
READY_WITHIN_S = 180


def run(*command, **more):
    return subprocess.run([str(part) for part in command], check=True, **more)


def render(replicas, **more):
    values = WORK / "values.json"
    values.write_text(json.dumps(VALUES | {"replicas": replicas} | more))
    done = run("helm", "template", "log", CHART, "--namespace", "events", "--kube-version", "1.34",
               "--is-upgrade", "--values", values, capture_output=True, text=True)
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def find(documents, kind, name=""):
    return next(d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(name))


class Sandbox:
    """The namespaces of a pod: network and mounts."""

    def __init__(self, name, number, volume=None, config=None):
        self.name, self.address, self.link = name, f"10.77.0.{number}", f"pod{number}"
        self.holder = subprocess.Popen(["unshare", "-n", "-m", "sleep", "infinity"])
        pid = self.holder.pid
        while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
            time.sleep(0.01)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", pid)
        run("ip", "link", "set", self.link, "master", "pods", "up")
        upper = WORK / f"etc-{name}"
        shutil.rmtree(upper, ignore_errors=True)
        mounts = [
            f"ip addr add {self.address}/24 dev eth0; ip link set eth0 up; ip link set lo up",
            f"mkdir -p {upper}; mount -t tmpfs tmpfs {upper}; mkdir {upper}/u {upper}/w",
            f"mount -t overlay overlay -o lowerdir=/etc,upperdir={upper}/u,workdir={upper}/w /etc",
            f"cp {WORK}/hosts /etc/hosts; mkdir -p /etc/ropewalk/config",
        ]
        if volume:
            mounts.append(f"mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/ropewalk; mount --bind {volume} /var/lib/ropewalk")
        if config:
            (WORK / "ropewalk.toml").write_text(config)
            mounts.append(f"cp {WORK}/ropewalk.toml /etc/ropewalk/config/; chmod -R a+rX /etc/ropewalk")
        self.enter("sh", "-euc", "\n".join(mounts), check=True)

    def command(self, command):
        return ["nsenter", "-t", str(self.holder.pid), "-n", "-m", *map(str, command)]

    def enter(self, *command, **more):
        return subprocess.run(self.command(command), **more)

    def container(self, container):
        """The command of a container, as its user, with only its environment."""
        env = {"PATH": f"{WORK}/bin:/usr/bin:/bin", "POD_NAME": self.name}
        for one in container["env"]:
            value = one.get("value", env.get(one["name"], ""))
            for name, known in env.items():
                value = value.replace(f"$({name})", known)
            env[one["name"]] = value
        return self.as_user(env, container["command"] + container.get("args", []))

    def as_user(self, env, command):
        user = ["setpriv", "--reuid", "10001", "--regid", "10001", "--clear-groups", "--no-new-privs", "--inh-caps=-all"]
        return self.command([*user, "env", "-i", *(f"{k}={v}" for k, v in env.items()), *command])

    def close(self):
        # Explicitly, since the kernel deletes the link with a delay. Peers get no answer from here on.
        run("ip", "link", "delete", self.link)
        self.holder.kill()
        self.holder.wait()


class Pod:
    """The pod of one node, run as by a kubelet."""

    def __init__(self, documents, ordinal):
        nodes = find(documents, "StatefulSet")
        self.spec = nodes["spec"]["template"]["spec"]
        self.node = self.spec["containers"][0]
        self.name = f"{nodes['metadata']['name']}-{ordinal}"
        self.volume = WORK / f"volume-{ordinal}"
        self.volume.mkdir(exist_ok=True)
        os.chown(self.volume, 10001, 10001)
        config = find(documents, "ConfigMap")["data"]["ropewalk.toml"]
        self.sandbox = Sandbox(self.name, 10 + ordinal, self.volume, config)
        self.log = open(WORK / f"{self.name}.log", "a")
        self.process = subprocess.Popen(self.sandbox.container(self.node), stdout=self.log, stderr=self.log)

    def probe(self, which):
        get = self.node[which]["httpGet"]
        ports = {port["name"]: port["containerPort"] for port in self.node["ports"]}
        url = f"http://127.0.0.1:{ports[get['port']]}{get['path']}"
        return self.sandbox.enter("curl", "-sf", "-m", self.node[which]["timeoutSeconds"], url,
                                  capture_output=True).returncode == 0

    def wait_ready(self):
        until = time.monotonic() + READY_WITHIN_S
        while not (self.probe("startupProbe") and self.probe("readinessProbe")):
            if time.monotonic() > until or self.process.poll() is not None:
                raise SystemExit(f"{self.name} is not ready; see its log {self.log.name}")
            time.sleep(0.2)

    def stop(self):
        """Runs preStop, sends SIGTERM, and fails at the end of the grace period. Returns the duration."""
        begun = time.monotonic()
        hook = dict(self.node, command=self.node["lifecycle"]["preStop"]["exec"]["command"], args=[])
        grace = self.spec["terminationGracePeriodSeconds"]
        subprocess.run(self.sandbox.container(hook), timeout=grace, stdout=self.log, stderr=self.log)
        hooked = time.monotonic() - begun
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(grace - hooked)
        except subprocess.TimeoutExpired:
            raise SystemExit(f"{self.name} did not end within its grace period of {grace} s") from None
        if code != 0:
            raise SystemExit(f"{self.name} exited with {code}; see its log {self.log.name}")
        self.sandbox.close()
        return time.monotonic() - begun

    def lose(self):
        """Loses the machine of the pod, with its volume."""
        self.process.kill()
        self.process.wait()
        self.sandbox.close()
        shutil.rmtree(self.volume)


def load_from(sandbox):
    env = {"PATH": f"{WORK}/bin:/usr/bin:/bin", "ROPEWALK_BOOTSTRAP": f"{SERVICE}:7101"}
    return Load(lambda *arguments: sandbox.as_user(env, ["ropewalk", *arguments]))


def job(documents, kind, name, number):
    """Runs a hook of helm. Returns its exit code and output."""
    spec = find(documents, kind, name)["spec"]
    spec = spec if kind == "Pod" else spec["template"]["spec"]
    sandbox = Sandbox(name.strip("-"), number)
    done = subprocess.run(sandbox.container(spec["containers"][0]), capture_output=True, text=True,
                          timeout=180)
    sandbox.close()
    return done.returncode, done.stdout + done.stderr


def network():
    """Creates the network of the pods, with the host names of Kubernetes' DNS."""
    run("ip", "link", "add", "pods", "type", "bridge")
    run("ip", "link", "set", "pods", "up")
    lines = ["127.0.0.1 localhost"]
    for ordinal in range(HOSTS):
        name = f"log-ropewalk-{ordinal}.log-ropewalk-headless.events.svc.cluster.local"
        lines.append(f"10.77.0.{10 + ordinal} {name}" + (f" {SERVICE}" if ordinal < 3 else ""))
    (WORK / "hosts").write_text("\n".join(lines) + "\n")
    (WORK / "bin").mkdir()
    run("cp", BINARY, WORK / "bin/ropewalk")
    run("chmod", "-R", "a+rX", WORK)


def main():
    network()
    table = []
    three = render(3)
    pods = [Pod(three, ordinal) for ordinal in range(3)]
    try:
        scenario(pods, three, table)
    finally:
        for pod in pods:
            pod.process.kill()
    print(f"\n{'':<44}{'longest without an acknowledgement':>36}")
    for what, gap in table:
        print(f"{what:<44}{gap:>34.2f} s" + ("  OUTAGE" if gap > OUTAGE_S else ""))
    if any(gap > OUTAGE_S for _, gap in table):
        raise SystemExit(f"publishing paused for more than {OUTAGE_S} s")
    shutil.rmtree(WORK, ignore_errors=True)


def scenario(pods, three, table):
    for pod in pods:
        pod.wait_ready()
    print("installed: 3 nodes are ready")
    code, said = job(three, "Pod", "-test", 201)
    print(said.splitlines()[-1])
    if code != 0:
        raise SystemExit(f"helm test: {said}")

    load = load_from(Sandbox("load", 200))
    load.do("topic", "create", "load", "--partitions", "12")
    load.begin()
    time.sleep(5)

    def step(what):
        table.append((what, load.take_gap()))
        print(f"{what}: {load.acknowledged} records so far, longest pause {table[-1][1]:.2f} s", flush=True)

    step("idle")
    for ordinal in reversed(range(3)):
        took = pods[ordinal].stop()
        pods[ordinal] = Pod(three, ordinal)
        pods[ordinal].wait_ready()
        time.sleep(VALUES["minReadySeconds"])
        step(f"restarted node {ordinal} (stopped in {took:.1f} s)")
    pods[1].lose()
    pods[1] = Pod(three, 1)
    pods[1].wait_ready()
    load.healthy()
    step("killed node 1, and lost its volume")
    five = render(5)
    for ordinal in (3, 4):
        pods.append(Pod(five, ordinal))
    for pod in pods[3:]:
        pod.wait_ready()
    load.healthy()
    step("3 to 5 nodes")
    code, said = job(three, "Job", "-scale-in", 202)
    if code != 1 or "decommission" not in said:
        raise SystemExit(f"the scale-in guard did not refuse: {said}")
    step("scale-in to 3 nodes refused before decommission")
    rows = [json.loads(line) for line in load.do("cluster", "status", "-o", "jsonl").splitlines()]
    for ordinal in (4, 3):
        node = next(r["node_id"] for r in rows if r["address"].startswith(f"log-ropewalk-{ordinal}."))
        if ordinal == 4:
            load.do("cluster", "decommission", str(node))
            load.do("cluster", "recommission", str(node))
        load.do("cluster", "decommission", str(node), "--wait", timeout=300)
        step(f"decommissioned node {ordinal}" + (", at the second try" if ordinal == 4 else ""))
    code, said = job(three, "Job", "-scale-in", 202)
    if code != 0:
        raise SystemExit(f"the scale-in guard refused: {said}")
    while len(pods) > 3:
        pods.pop().stop()
    step("5 to 3 nodes")
    load.end()
    load.check()
    print(f"{load.sent} records were acknowledged, and read in order")


main()
