"""Read the text of a configuration file, and say where it is no text, no YAML or no mapping."""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path

import yaml

from stages.core.config import ConfigError, dotted_path
from stages.core.contents import describe_os_error, parse_json

# The mark of UTF-32 begins with that of UTF-16.
_MARKS = {
    codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16",
}  # fmt: skip
_KINDS = {yaml.SequenceNode: "a list", yaml.ScalarNode: "a single value", type(None): "nothing"}


def check_files(files: Iterable[str], default: bool) -> None:
    """Check the given files and, if `default` is true, config.yaml, as `check_file` does.

    Snakemake's own message for a file that is no YAML names no line.
    """
    for file in map(Path, [*files, *(["config.yaml"] if default else [])]):
        if file.exists():
            check_file(file)


def check_file(file: Path) -> None:
    """Check a configuration file before its values are read.

    Raises
    ------
    ConfigError
        The file cannot be read, is not UTF-8, YAML or JSON, is no mapping, has a key twice, a value
        that contains itself, or a key or value that YAML cannot make, such as the 45th of May.
    """
    try:
        node = yaml.compose(text := _decode(file), yaml.SafeLoader)
    except OSError as error:
        raise ConfigError([describe_os_error(error)], str(file)) from None
    except RecursionError:
        raise ConfigError(
            ["found too many levels of brackets; allowed: fewer"], str(file)
        ) from None
    except yaml.YAMLError as error:
        if _is_json(text):  # whose indentation may be of tabs
            return
        raise ConfigError([_describe_yaml_error(error, text)], str(file)) from None
    if not isinstance(node, yaml.MappingNode):
        found = f"found {_KINDS[type(node)]}; allowed: keys with values, such as seeds: [0]"
        raise ConfigError([found], str(file))
    if faults := list(_faulty_values(node)) or list(duplicate_keys(node)):
        raise ConfigError(faults, str(file))
    try:
        yaml.SafeLoader("").construct_document(node)
    except yaml.YAMLError as error:  # an unknown tag, or a list as a key
        raise ConfigError([_describe_yaml_error(error, text)], str(file)) from None


def _decode(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        found = next(
            (name for mark, name in _MARKS.items() if content.startswith(mark)),
            f"the byte 0x{content[error.start]:02x} in line {line}",
        )
        fault = f"found {found}; allowed: text in UTF-8. Save the file again with this encoding"
        raise ConfigError([fault], str(file)) from None


def _is_json(text: str) -> bool:
    try:
        parse_json(text)
    except ValueError:
        return False
    return True


def _describe_yaml_error(error: yaml.YAMLError, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        line, problem = error.problem_mark.line + 1, error.problem
    else:
        assert isinstance(error, yaml.reader.ReaderError)
        line = text[: error.position].count("\n") + 1
        problem = f"the character {chr(error.character)!r}"
    shown = text.splitlines()[line - 1].strip()[:60] if line <= len(text.splitlines()) else ""
    return (
        f"line {line}: found {shown!r}: {problem}; allowed: YAML. Look at this line and those "
        "before it for a missing bracket, quote or colon, or a tab in place of spaces"
    )


def _faulty_values(node: yaml.Node) -> Iterator[str]:
    """Yield a fault for each value that YAML cannot make, or that contains itself."""
    loader = yaml.SafeLoader("")
    done: set[int] = set()

    def visit(node: yaml.Node, loc: tuple[int | str, ...], within: set[int]) -> Iterator[str]:
        path = dotted_path(loc)
        if id(node) in within:
            yield f"{path}: found an alias of what contains it; allowed: an alias of other values"
        if id(node) in done:
            return
        done.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            try:
                loader.construct_object(node)
            except (ValueError, yaml.YAMLError) as error:
                problem = error.problem if isinstance(error, yaml.MarkedYAMLError) else error
                line = node.start_mark.line + 1
                yield (
                    f"{path}: found {node.value[:60]!r} in line {line}: {problem}; "
                    "allowed: another value, or text in quotes"
                )
        elif isinstance(node, yaml.CollectionNode):
            for key, value in _entries(node):
                yield from visit(value, (*loc, key), within | {id(node)})

    yield from visit(node, (), set())


def _entries(node: yaml.CollectionNode) -> Iterable[tuple[int | str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        return [(str(key.value), value) for key, value in node.value]
    return list(enumerate(node.value))


def duplicate_keys(node: yaml.Node | None, loc: tuple[int | str, ...] = ()) -> Iterable[str]:
    """Yield a fault for each key that a mapping has twice; YAML itself silently uses the last one.

    Parameters
    ----------
    node
        A parsed YAML file, from `yaml.compose`, without a value that contains itself.
    loc
        Location of the node in the file.
    """
    if isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            path = (*loc, name)
            # Several merge keys (<<) in one mapping are allowed.
            if name in lines and key.tag != "tag:yaml.org,2002:merge":
                yield (
                    f"{dotted_path(path)}: found twice, in lines {lines[name]} and {line}; "
                    "allowed: each key once, with all its values"
                )
            lines[name] = line
            yield from duplicate_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from duplicate_keys(value, (*loc, index))
