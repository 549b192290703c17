"""Checks compose.yaml against the Compose specification's schema, and what must agree in it."""

import json
import sys
from pathlib import Path

import jsonschema
import yaml

schema, compose = Path(sys.argv[1]), Path(sys.argv[2])
file = yaml.safe_load(compose.read_text())
validator = jsonschema.Draft7Validator(json.loads(schema.read_text()))
wrong = [f"{'.'.join(map(str, error.path))}: {error.message}" for error in validator.iter_errors(file)]

if not wrong:
    emqx, gateway = file["services"]["emqx"], file["services"]["gateway"]
    # EMQX keeps its data under its node's name, which ends with the name of its host: an address, or one with a dot.
    node, host = emqx["environment"]["EMQX_NODE_NAME"], emqx.get("hostname", "")
    if node != f"emqx@{host}" or "." not in host:
        wrong.append(f"services.emqx: EMQX_NODE_NAME is {node}, which is not emqx@ and the (full) hostname, {host}")
    # The health check has no arguments of compose.yaml's.
    settings = gateway["environment"]["SLUICEGATE_CONFIG"]
    mounted = [volume.split(":")[1] for volume in gateway["volumes"]]
    if settings not in mounted:
        wrong.append(f"services.gateway: SLUICEGATE_CONFIG is {settings}, which is not mounted")

for text in wrong:
    print(f"{compose.name}: {text}")
sys.exit(1 if wrong else 0)
