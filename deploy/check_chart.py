"""Checks the chart with the real helm. Every values file in ci/ renders to valid objects. Those in ci/bad/ fail
with the reason in their first line. Every value is in the schema and affects an object. The most important
renderings equal the files in ci/golden/.

After an intended change, run make chart GOLDEN=write, and review the differences.
"""

import copy
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kubernetes_validate
import yaml

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "deploy/helm/ropewalk"
CI = CHART / "ci"
# The oldest supported version, and the newest with schemas.
KUBERNETES = ["1.27", "1.34"]
GOLDEN = ["default", "five-zones", "load-balancers", "tls-cert-manager"]
# Custom resources, which the schemas do not cover, with the permitted fields of their specs.
CUSTOM = {
    "Certificate": {"secretName", "duration", "renewBefore", "issuerRef", "privateKey", "usages",
                    "dnsNames", "ipAddresses"},
    "ServiceMonitor": {"selector", "endpoints"},
    "PrometheusRule": {"groups"},
}
# Helm's own value, which no template reads.
NOT_OURS = {"global"}
# Values that render files beside the templates, if there are any.
OF_FILES = {"monitoring.prometheusRule": "files/rules.yaml", "monitoring.dashboards": "files/dashboards/*.json"}
# Maps with keys of the user's choice, within the schema.
FREE = {"limits", "resources.requests", "resources.limits"}

# The table of values follows this line of the README.
TABLE = "## Values\n\n"

failures = []


def fail(message):
    failures.append(message)
    print(f"FAILED: {message}")


def helm(*arguments):
    return subprocess.run(["helm", *arguments], capture_output=True, text=True)


def render(values, kubernetes=KUBERNETES[-1], upgrade=True):
    """The rendering of the chart with `values`, a path or a dict, and helm's stderr."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if isinstance(values, dict):
            json.dump(values, file)
            file.flush()
            values = file.name
        # As an upgrade, since the scale-in guard is rendered only then.
        more = ["--is-upgrade"] if upgrade else []
        done = helm("template", "log", str(CHART), "--namespace", "events", "--kube-version", kubernetes,
                    "--values", str(values), *more)
    return (done.stdout if done.returncode == 0 else None), done.stderr


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def check_renders(path):
    lint = helm("lint", str(CHART), "--strict", "--values", str(path), "--kube-version", KUBERNETES[-1])
    if lint.returncode != 0:
        fail(f"{path.name}: helm lint: {lint.stdout}{lint.stderr}")
    for kubernetes in KUBERNETES:
        text, complaint = render(path, kubernetes)
        if text is None:
            fail(f"{path.name}: {complaint}")
            continue
        for document in documents(text):
            check_document(f"{path.name}, Kubernetes {kubernetes}", document, kubernetes)


def check_document(where, document, kubernetes):
    kind, name = document["kind"], document["metadata"]["name"]
    if kind in CUSTOM:
        unknown = set(document["spec"]) - CUSTOM[kind]
        if unknown or not document["spec"]:
            fail(f"{where}: {kind} {name}: {unknown or 'nothing in it'}")
        return
    try:
        kubernetes_validate.validate(document, kubernetes, strict=True)
    except Exception as error:  # the library's errors have no common base class
        fail(f"{where}: {kind} {name}: {error}")
    pod = document["spec"] if kind == "Pod" else document.get("spec", {}).get("template", {}).get("spec")
    if pod:
        check_pod(f"{where}: {kind} {name}", pod)


def check_pod(where, pod):
    """Checks the restricted pod security standard of Kubernetes."""
    if not pod["securityContext"]["runAsNonRoot"]:
        fail(f"{where}: may run as root")
    if pod["securityContext"]["seccompProfile"]["type"] != "RuntimeDefault":
        fail(f"{where}: no seccomp profile")
    for container in pod["containers"] + pod.get("initContainers", []):
        context = container["securityContext"]
        wrong = context["allowPrivilegeEscalation"] or not context["readOnlyRootFilesystem"]
        if wrong or context["capabilities"]["drop"] != ["ALL"]:
            fail(f"{where}: container {container['name']} has more privileges than it needs")
    for script in (c for c in pod["containers"] + pod.get("initContainers", []) if "args" in c):
        shell = subprocess.run(["sh", "-n", "-c", script["args"][0]], capture_output=True, text=True)
        if shell.returncode != 0:
            fail(f"{where}: container {script['name']}: {shell.stderr}")


def check_refused(path):
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    text, complaint = render(path)
    if text is not None:
        fail(f"bad/{path.name}: rendered, but must fail with: {expected}")
    elif expected not in complaint:
        fail(f"bad/{path.name}: must fail with: {expected}; failed with: {complaint}")


def check_golden(name):
    text, complaint = render(CI / f"{name}.yaml")
    golden = CI / "golden" / f"{name}.yaml"
    if os.environ.get("GOLDEN") == "write":
        golden.write_text(text)
    elif text is not None and (not golden.exists() or golden.read_text() != text):
        with tempfile.NamedTemporaryFile("w") as now:
            now.write(text)
            now.flush()
            difference = subprocess.run(["diff", "-u", golden, now.name], capture_output=True, text=True)
        fail(f"golden/{name}.yaml has changed; if this is intended, run make chart GOLDEN=write\n{difference.stdout}")


def leaves(value, path=""):
    if isinstance(value, dict) and value and path not in FREE:
        return {leaf for key, one in value.items() for leaf in leaves(one, f"{path}.{key}".lstrip("."))}
    return {path}


def schema_leaves(schema, path=""):
    if "properties" in schema and path not in FREE:
        properties = schema["properties"].items()
        return {leaf for key, one in properties for leaf in schema_leaves(one, f"{path}.{key}".lstrip("."))}
    return {path}


def closed(schema, path=""):
    """Checks that every object with named properties in the schema refuses others."""
    if "properties" in schema and schema.get("additionalProperties") is not False and "required" not in schema:
        fail(f"values.schema.json: {path or 'the root'} permits unnamed properties; set additionalProperties to false")
    for key, one in schema.get("properties", {}).items():
        closed(one, f"{path}.{key}".lstrip("."))


def pick(values, leaf):
    for part in leaf.split("."):
        if not isinstance(values, dict) or part not in values:
            return None
        values = values[part]
    return values


def without(values, leaf):
    values = copy.deepcopy(values)
    *parents, last = leaf.split(".")
    inner = values
    for part in parents:
        inner = inner[part]
    del inner[last]
    return values


def check_values_and_schema():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    closed(schema)
    named, known = leaves(values), schema_leaves(schema) - NOT_OURS
    for leaf in named ^ known:
        fail(f"{leaf} is only in {'values.yaml' if leaf in named else 'values.schema.json'}")
    check_explained(named)
    return named & known


def explained():
    """The description of each value in values.yaml: its comment that begins with "# --", or that of its group."""
    said, comment, group = {}, [], {}
    for line in (CHART / "values.yaml").read_text().splitlines():
        text = line.lstrip()
        if text.startswith("#"):
            comment.append(text.lstrip("# "))
            continue
        if text:
            indent, key = len(line) - len(text), text.split(":")[0]
            group = {depth: one for depth, one in group.items() if depth < indent}
            above = next((one for _, one in reversed(group.values()) if one), "")
            own = " ".join(comment)
            own = own.removeprefix("-- ") if own.startswith("-- ") else above
            path = ".".join([name for name, _ in group.values()] + [key])
            said[path], group[indent] = own, (key, own)
        comment = []
    return said


def check_explained(values):
    """Checks that values.yaml describes each value, and that the chart's README has the same table."""
    said, defaults = explained(), yaml.safe_load((CHART / "values.yaml").read_text())
    rows = ["| value | default | |", "|---|---|---|"]
    for leaf in [path for path in said if path in values]:
        if not said[leaf]:
            fail(f"values.yaml: {leaf} has no description; add a comment that begins with # --")
        rows.append(f"| `{leaf}` | `{json.dumps(pick(defaults, leaf))}` | {said[leaf]} |")
    table = "\n".join(rows) + "\n"
    readme = CHART / "README.md"
    before, _ = readme.read_text().split(TABLE)
    if os.environ.get("GOLDEN") == "write":
        readme.write_text(before + TABLE + table)
    elif readme.read_text() != before + TABLE + table:
        fail("the table in the chart's README.md differs from values.yaml; run make chart GOLDEN=write")


def check_exercised(leaf, values_files):
    """Checks that a values file sets the value, and that its removal changes the rendering."""
    if any(leaf.startswith(part) and not any(CHART.glob(files)) for part, files in OF_FILES.items()):
        return
    for values in values_files:
        if pick(values, leaf) is None:
            continue
        with_it, without_it = render(values)[0], render(without(values, leaf))[0]
        if with_it != without_it:
            return
    fail(f"{leaf}: no file in ci/ sets it with an effect on the rendering")


def check_limits():
    """Checks that the schema has the node's limits."""
    source = (ROOT / "node/src/config.rs").read_text()
    body = source.split("\nlimits! {")[1].split("\n}")[0]
    node = set(re.findall(r"^    (\w+): \w+ = ", body, re.MULTILINE))
    schema = json.loads((CHART / "values.schema.json").read_text())
    for name in node ^ set(schema["properties"]["limits"]["properties"]):
        fail(f"limits.{name} is only in {'node/src/config.rs' if name in node else 'values.schema.json'}")


def check_seeds():
    """Checks that the seeds do not depend on the number of nodes."""
    def seeds(replicas):
        text, _ = render({"replicas": replicas, "networkPolicy": {"acknowledgeOpenToAll": True}})
        nodes = next(d for d in documents(text) if d["kind"] == "StatefulSet")
        env = nodes["spec"]["template"]["spec"]["containers"][0]["env"]
        return next(one["value"] for one in env if one["name"] == "ROPEWALK_SEEDS")
    if not seeds(3) == seeds(5) == seeds(9) or seeds(3).count(",") != 2:
        fail(f"the seeds of 3, 5 and 9 nodes differ: {seeds(3)}, {seeds(5)}, {seeds(9)}")


def check_scale_in():
    """Checks the scale-in guard against outputs of ropewalk cluster status."""
    row = '{"node_id":%d,"address":"%s","state":"active"}'
    three = "\n".join(row % (number, f"log-{number - 1}.x:7101") for number in (1, 2, 3))
    cases = [
        ("the three that stay", f"echo '{three}'", 0, "are decommissioned"),
        ("a fourth", f"echo '{three}'; echo '{row % (7, 'log-10.x:7101')}'", 1, "decommission 7 --wait"),
        ("no answer", "exit 1", 1, "cluster status is not available"),
    ]
    for name, says, code, expected in cases:
        with tempfile.TemporaryDirectory() as folder:
            command = Path(folder) / "ropewalk"
            command.write_text(f"#!/bin/sh\n{says}\n")
            command.chmod(0o755)
            env = {"PATH": f"{folder}:/usr/bin:/bin", "STAY": "log-0.x:7101 log-1.x:7101 log-2.x:7101"}
            script = CHART / "files/scale-in.sh"
            done = subprocess.run(["sh", "-eu", script], env=env, capture_output=True, text=True)
        if done.returncode != code or expected not in done.stdout + done.stderr:
            fail(f"scale-in.sh with {name}: {done}")


def main():
    good = sorted(CI.glob("*.yaml"))
    bad = sorted((CI / "bad").glob("*.yaml"))
    all_values = [yaml.safe_load(path.read_text()) for path in good]
    values = check_values_and_schema()
    check_limits()
    check_scale_in()
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        work = [pool.submit(check_renders, path) for path in good]
        work += [pool.submit(check_refused, path) for path in bad]
        work += [pool.submit(check_golden, name) for name in GOLDEN]
        work += [pool.submit(check_exercised, leaf, all_values) for leaf in sorted(values)]
        work += [pool.submit(check_seeds)]
        for one in work:
            one.result()
    if failures:
        sys.exit(f"{len(failures)} checks of the chart failed")
    print(f"the chart renders {len(good)} ways, refuses {len(bad)}, and each of its {len(values)} values counts")


main()
