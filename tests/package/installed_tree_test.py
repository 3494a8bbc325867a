"""Installs the build tree elsewhere and uses it as others do: programs that read traces, built by CMake and by
pkg-config, beside what `heaptape inspect` says; record and replay from the moved tree; documents with whole links.

Usage: installed_tree_test.py BUILD_DIR SAMPLE_TRACE
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent


def run(command, **options):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def fields(text):
    return dict(line.split(" ", 1) for line in text.splitlines())


def check_reader(build, library, sample, inspected):
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library)}
    counts = fields(run([build / "count_calls", sample], env=environment))
    assert {name: int(count) for name, count in counts.items()} == inspected["events_by_kind"], counts
    found = fields(run([build / "live_bytes", sample], env=environment))
    for key in ("duration_ns", "peak_live_bytes", "never_freed_bytes", "never_freed_objects"):
        assert int(found[key]) == inspected[key], (key, found, inspected[key])
    assert found["program"] == inspected["recorded"]["program"]
    assert int(found["resident_samples"]) > 0
    for program in ("count_calls", "live_bytes"):
        done = subprocess.run([build / program, "/bin/sh"], env=environment, capture_output=True, text=True)
        assert done.returncode == 1 and "/bin/sh: not a heaptape trace" in done.stderr, done


def check_hardening(prefix, heaptape):
    """What .github/SECURITY.md says of the programs."""
    parts = heaptape.parent.parent / "lib/heaptape"
    for path in (heaptape, parts / "heaptape-worker", parts / "heaptape-probe", parts / "heaptape-writer.so", parts / "libheaptape.so",
                 next(prefix.rglob("libheaptape-trace.so.0"))):
        segments, dynamic = run(["readelf", "-lW", path]), run(["readelf", "-dW", path])
        assert re.search(r"GNU_STACK.* RW +0x", segments), f"{path}: executable stack"
        assert "GNU_RELRO" in segments and "NOW" in dynamic, f"{path}: no full RELRO"
        assert "RPATH" not in dynamic and "RUNPATH" not in dynamic, f"{path}: looks for libraries elsewhere"
        assert "INTERP" not in segments or "PIE" in dynamic, f"{path}: not position independent"
        fortified = "__stack_chk_fail" in run(["nm", "-D", path])
        assert fortified == (path.name in ("heaptape", "heaptape-writer.so", "libheaptape-trace.so.0")), f"{path}: stack protector {fortified}"
    needed = re.findall(r"NEEDED.*\[(.*)\]", run(["readelf", "-dW", parts / "libheaptape.so"]))
    assert needed == ["libc.so.6"], f"the preload needs {needed}"


def main():
    build, sample = [pathlib.Path(argument).resolve() for argument in sys.argv[1:]]
    folder = pathlib.Path(tempfile.mkdtemp(prefix="heaptape-installed-"))
    try:
        # By DESTDIR, and then moved: nothing in it may know where it was made.
        run(["cmake", "--install", build, "--prefix", "/usr"], env={**os.environ, "DESTDIR": str(folder / "staged")})
        prefix = folder / "moved"
        (folder / "staged/usr").rename(prefix)
        assert not any((folder / "staged").rglob("*.*")), "something was installed outside of the prefix"

        heaptape = prefix / "bin/heaptape"
        inspected = json.loads(run([heaptape, "inspect", "--format", "json", sample]))
        library = next(prefix.rglob("libheaptape-trace.so.0")).parent

        run(["cmake", "-S", HERE / "reader", "-B", folder / "by-cmake", f"-DCMAKE_PREFIX_PATH={prefix}"])
        run(["cmake", "--build", folder / "by-cmake"])
        check_reader(folder / "by-cmake", library, sample, inspected)

        environment = {**os.environ, "PKG_CONFIG_PATH": str(library / "pkgconfig")}
        flags = run(["pkg-config", "--cflags", "--libs", "heaptape"], env=environment).split()
        (folder / "by-hand").mkdir()
        run(["cc", "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", HERE / "reader/count_calls.c", "-o", folder / "by-hand/count_calls",
             *flags])
        run(["c++", "-std=c++20", "-pedantic", "-Wall", "-Wextra", "-Werror", HERE / "reader/live_bytes.cc", "-o", folder / "by-hand/live_bytes",
             *flags])
        check_reader(folder / "by-hand", library, sample, inspected)
        version = run(["pkg-config", "--modversion", "heaptape"], env=environment).strip()
        assert run([heaptape, "--version"]).strip() == f"heaptape {version}"

        exported = [line.split()[-1].split("@")[0] for line in run(["nm", "-D", "--defined-only", library / "libheaptape-trace.so.0"]).splitlines()]
        declared = re.findall(r"\b(heaptape_\w+)\(", (HERE.parents[1] / "traces/library/heaptape/trace.h").read_text())
        assert set(exported) - {"heaptape_trace_0"} == set(declared), set(exported) ^ set(declared)

        run([heaptape, "record", "-o", folder / "ls.tape", "--", "ls", "/"], cwd=folder)
        replayed = json.loads(run([heaptape, "replay", folder / "ls.tape", "-a", "glibc", "-f", "json"],
                                  env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}))
        assert replayed["runs"][0]["events_replayed"] > 10, replayed

        check_hardening(prefix, heaptape)
        documents = list((prefix / "share/doc/heaptape").rglob("*.md"))
        assert len(documents) > 8, documents
        for document in documents:
            for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text()):
                target = document.parent / link
                if link.endswith(".md") and not target.exists():
                    raise AssertionError(f"{document}: links to {link}, which is not installed")
        page = run(["man", "-l", "--", next(prefix.rglob("heaptape.1.gz"))], env={**os.environ, "MANWIDTH": "100"}) if shutil.which("man") else ""
        assert not page or "heaptape replay" in page
        print(f"{len(exported)} functions exported, {len(documents)} documents, version {version}")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


main()
