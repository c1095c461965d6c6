#!/usr/bin/env python3
"""The configurations in rendered manifests, or a TOML file: they are TOML, and every key is one that
docs/CONFIGURATION.md lists, or that node.toml has. The binary refuses any other, but only where it runs.

Usage: contents.py FILE...
    FILE.yaml    manifests; values.yaml: a chart's values, which have to be those of its README.md
    FILE.toml    a configuration of roles
"""

import base64
import json
import pathlib
import re
import sys
import tomllib

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]


def documented(page):
    """Keys as a page's table has them: `a.b`, and `.c` for another one of the same table."""
    keys = set()
    for line in (ROOT / page).read_text().splitlines():
        table = ""
        for key in re.findall(r"`(\.?[A-Za-z_]+(?:\.[A-Za-z_]+)*)`", line.split("|")[1] if line.startswith("| `") else ""):
            key = table + key if key.startswith(".") else key
            table = key.rpartition(".")[0]
            keys.add(key)
    return keys


def of_node():
    source = (ROOT / "services/chopmark/src/member.rs").read_text()
    fields = lambda name: re.findall(r"pub\(crate\) (\w+):", re.search(rf"struct {name} \{{(.*?)\n\}}", source, re.S)[1])
    return {f"node.{field}" for field in fields("NodeSection")} | {f"peer.{field}" for field in fields("PeerSection")}


def flat(table, prefix=""):
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            for item in value:
                yield from flat(item, f"{prefix}{key}.")
        else:
            yield prefix + key


def main(paths):
    known = {"chopmark.toml": documented("docs/CONFIGURATION.md"), "node.toml": of_node()}
    seen, wrong = 0, []
    if len(known["chopmark.toml"]) < 20 or len(known["node.toml"]) < 10:
        sys.exit("contents: the keys are no longer listed as this reads them")

    def look(where, name, text):
        nonlocal seen
        seen += 1
        # A table may be empty, for the environment to fill.
        tables = {key.rpartition(".")[0] for key in known[name]}
        unknown = set(flat(tomllib.loads(text))) - known[name] - tables
        wrong.extend(f"{where}: {name} has the unknown key {key}" for key in sorted(unknown))

    for path in map(pathlib.Path, paths):
        if path.name == "values.yaml":
            seen += 1
            values, table = set(flat(yaml.safe_load(path.read_text()))), documented(path.parent / "README.md")
            # A row may stop above what Kubernetes or the schema says of its own tables.
            told = {value for value in values if any(value == key or value.startswith(f"{key}.") for key in table)}
            tables = lambda key: any(value == key or value.startswith(f"{key}.") for value in values)
            wrong.extend(f"{path}: {value} is not in the table of README.md" for value in sorted(values - told))
            wrong.extend(f"README.md: there is no value {key}" for key in sorted(table) if "." in key and not tables(key))
            continue
        if path.suffix == ".toml":
            look(path, "chopmark.toml", path.read_text())
            continue
        for manifest in yaml.safe_load_all(path.read_text()):
            if not manifest or manifest["kind"] != "ConfigMap":
                continue
            for name, text in manifest.get("data", {}).items():
                if name in known:
                    look(f"{path.name}, {manifest['metadata']['name']}", name, text)
            for name, encoded in manifest.get("binaryData", {}).items():
                json.loads(base64.b64decode(encoded, validate=True))
    if not seen:
        wrong.append("no configuration at all")
    for finding in wrong:
        print(f"contents: {finding}")
    sys.exit(1 if wrong else 0)


main(sys.argv[1:])
