"""Finds the commands and programs that the documents show, so that tests can run exactly these."""

import re

from conftest import ROOT

DOCUMENTS = ("README.md", "docs/clients.md", "docs/keys.md")


def blocks(document, language):
    """The fenced blocks of a language, with their line numbers."""
    text = (ROOT / document).read_text()
    for found in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, found.start()) + 1, found.group(1)


def comments(document):
    """What stands behind `#` at the head of a YAML file."""
    head = []
    for line in (ROOT / document).read_text().splitlines():
        if not line.startswith("#"):
            break
        head.append(line[1:].strip() or "")
    return "\n".join(head)


def commands(text, program):
    """Shell commands that begin with a program, continued lines included."""
    return re.findall(rf"^{program} (?:[^\\\n]|\\.|\\\n)*", text, re.MULTILINE)


def curls():
    """Every curl of the documents: where it stands, and its text."""
    found = [("conf/demo.yaml", text) for text in commands(comments("conf/demo.yaml"), "curl")]
    for document in DOCUMENTS:
        for _, block in blocks(document, "sh"):
            found += [(document, text) for text in commands(block, "curl")]
    return found


def scripts():
    """Every shell block of the documents that uses the command line of a running proxy."""
    found = [(f"{document}:{line}", text) for document in DOCUMENTS for line, text in blocks(document, "sh")]
    return [(where, text) for where, text in found if re.search(r"dheera_ai (?:key|spend)\b", text)]


def programs(language):
    """Every program of the documents in a language."""
    return [(f"{document}:{line}", text) for document in DOCUMENTS for line, text in blocks(document, language)]


def commands_of_clients():
    """Every shell block of the documents that calls the proxy with a client's own command."""
    return [(where, text) for where, text in programs("sh") if re.search(r"^(?:aws|claude) ", text, re.MULTILINE)]


def commands_of_https():
    """The block that says how to try https."""
    [text] = [text for _, text in blocks("docs/clients.md", "text") if text.startswith("dheera_ai dev-cert")]
    return text


def clients():
    """The rows of the table of clients, as cells of text."""
    rows = re.findall(r"^\| \[(.+?)\]\(#\S+\) \| (.+) \|$", (ROOT / "docs/clients.md").read_text(), re.MULTILINE)
    return [(name, *cells.split(" | ")) for name, cells in rows]


def configurations():
    """Every YAML configuration of the documents."""
    return [(f"{document}:{line}", text) for document in DOCUMENTS for line, text in blocks(document, "yaml")]


def links():
    """Every link between files of the project."""
    found = []
    for document in DOCUMENTS:
        folder = (ROOT / document).parent
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", (ROOT / document).read_text()):
            found.append((document, folder / target))
    return found
