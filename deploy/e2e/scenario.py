"""Installs and changes the chart on a real Kubernetes under load, with helm and kubectl, as described in
docs/install.md and docs/upgrade.md. Run it with make e2e-kubernetes.

Real parts: etcd, the API server, the controllers, the scheduler, CoreDNS, and on each of five machines containerd, runc,
kubelet and kube-proxy. Simulated parts: machines are sets of namespaces of this host. The control plane runs as processes,
not as pods. Volumes are directories of the machines, created by this script. Nothing enforces a NetworkPolicy.
"""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import control
import machines
from control import apply, get, kubectl
from load import Load
from node import Node, imported
from helm_ops import (CHART, SET, SPACE, helm, host_of, in_pod, our_pods, ours, rolled, secret, status_of, upgrade,
                     whole)
from table import OUTAGE_S, Table

IMAGES = sorted(Path(sys.argv[1]).glob("*.tar"))
CGROUP, NODES, BINARY = sys.argv[2], int(sys.argv[3]), sys.argv[4]
PORTS = (31001, 31002, 31003)
CLIENT = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "client", "namespace": SPACE},
          "spec": {"enableServiceLinks": False, "terminationGracePeriodSeconds": 0, "containers": [{
              "name": "client", "image": "ropewalk:0.1.0", "command": ["sleep", "infinity"],
              "env": [{"name": "ROPEWALK_BOOTSTRAP", "value": f"{SET}.{SPACE}.svc.cluster.local:7101"}]}]}}


def build(table):
    machines.network()
    images = imported(IMAGES)
    nodes = [Node(n, f"/{CGROUP}", images) for n in range(NODES)]
    table.step(f"{NODES} machines with containerd and the images")
    control.begin([n.machine for n in nodes])
    with ThreadPoolExecutor() as each:
        list(each.map(Node.join, nodes))
    table.step("Kubernetes " + json.loads(kubectl("version", "-o", "json"))["serverVersion"]["gitVersion"])
    return nodes


def install(table):
    helm("install", "log", CHART, "--create-namespace", "--set=networkPolicy.acknowledgeOpenToAll=true")
    rolled()
    hosts = {p["spec"]["nodeName"] for p in our_pods().values()}
    if len(hosts) != 3:
        raise SystemExit(f"three nodes share {len(hosts)} machines")
    table.step("helm install: 3 nodes ready on 3 machines")
    said = helm("test", "log")
    if "Succeeded" not in said:
        raise SystemExit(f"helm test: {said}")
    table.step("helm test")


def begin_load(table):
    apply(CLIENT)
    ours("wait", "--for=condition=Ready", "pod/client", "--timeout=60s")
    load = Load(lambda *arguments: ["kubectl", "exec", "-i", "client", "--namespace", SPACE, "--", "ropewalk", *arguments])
    load.do("topic", "create", "load", "--partitions", "12")
    load.begin()
    time.sleep(10)
    table.load = load
    load.take_gap()
    table.begun = time.monotonic()
    time.sleep(10)
    table.step("idle")
    return load


def roll(table):
    before = our_pods()
    upgrade("limits.fetch_wait_ms=400ms")
    rolled()
    after = our_pods()
    if any(after[name]["metadata"]["uid"] == pod["metadata"]["uid"] for name, pod in before.items()):
        raise SystemExit("a changed configuration did not restart every node")
    table.step("helm upgrade: changed configuration, rolled")


def roll_racks_and_tls(table, nodes, load):
    """Sets racks from zone labels, with a token and a role, and tls.mode both, with a certificate from helm."""
    upgrade("rack.fromNodeLabel=topology.kubernetes.io/zone", "rack.image=rack:e2e", "tls.mode=both",
            "tls.selfSigned.enabled=true")
    rolled()
    load.healthy()
    for ordinal in range(3):
        rack, zone = status_of(ordinal)["rack"], host_of(nodes, f"{SET}-{ordinal}").zone
        if rack != zone:
            raise SystemExit(f"{SET}-{ordinal} is in rack {rack}, but its machine is in zone {zone}")
    table.step("helm upgrade: racks from zones, TLS and plaintext")


def outside(table, nodes):
    """Publishes and reads from outside Kubernetes, through node ports."""
    there = {n["metadata"]["name"] for n in get("nodes")["items"]}
    hosts = [n.machine.address for n in nodes if n.name in there][:3]
    upgrade("external.type=NodePort", "external.acknowledgePlaintext=true", f"external.hosts={{{','.join(hosts)}}}",
            f"external.nodePorts={{{','.join(map(str, PORTS))}}}")
    rolled()
    bootstrap = ",".join(f"{host}:{port}" for host, port in zip(hosts, PORTS, strict=True))
    load = Load(lambda *arguments: ["env", f"ROPEWALK_BOOTSTRAP={bootstrap}", BINARY, *arguments], "outside")
    load.do("topic", "create", "outside", "--partitions", "12")
    load.begin()
    time.sleep(5)
    load.end()
    load.check()
    table.step(f"helm upgrade: node ports; {load.sent} records from outside")


def only_tls(table, certificate):
    """Sets TLS only, except for probes. preStop and the test pod use the certificate, which has not changed."""
    upgrade("tls.mode=on")
    rolled()
    if certificate != secret():
        raise SystemExit("an upgrade replaced the certificate")
    if "Succeeded" not in helm("test", "log"):
        raise SystemExit("helm test did not succeed over TLS")
    table.step("helm upgrade: TLS only, and helm test with it")


def crash(table, nodes, load):
    name = f"{SET}-1"

    def restarts():
        return our_pods()[name]["status"]["containerStatuses"][0]["restartCount"]

    before = restarts()
    host_of(nodes, name).machine.enter("pkill", "-9", "-f", "^ropewalk node", check=True)
    machines.wait("the kubelet to start it again", lambda: restarts() > before and whole(), 180)
    load.healthy()
    table.step("a node's process killed: the kubelet restarts it")


def drain(table, nodes, load):
    first, second = (host_of(nodes, f"{SET}-{n}") for n in (2, 1))
    # With a rack from a label, a pod has an emptyDir.
    what = ["--pod-selector=app.kubernetes.io/component=node", "--delete-emptydir-data"]
    kubectl("drain", first.name, *what, "--timeout=180s")
    also = subprocess.run(["kubectl", "drain", second.name, *what, "--timeout=8s"], capture_output=True, text=True)
    if also.returncode == 0 or "disruption budget" not in also.stderr:
        raise SystemExit(f"a second machine was drained at the same time: {also.stdout}{also.stderr}")
    kubectl("uncordon", first.name, second.name)
    machines.wait("the drained node to be back", whole, 180)
    load.healthy()
    table.step("kubectl drain; a second one is refused meanwhile")


def scale_out(table, load):
    upgrade("replicas=5")
    rolled()
    load.healthy()
    table.step("helm upgrade: 3 to 5 nodes")


def scale_in(table, nodes, load):
    said = upgrade("replicas=3", fails=True)
    if len(our_pods()) != 5:
        raise SystemExit(f"helm did not refuse the scale-in: {said}")
    table.step("helm upgrade to 3 nodes refused")
    for ordinal in (4, 3):
        in_pod("cluster", "decommission", str(status_of(ordinal)["node_id"]), "--wait")
        table.step(f"decommissioned the node of {SET}-{ordinal}")
    hosts = [host_of(nodes, f"{SET}-{ordinal}") for ordinal in (3, 4)]
    upgrade("replicas=3")
    machines.wait("two pods to go", whole, 180)
    ours("delete", "pvc", f"data-{SET}-3", f"data-{SET}-4")
    for host in hosts:
        host.offer_volume()
    load.healthy()
    table.step("helm upgrade: 5 to 3 nodes")


def lose(table, nodes, load):
    """Loses a machine with its disk: docs/upgrade.md, a lost volume."""
    clients = host_of(nodes, "client")
    name = next(f"{SET}-{n}" for n in (1, 2) if host_of(nodes, f"{SET}-{n}") is not clients)
    lost = host_of(nodes, name)
    lost.machine.lose()
    kubectl("delete", "node", lost.name)
    ours("delete", "pvc", f"data-{name}", "--wait=false")
    ours("delete", "pod", name, "--force", "--grace-period=0")
    machines.wait("the lost node to be replaced", whole, 300)
    load.healthy()
    if host_of(nodes, name) is lost:
        raise SystemExit(f"{name} is still on the lost machine")
    table.step("a machine lost with its disk, and replaced")


def uninstall(table):
    ours("delete", "pod", "client")
    helm("uninstall", "log")
    machines.wait("the pods to go", lambda: not our_pods(), 180)
    claims = sorted(c["metadata"]["name"] for c in get("pvc", "--namespace", SPACE)["items"])
    if claims != [f"data-{SET}-{n}" for n in range(3)]:
        raise SystemExit(f"unexpected volume claims after uninstall: {claims}")
    table.step("helm uninstall: the volumes stay")


def scenario(table):
    nodes = build(table)
    install(table)
    load = begin_load(table)
    roll(table)
    roll_racks_and_tls(table, nodes, load)
    certificate = secret()
    crash(table, nodes, load)
    drain(table, nodes, load)
    scale_out(table, load)
    scale_in(table, nodes, load)
    lose(table, nodes, load)
    load.end()
    table.load = None
    load.check()
    table.step(f"{load.sent} records acknowledged, and read in order")
    outside(table, nodes)
    only_tls(table, certificate)
    uninstall(table)


def main():
    table = Table()
    try:
        scenario(table)
    except BaseException as error:
        table.rows.append((str(error).splitlines()[0][:50], 0.0, None, "FAILED"))
        table.show()
        print(f"see the logs in {machines.WORK}")
        raise
    if not table.show():
        raise SystemExit(f"publishing paused for more than {OUTAGE_S} s; see the logs in {machines.WORK}")
    machines.clean()


if __name__ == "__main__":
    main()
