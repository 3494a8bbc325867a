"""Fails on a link between documents that leads nowhere, and on a message of docs/messages.md that no source prints.

Usage: links_test.py PROJECT_FOLDER
"""

import pathlib
import re
import sys


def anchors(text):
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def check_links(root, documents):
    wrong, count = [], 0
    for document in documents:
        for link, anchor in re.findall(r"\]\(([^)#:]*)(?:#([^)]*))?\)", document.read_text()):
            count += 1
            target = (document.parent / link).resolve() if link else document
            if not target.exists():
                wrong.append(f"{document.relative_to(root)}: no {link}")
            elif anchor and anchor not in anchors(target.read_text()):
                wrong.append(f"{document.relative_to(root)}: no heading #{anchor} in {target.name}")
    return wrong, count


def source_text(root):
    """All string literals of the sources, with those next to each other joined as the compiler does."""
    text = []
    for folder in ("recorder", "traces", "allocators", "replayer"):
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".cc", ".h") or path.name == "bootstrap":
                text.append(re.sub(r'"\s*\n\s*"', "", path.read_text()))
    return "\n".join(text).replace('\\"', '"')


def check_messages(root):
    source = source_text(root)
    cells = re.findall(r"^\| (`.*?`) \|", (root / "docs/messages.md").read_text(), re.M)
    rows = [row for cell in cells for row in re.findall(r"`(.*?)`(?:, |$)", cell)]
    # What varies stands in capitals; what stays must be in one place of the source.
    wrong = [f"docs/messages.md: no source prints: {row}" for row in rows
             if not all(part in source for part in re.split(r"\b[A-Z][A-Z0-9_-]*[A-Z0-9]\b|\bN\b", row) if len(part.strip(" .,:;()/")) > 3)]
    return wrong, len(rows)


def main(root):
    root = pathlib.Path(root).resolve()
    documents = [path for path in root.rglob("*.md") if not {"build", "node_modules", ".git"} & set(path.relative_to(root).parts)]
    wrong, links = check_links(root, documents)
    more, messages = check_messages(root)
    print("\n".join(wrong + more))
    print(f"{len(documents)} documents, {links} links, {messages} messages, {len(wrong + more)} wrong")
    return 1 if wrong or more or links < 20 or messages < 20 else 0


sys.exit(main(sys.argv[1]))
