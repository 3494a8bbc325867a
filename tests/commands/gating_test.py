"""Runs the commands of the example workflows in replayer/GATING.md, and checks that the gate they build closes.

The JSON of the comparison is held to the schema in the repository, and its names to NUMBERS.md.

Usage: gating_test.py REPLAYER_SOURCE_DIR BIN_DIR TESTS_DIR LIBRARY
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import jsonschema


def commands_of(workflow):
    found = [re.match(r"\s*- (?:run: )?(heaptape .*)$", line) for line in workflow.splitlines()]
    return [match.group(1) for match in found if match]


def check_comparison(comparison, replayer_dir):
    validator = jsonschema.Draft7Validator(json.load(open(replayer_dir + "/export/comparison.schema.json")))
    errors = [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(comparison)]
    assert not errors, errors
    numbers = open(replayer_dir + "/NUMBERS.md").read()
    row = comparison["rows"][0]
    figure = row["changes"]["steady"]
    assert figure["broken"] == "+3%" and figure["new"] > figure["base"], row
    for name in (*comparison, *row, *row["changes"], *figure):
        assert f"`{name}`" in numbers, f"{name} is not in NUMBERS.md"
    figure["noise"] = -1
    assert not validator.is_valid(comparison)


def main():
    replayer_dir, bin_dir, tests_dir, library = sys.argv[1:]
    text = open(replayer_dir + "/GATING.md").read()
    workflows = {name: text.split(f"## {name}\n")[1].split("```yaml\n")[1].split("```")[0] for name in ("GitHub Actions", "GitLab")}
    for name, workflow in workflows.items():
        folder = tempfile.mkdtemp(prefix="heaptape-gating-")
        try:
            environment = {"PATH": f"{bin_dir}:{tests_dir}:/usr/bin:/bin", "HOME": folder, "GITHUB_STEP_SUMMARY": folder + "/summary.md",
                           "HEAPTAPE_DISTRUST": os.environ.get("HEAPTAPE_DISTRUST", "")}
            os.mkdir(folder + "/traces")
            subprocess.run(["make_trace", "traces/guard.tape", "80"], cwd=folder, env=environment, check=True)
            shutil.copy(library, folder + "/liballoc.so")

            def run(command):
                return subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)

            commands = commands_of(workflow)
            assert sum("replay" in command for command in commands) == 2, commands
            for command in commands:
                done = run(command)
                assert done.returncode == 0, f"{name}: {command}: status {done.returncode}\n{done.stderr}"
            assert os.path.getsize(folder + "/report.html") > 100000
            if name == "GitHub Actions":
                assert "| allocator |" in open(folder + "/summary.md").read()

            # The same gate on a build that needs a tenth more.
            results = json.load(open(folder + "/new.json"))
            for result in results["runs"]:
                result["steady_rss_bytes"] = result["steady_rss_bytes"] * 11 // 10
            json.dump(results, open(folder + "/new.json", "w"))
            gate = [command for command in commands if "--max" in command][-1]
            done = run(gate)
            assert done.returncode == 3, f"{name}: status {done.returncode}"
            assert "steady is up by" in done.stderr and "allowed is +3%" in done.stderr, done.stderr
            done = run(gate + " --format json")
            assert done.returncode == 3, f"{name}: status {done.returncode}"
            check_comparison(json.loads(done.stdout), replayer_dir)
            print(f"{name}: {len(commands)} commands, and the gate closes: {done.stderr.strip().splitlines()[0]}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)


main()
