#!/usr/bin/env python3
"""Every entry of refused.yaml has to be refused by the chart, for the reason that it names.

Usage: HELM=PATH refused.py CHART FOLDER
"""

import os
import pathlib
import subprocess
import sys
import tempfile

import yaml


def main(chart, folder):
    folder, wrong, entries = pathlib.Path(folder), 0, yaml.safe_load((pathlib.Path(folder) / "refused.yaml").read_text())
    with tempfile.TemporaryDirectory() as scratch:
        home = {name: scratch for name in ("HELM_CONFIG_HOME", "HELM_DATA_HOME", "HELM_CACHE_HOME")}
        environment = {**os.environ, **home, "KUBECONFIG": "/dev/null"}
        for entry in entries:
            path = pathlib.Path(scratch) / "values.yaml"
            path.write_text(yaml.safe_dump(entry["values"]))
            command = [os.environ["HELM"], "template", "release", chart]
            if "over" in entry:
                command += ["--values", folder / "values" / f"{entry['over']}.yaml"]
            done = subprocess.run([*command, "--values", path], capture_output=True, text=True, env=environment)
            missing = [part for part in entry["says"] if part not in done.stderr]
            if done.returncode == 0 or missing:
                wrong += 1
                said = "was taken" if done.returncode == 0 else f"was refused without {missing}: {done.stderr.strip()}"
                print(f"refused: {entry['why']}: {said}")
    if not entries:
        sys.exit("refused: nothing to try")
    print(f"deploy: {len(entries) - wrong} of {len(entries)} refused as they should be")
    sys.exit(1 if wrong else 0)


main(*sys.argv[1:])
