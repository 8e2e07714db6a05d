"""A Kubernetes node on a machine: containerd, kubelet and kube-proxy with an installer's configuration, and a volume as
from a provisioner of local disks.
"""

import json
import os
import shutil
import subprocess

from control import DNS, DOMAIN, apply, kubectl
from machines import WORK, Machine, run, start, succeeds, wait

SOCKET = "/run/containerd/containerd.sock"
CONTAINERD = """
version = 2
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.10"
# A lower OOM score needs a privilege that may be missing here.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"""


def imported(images):
    """Creates a containerd directory with the images, which the machines copy."""
    folder, socket = WORK / "images", WORK / "images.sock"
    (WORK / "images.toml").write_text('version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n')
    process = start("images", "containerd", "--config", WORK / "images.toml", "--root", folder,
                    "--state", WORK / "images-state", "--address", socket)
    ctr = ["ctr", "--address", str(socket), "-n", "k8s.io"]
    wait("containerd", lambda: succeeds(*ctr, "version"), 60, process)
    for image in images:
        run(*ctr, "images", "import", image, stdout=subprocess.DEVNULL)
    process.terminate()
    process.wait()
    return folder


class Node:
    """A Kubernetes node on a separate machine, in a zone."""

    def __init__(self, number, cgroup, images):
        """`images` is the directory from imported()."""
        self.machine = Machine(number)
        self.name, self.zone = self.machine.name, f"zone-{number % 3}"
        self.write("etc/containerd/config.toml", CONTAINERD)
        self.write("etc/cni/net.d/pods.conflist", json.dumps(self.pod_network()))
        self.write("etc/kubelet.json", json.dumps(self.kubelet(f"{cgroup}/{self.name}")))
        self.write("etc/proxy.json", json.dumps(self.proxy()))
        own = self.machine.files / "var-lib/containerd"
        # Image files are read-only and can be shared. containerd's databases cannot.
        run("cp", "-al", images, own)
        for database in own.rglob("*.db"):
            shutil.copy(database, f"{database}.own")
            os.replace(f"{database}.own", database)
        self.processes = [self.machine.start("containerd", "containerd")]
        wait(f"containerd of {self.name}", lambda: self.containerd("version"), 60, self.processes[0])

    def join(self):
        self.processes.append(self.machine.start(
            "kubelet", "kubelet", "--config", "/etc/kubelet.json", "--kubeconfig", WORK / f"{self.name}.conf",
            "--hostname-override", self.name, "--node-ip", self.machine.address,
            "--node-labels", f"topology.kubernetes.io/zone={self.zone}"))
        self.processes.append(self.machine.start("proxy", "kube-proxy", "--config", "/etc/proxy.json"))
        wait(f"{self.name}", self.is_ready, 120, self.processes[1])
        self.offer_volume()

    def write(self, path, text):
        self.machine.enter("sh", "-euc", 'mkdir -p "$(dirname "$0")"; cat >"$0"', f"/{path}", input=text, text=True, check=True)

    def containerd(self, *arguments):
        return succeeds(*self.machine.command("ctr", "-n", "k8s.io", *arguments))

    def is_ready(self):
        found = subprocess.run(["kubectl", "get", "node", self.name, "-o", "json"], capture_output=True, text=True)
        return found.returncode == 0 and any(c["type"] == "Ready" and c["status"] == "True"
                                             for c in json.loads(found.stdout)["status"]["conditions"])

    def pod_network(self):
        route = {"type": "host-local", "ranges": [[{"subnet": self.machine.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
        return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": route}]}

    def kubelet(self, cgroup):
        return {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
                "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
                "authorization": {"mode": "AlwaysAllow"},
                "containerRuntimeEndpoint": f"unix://{SOCKET}", "cgroupDriver": "cgroupfs", "cgroupRoot": cgroup,
                "clusterDNS": [DNS], "clusterDomain": DOMAIN, "resolvConf": "", "failSwapOn": False,
                # All machines share the disk of this host, and its free space is irrelevant to the test.
                "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%",
                                 "nodefs.inodesFree": "1%", "imagefs.inodesFree": "1%"},
                "imageGCHighThresholdPercent": 100, "imageGCLowThresholdPercent": 99}

    def proxy(self):
        return {"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration", "mode": "nftables",
                "clientConnection": {"kubeconfig": str(WORK / "proxy.conf")}, "hostnameOverride": self.name,
                "clusterCIDR": "10.90.0.0/16", "conntrack": {"maxPerCore": 0, "min": 0}}

    def offer_volume(self):
        """Offers an empty volume on this machine's disk."""
        folder = self.machine.files / "var-lib/volume"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        name = f"disk-of-{self.name}"
        kubectl("delete", "pv", name, "--ignore-not-found")
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [self.name]}
        apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
               "spec": {"capacity": {"storage": "20Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                        "persistentVolumeReclaimPolicy": "Retain", "local": {"path": "/var/lib/volume"},
                        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}}}})
