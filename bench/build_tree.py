"""Where the parts of a build tree lie that a benchmark needs."""

import pathlib
import sys


class NotBuilt(Exception):
    pass


def parts(build, *names):
    """Paths of these: heaptape, the preload libheaptape.so, and what bench/ builds. NotBuilt says what to do."""
    build = pathlib.Path(build).resolve()
    places = {"heaptape": build / "bin" / "heaptape", "libheaptape.so": build / "lib" / "heaptape" / "libheaptape.so"}
    paths = [places.get(name, build / "bench" / name) for name in names]
    for path in paths:
        if not path.exists():
            raise NotBuilt(f"{path}: not built; run cmake --preset release and cmake --build --preset release")
    return paths


def parts_or_exit(command, build, *names):
    """For commands that say on one line why they end."""
    try:
        return parts(build, *names)
    except NotBuilt as error:
        sys.exit(f"{command}: {error}")
