"""Fails on an #include against the way of the data.

preload -> raw event layout; recorder -> traces; replayer -> traces, allocators; exporters and reports ->
results; commands -> all; nothing includes commands, bench or tests.
"""

import pathlib
import re
import sys

# The first pattern that matches a file says which project headers it may include.
RULES = [
    (r"recorder/(preload/|raw_)", r"recorder/(preload/|raw_)"),
    (r"recorder/", r"(recorder|traces)/(?!lab/)"),
    (r"traces/lab/", r"traces/"),
    (r"traces/", r"traces/(?!lab/)"),
    (r"allocators/", r"allocators/"),
    (r"replayer/(export|report)/", r"replayer/(export/|report/|results\.h|steady_state\.h)"),
    (r"replayer/worker/", r"(replayer/worker/|allocators/|traces/event\.h)"),
    (r"replayer/commands/", r"(recorder|traces|allocators|replayer)/"),
    (r"replayer/", r"(replayer/(?!commands/)|traces/(?!lab/)|allocators/)"),
    (r"bench/", r"(recorder|traces|allocators|replayer|bench)/"),
    (r"tests/", r"(recorder|traces|allocators|replayer|tests)/"),
]
PROJECT_INCLUDE = re.compile(r'^\s*#\s*include\s+"((?:recorder|traces|allocators|replayer|bench|tests)/[^"]+)"', re.M)
ANY_INCLUDE = re.compile(r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', re.M)
# What would bring another library into the traced program.
NOT_IN_PRELOAD = re.compile(r"^(absl/|zstd|xxhash|nlohmann/|CLI/|string$|vector$|map$|memory$|functional$|iostream$|mutex$|thread$)")


def main(root):
    root = pathlib.Path(root)
    sources = [path for folder in ("recorder", "traces", "allocators", "replayer", "bench", "tests")
               for path in (root / folder).rglob("*") if path.suffix in (".h", ".cc", ".c")]
    if len(sources) < 10:
        sys.exit(f"{root}: only {len(sources)} source files found; is this the project's folder?")
    broken = 0
    for path in sorted(sources):
        name = path.relative_to(root).as_posix()
        text = path.read_text()
        allowed = next(pattern for matcher, pattern in RULES if re.match(matcher, name))
        for included in PROJECT_INCLUDE.findall(text):
            if not re.match(allowed, included):
                print(f"{name}: must not include {included}")
                broken += 1
        if re.match(RULES[0][0], name):
            for included in ANY_INCLUDE.findall(text):
                if NOT_IN_PRELOAD.match(included):
                    print(f"{name}: {included} must not enter the traced program")
                    broken += 1
    print(f"{len(sources)} files checked, {broken} forbidden includes")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
