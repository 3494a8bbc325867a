"""Writes Debian's form of the newest entry of CHANGELOG.md, gzipped the same way each time.

Usage: debian_changelog.py CHANGELOG.md VERSION PACKAGE_VERSION MAINTAINER OUTPUT.gz

The entry is "## VERSION (2026-11-24)" or "## VERSION (not released)", followed by a list. Fails where the newest entry
is of another version than the one that is being packaged.
"""

import datetime
import gzip
import re
import sys
import textwrap


def main():
    source, version, package_version, maintainer, output = sys.argv[1:]
    text = open(source).read()
    heading = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d|not released)\)\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    if not heading or heading.group(1) != version:
        sys.exit(f"{source}: the newest entry is not of version {version}. Write one: ## {version} (YEAR-MONTH-DAY)")
    date = heading.group(2)
    released = date != "not released"
    moment = datetime.datetime.fromisoformat(date if released else "2026-01-01")
    changes = [" ".join(item.split()) for item in re.split(r"^- ", heading.group(3), flags=re.M)[1:]]
    if not changes:
        sys.exit(f"{source}: the entry of version {version} lists no changes")
    lines = [f"heaptape ({package_version}) {'unstable' if released else 'UNRELEASED'}; urgency=medium", ""]
    for change in changes:
        lines += textwrap.wrap(change.replace("`", ""), 78, initial_indent="  * ", subsequent_indent="    ")
    lines += ["", f" -- {maintainer}  {moment.strftime('%a, %d %b %Y %H:%M:%S +0000')}", ""]
    with open(output, "wb") as file:
        with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=file, mtime=0) as zipped:
            zipped.write("\n".join(lines).encode())


main()
