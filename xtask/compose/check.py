"""Checks compose.yaml against the Compose specification's schema, and what must agree in it and in the files that it names."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import jsonschema
import yaml

schema, compose = Path(sys.argv[1]), Path(sys.argv[2])
# Where the files lie that it names.
root = Path(sys.argv[3]) if len(sys.argv) > 3 else compose.parent
file = yaml.safe_load(compose.read_text())
validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
wrong = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(file)]


def check_service(name, service):
    """What every service must have."""
    wanted = ["healthcheck", "mem_limit", "cpus", "restart", "stop_grace_period"]
    wrong.extend(f"services.{name}: has no {key}" for key in wanted if key not in service)
    image = service.get("image", "-:pinned")
    if ":" not in image or image.endswith(":latest"):
        wrong.append(f"services.{name}: {image} names no version")
    for other, how in service.get("depends_on", {}).items():
        if how.get("condition") != "service_healthy":
            wrong.append(f"services.{name}: does not wait until {other} is healthy")

    mounted = {}
    for volume in service.get("volumes", []):
        source, target = volume.split(":")[:2]
        mounted[target] = source
        if source.startswith("."):
            if not (root / source).is_file():
                wrong.append(f"services.{name}: {source} is no file")
        elif source not in file.get("volumes", {}):
            wrong.append(f"services.{name}: volume {source} is not declared")
    # The health check has no arguments of compose.yaml's.
    for variable, value in service.get("environment", {}).items():
        if variable.endswith("_CONFIG") and value not in mounted:
            wrong.append(f"services.{name}: {variable} is {value}, which is not mounted")

    given = set()
    for secret in service.get("secrets", []):
        source = secret if isinstance(secret, str) else secret["source"]
        given.add(f"/run/secrets/{secret}" if isinstance(secret, str) else secret["target"])
        if source not in file.get("secrets", {}):
            wrong.append(f"services.{name}: secret {source} is not declared")
    texts = [json.dumps(service)] + [(root / path).read_text() for path in mounted.values() if (root / path).is_file()]
    read = set()
    for text in texts:
        read.update(re.findall(r"/run/secrets/\w+", re.sub(r"(?m)^\s*#.*$", "", text)))
    wrong.extend(f"services.{name}: reads {path}, which it is not given" for path in sorted(read - given))


def check_secrets():
    """Each is declared to be used, and made by the script."""
    used = [s if isinstance(s, str) else s["source"] for v in file["services"].values() for s in v.get("secrets", [])]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["sh", root / "config/make-secrets.sh", folder], check=True)
        made = {path.name for path in Path(folder).iterdir() if path.stat().st_size}
    for name, secret in file.get("secrets", {}).items():
        if name not in used:
            wrong.append(f"secrets.{name}: no service is given it")
        if Path(secret["file"]).name not in made:
            wrong.append(f"secrets.{name}: config/make-secrets.sh does not make {secret['file']}")
    mounted = [volume.split(":")[0] for v in file["services"].values() for volume in v.get("volumes", [])]
    wrong.extend(f"volumes.{name}: no service mounts it" for name in file.get("volumes", {}) if name not in mounted)


if not wrong:
    for name, service in file["services"].items():
        check_service(name, service)
    check_secrets()
    emqx = file["services"]["emqx"]
    # EMQX keeps its data under its node's name, which ends with the name of its host: an address, or one with a dot.
    node, host = emqx["environment"]["EMQX_NODE_NAME"], emqx.get("hostname", "")
    if node != f"emqx@{host}" or "." not in host:
        wrong.append(f"services.emqx: EMQX_NODE_NAME is {node}, which is not emqx@ and the (full) hostname, {host}")
    # Whoever reaches that listener needs the gateway's password only, and may be told every machine's messages.
    if any("1884" in str(port) for port in emqx["ports"]):
        wrong.append("services.emqx: the gateway's listener is published")

for text in wrong:
    print(f"{compose.name}: {text}")
sys.exit(1 if wrong else 0)
