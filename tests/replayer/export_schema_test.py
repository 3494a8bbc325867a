"""The JSON that a program prints is valid under the schema in the repository, and damage is not.

Usage: export_schema_test.py SCHEMA COMMAND...
"""

import copy
import json
import subprocess
import sys

import jsonschema


def main():
    schema = json.load(open(sys.argv[1]))
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    results = json.loads(subprocess.run(sys.argv[2:], check=True, capture_output=True).stdout)
    errors = [f"{list(error.absolute_path)}: {error.message[:200]}" for error in validator.iter_errors(results)]
    if errors:
        sys.exit("\n".join(errors))
    for path, value in [(("runs", 0, "verdict"), "fine"), (("runs", 0, "peak_rss_bytes"), -1),
                        (("traces", 0, "complete"), None), (("schema_version",), 1)]:
        damaged = copy.deepcopy(results)
        place = damaged
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        if validator.is_valid(damaged):
            sys.exit(f"the schema takes {value!r} at {path}")
    print(f"{len(results['runs'])} runs valid")


main()
