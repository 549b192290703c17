"""Checks compose.yaml against the Compose specification's schema, as the package docker-compose ships it."""

import json
import sys
import zipfile
from pathlib import Path

import jsonschema
import yaml

folder, compose = Path(sys.argv[1]), Path(sys.argv[2])
wheel = next(folder.glob("docker_compose-*.whl"))
schema = json.loads(zipfile.ZipFile(wheel).read("compose/config/compose_spec.json"))
errors = list(jsonschema.Draft7Validator(schema).iter_errors(yaml.safe_load(compose.read_text())))
for error in errors:
    print(f"{compose.name}: {'.'.join(map(str, error.path))}: {error.message}")
sys.exit(1 if errors else 0)
