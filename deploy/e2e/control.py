"""The control plane: etcd, the API server, the controllers, the scheduler and the cluster's DNS, as processes at an
address that every machine reaches. Creates an installer's accounts and node roles.
"""

import json
import os
import secrets
import subprocess

from machines import CONTROL, WORK, run, start, succeeds, wait

URL = f"https://{CONTROL}:6443"
CERTIFICATE = WORK / "api/apiserver.crt"
SERVICES, DNS, DOMAIN = "10.91.0.0/16", CONTROL, "cluster.local"
ADMIN = WORK / "admin.conf"
COREDNS = f"""
.:53 {{
    errors
    ready {CONTROL}:8181
    kubernetes {DOMAIN} in-addr.arpa {{
        kubeconfig {WORK}/dns.conf
        ttl 5
    }}
    cache 5
}}
"""
CLASS = {"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "kubernetes.io/no-provisioner",
         "volumeBindingMode": "WaitForFirstConsumer",
         "metadata": {"name": "local", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}


def accounts(machines):
    """Creates a token and a configuration for each client of the API server."""
    users = {"admin": ("admin", "system:masters"), "dns": ("dns", "system:masters"),
             "controllers": ("system:kube-controller-manager", ""),
             "scheduler": ("system:kube-scheduler", ""), "proxy": ("system:kube-proxy", "")}
    users |= {m.name: (f"system:node:{m.name}", "system:nodes") for m in machines}
    lines = []
    for file, (user, group) in users.items():
        token = secrets.token_hex(16)
        lines.append(f'{token},{user},{user},"{group}"\n')
        # The API server creates the certificate at its start.
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "e2e",
                  "clusters": [{"name": "e2e", "cluster": {"server": URL, "certificate-authority": str(CERTIFICATE)}}],
                  "users": [{"name": "e2e", "user": {"token": token}}],
                  "contexts": [{"name": "e2e", "context": {"cluster": "e2e", "user": "e2e"}}]}
        (WORK / f"{file}.conf").write_text(json.dumps(config))
    (WORK / "tokens.csv").write_text("".join(lines))


def kubectl(*arguments, **more):
    done = subprocess.run(["kubectl", *map(str, arguments)], capture_output=True, text=True, **more)
    if done.returncode != 0:
        raise SystemExit(f"kubectl {' '.join(map(str, arguments))}: {done.stderr}")
    return done.stdout


def apply(*objects):
    everything = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    kubectl("apply", "-f", "-", input=json.dumps(everything))


def get(*arguments):
    return json.loads(kubectl("get", *arguments, "-o", "json"))


def api_server():
    key = WORK / "accounts.key"
    run("openssl", "genrsa", "-out", key, "2048", capture_output=True)
    start("etcd", "etcd", "--data-dir", WORK / "etcd", "--unsafe-no-fsync",
          "--listen-client-urls", "http://127.0.0.1:2379", "--advertise-client-urls", "http://127.0.0.1:2379")
    server = start(
        "api-server", "kube-apiserver", "--etcd-servers", "http://127.0.0.1:2379", "--cert-dir", WORK / "api",
        "--advertise-address", CONTROL, "--bind-address", CONTROL, "--external-hostname", CONTROL,
        "--service-cluster-ip-range", SERVICES, "--authorization-mode", "Node,RBAC",
        "--enable-admission-plugins", "NodeRestriction", "--token-auth-file", WORK / "tokens.csv",
        "--kubelet-preferred-address-types", "InternalIP",
        "--service-account-issuer", f"https://kubernetes.default.svc.{DOMAIN}",
        "--service-account-key-file", key, "--service-account-signing-key-file", key)
    os.environ["KUBECONFIG"] = str(ADMIN)
    wait("the API server", lambda: succeeds("kubectl", "get", "--raw", "/readyz"), 120, server)
    return key


def begin(machines):
    accounts(machines)
    key = api_server()
    start("controllers", "kube-controller-manager", "--kubeconfig", WORK / "controllers.conf",
          "--use-service-account-credentials", "--service-account-private-key-file", key,
          "--root-ca-file", CERTIFICATE, "--leader-elect=false")
    start("scheduler", "kube-scheduler", "--kubeconfig", WORK / "scheduler.conf", "--leader-elect=false")
    (WORK / "Corefile").write_text(COREDNS)
    dns = start("dns", "dns", "-conf", WORK / "Corefile")
    wait("the cluster's DNS", lambda: succeeds("curl", "-sf", f"http://{CONTROL}:8181/ready"), 60, dns)
    apply(CLASS)
