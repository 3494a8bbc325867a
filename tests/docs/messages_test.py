"""Every error message of the sources says what to do, itself or in a row of docs/messages.md.

Usage: messages_test.py PROJECT_FOLDER [--list]

--list prints them all, to be read in one go: where it stands, the message ("..." for what varies), and what explains it.
"""

import pathlib
import re
import sys

# What begins a part of a message that tells what to do.
REMEDY = re.compile(r"(?:^|[.;:,?(]\s*|\band )(?:add|choose|check|copy|delete|did you mean|free|give|install|is the disk full|keep|known|link|"
                    r"make|move|name|raise|rebuild|record(?! \.\.\.:)|reduce|reinstall|remove|replay|report|run|say|see|set|start|take|unpack|use|write|wants|"
                    r"`heaptape|leave out|without a network|build it|there (?:are|is))\b"
                    r"|apt-get install|Now run|goes on from there|has to be at least|must (?:be|lie|need)|\bneeds --|\blike \.\.\.", re.I)


def text_of(argument):
    """The literals of an expression, joined; "..." where something else stands between or beside them."""
    out, position, other = "", 0, False
    for match in re.finditer(r'"((?:[^"\\]|\\.)*)"', argument):
        between = argument[position:match.start()]
        if re.search(r"[A-Za-z0-9_]", re.sub(r"\bstd::string_view\b|\bstd::string\b|\babsl::\w+\b", "", between)) and not other:
            out += "..."
        out += re.sub(r"%[-+ #0-9.*]*(?:ll|l|z|h)?[a-zA-Z]", "...", match.group(1).replace('\\"', '"').replace("\\n", " ").replace("%%", "%"))
        position, other = match.end(), False
    if re.search(r"[A-Za-z0-9_]", argument[position:]):
        out += "..."
    return re.sub(r"(?:\.\.\. ?){2,}", "... ", re.sub(r"\.{3,}", "...", out)).strip()


def arguments(source, opening):
    """(position, text between its brackets) of each call whose beginning matches."""
    for match in re.finditer(opening, source):
        depth, position = 1, match.end()
        while depth:
            token = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)\'|[()]|[^"\'()]+|.', re.S).match(source, position)
            depth += {"(": 1, ")": -1}.get(token.group(0), 0)
            position = token.end()
        yield match.start(), source[match.end():position - 1]


def messages(root):
    found = {}
    for folder in ("recorder", "traces", "allocators", "replayer"):
        for path in sorted((root / folder).rglob("*.cc")):
            source = re.sub(r"^\s*//.*$", "", path.read_text(), flags=re.M)
            for opening in (r"absl::(?!Cancelled)\w+Error\(", r"std::fprintf\(stderr, (?=\"heaptape: )", r"std::fputs\((?=\"heaptape: )", r"\bTell\((?=\"|absl::Str)"):
                for _, argument in arguments(source, opening):
                    text = text_of(argument).removeprefix("heaptape: ").removesuffix("...stderr").strip()
                    if len(re.sub(r"[^a-z]", "", text)) >= 6:
                        found.setdefault((path.relative_to(root).as_posix(), text), None)
    return list(found)


def bare(text):
    """A message with one "..." for all that varies at a place, however it is joined."""
    return re.sub(r"\.\.\.(?:[\s,.]*\.\.\.)*[\s,.]*", "...", text)


def rows(root):
    """The messages that the document explains, each with what finds it among those of the sources: capitals vary, or stand there."""
    cells = re.findall(r"^\| (`.*?`) \|", (root / "docs/messages.md").read_text(), re.M)
    for row in (row.strip(" .,:;") for cell in cells for row in re.findall(r"`(.*?)`(?:, |$)", cell)):
        varied = bare(re.sub(r"\b(?:[A-Z][A-Z0-9_-]*[A-Z0-9]|N)\b", "...", row))
        yield row, re.compile("|".join(rf"(?<![A-Za-z-]){re.escape(form)}" for form in (varied, row)))


def main(root, show):
    explained = list(rows(root))
    wrong = 0
    found = messages(root)
    for path, text in found:
        row = next((row for row, expression in explained if expression.search(bare(text))), None)
        by = "itself" if REMEDY.search(text) else row
        if show:
            print(f"{path}\t{text}\t{by}")
        elif by is None:
            print(f"{path}: says not what to do, and no row of docs/messages.md explains it: {text}")
        wrong += by is None
    if not show:
        print(f"{len(found)} messages, {wrong} wrong")
    return 1 if wrong or len(found) < 200 else 0


sys.exit(main(pathlib.Path(sys.argv[1]).resolve(), "--list" in sys.argv[2:]))
