#!/usr/bin/env python3
"""What programs count, and what rules, dashboards and pages say of it, name the same metrics; every alert
has a runbook and a test, every panel a unit and a description."""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).parents[2]
NAME = re.compile(r"chopmark_(?:gateway|queue|committer|courier|node|cache|build|disk)_[a-z_]+")
SUFFIXES = ("_bucket", "_sum", "_count")
faults = []


def fault(text):
    faults.append(text)


def base(name):
    for suffix in SUFFIXES:
        if name.endswith(suffix) and name.removesuffix(suffix) in programs:
            return name.removesuffix(suffix)
    return name


sources = [file.read_text() for file in ROOT.glob("services/*/src/**/*.rs")]
programs = {name for text in sources for name in re.findall(rf'"({NAME.pattern})"', text)}
page = set(re.findall(rf"`({NAME.pattern})`", (ROOT / "docs/METRICS.md").read_text()))
for name in sorted(programs ^ page):
    fault(f"{name} is only in {'a program' if name in programs else 'docs/METRICS.md'}")

rules = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())
alerts = {rule["alert"]: rule for group in rules["groups"] for rule in group["rules"] if "alert" in rule}
runbook = (ROOT / "docs/runbooks/alerts.md").read_text()
tests = (ROOT / "deploy/check/rules.test.yaml").read_text()
for name, rule in alerts.items():
    for metric in NAME.findall(rule["expr"]):
        if base(metric) not in programs:
            fault(f"{name} names {metric}, which no program has")
    if rule["annotations"].get("runbook_url") != f"docs/runbooks/alerts.md#{name.lower()}":
        fault(f"{name} does not lead to its runbook")
    if f"\n## {name}\n" not in runbook:
        fault(f"{name} has no part in docs/runbooks/alerts.md")
    if f'alertname="{name}"' not in tests:
        fault(f"{name} has no test in deploy/check/rules.test.yaml")
for name in re.findall(r"^## (\w+)$", runbook, re.M):
    if name not in alerts:
        fault(f"docs/runbooks/alerts.md tells of {name}, which is no alert")

identities = set()
for file in sorted((ROOT / "deploy/grafana/dashboards").glob("*.json")):
    board = json.loads(file.read_text())
    if board["uid"] in identities:
        fault(f"{file.name}: its uid is another's")
    identities.add(board["uid"])
    for panel in board["panels"]:
        if not panel["description"] or not panel["fieldConfig"]["defaults"]["unit"] or not panel["targets"]:
            fault(f"{file.name}: {panel['title']} lacks a description, a unit or a query")
        for target in panel["targets"]:
            for metric in NAME.findall(target["expr"]):
                if base(metric) not in programs:
                    fault(f"{file.name}: {panel['title']} names {metric}, which no program has")

if not programs or not alerts or not identities:
    fault("there is nothing to check")
for text in faults:
    print(text, file=sys.stderr)
sys.exit(bool(faults))
