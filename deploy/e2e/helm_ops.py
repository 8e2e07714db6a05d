"""Operations on the release with helm and kubectl."""

import json
import subprocess
from pathlib import Path

from control import get, kubectl

CHART = Path(__file__).resolve().parent.parent / "helm/ropewalk"
SPACE, SET = "events", "log-ropewalk"
ROLLED_WITHIN = "600s"


def helm(*arguments, fails=False):
    done = subprocess.run(["helm", *arguments, "--namespace", SPACE], capture_output=True, text=True)
    if (done.returncode != 0) != fails:
        raise SystemExit(f"helm {' '.join(map(str, arguments))} exited with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def upgrade(*values, **more):
    return helm("upgrade", "log", CHART, "--reset-then-reuse-values", *(f"--set={v}" for v in values), **more)


def rolled():
    ours("rollout", "status", "statefulset", SET, "--timeout", ROLLED_WITHIN)


def ours(*arguments, **more):
    return kubectl("--namespace", SPACE, *arguments, **more)


def our_pods():
    found = get("pods", "--namespace", SPACE, "-l", "app.kubernetes.io/component=node")["items"]
    return {p["metadata"]["name"]: p for p in found}


def ready(pod):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def in_pod(*arguments):
    """Runs the command in a node's pod, as documented for operators."""
    return ours("exec", f"{SET}-0", "--", "ropewalk", *arguments)


def status_of(ordinal):
    """The row of cluster status for the node of a pod."""
    rows = [json.loads(line) for line in in_pod("cluster", "status", "-o", "jsonl").splitlines()]
    return next(r for r in rows if r["address"].startswith(f"{SET}-{ordinal}."))


def host_of(nodes, pod):
    name = get("pod", pod, "--namespace", SPACE)["spec"]["nodeName"]
    return next(n for n in nodes if n.name == name)


def whole():
    """True if all three nodes exist and are ready now."""
    pods = our_pods().values()
    return len(pods) == 3 and all(ready(p) for p in pods)


def secret():
    return get("secret", f"{SET}-tls", "--namespace", SPACE)["data"]
