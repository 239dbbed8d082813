"""The command `gaze-to-insight`, which `pip install` creates."""

import argparse
import sys
from importlib import import_module

from stages.core import cli

NAME = "gaze-to-insight"
# Subcommand → module, function, and what it does. A module is imported only if it runs.
COMMANDS = {
    "segment": ("stages.deploy.segment", "segment_images", "write masks of new images"),
    "app": ("stages.deploy.app", "app", "see masks of new images on a local page"),
    "export": ("stages.deploy.export", "export", "write a student as ONNX and for torch.export"),
}


def main(argv: list[str] | None = None) -> None:
    """Run a subcommand with the options that follow it."""
    argv = sys.argv[1:] if argv is None else argv
    if not argv or argv[0] not in COMMANDS:
        parser = argparse.ArgumentParser(
            prog=NAME,
            description="Use a trained student: it needs neither gaze nor text.",
            epilog="\n".join(
                [
                    *(f"  {name:<10} {text}" for name, (_, _, text) in COMMANDS.items()),
                    "",
                    f"`{NAME} COMMAND --help` lists the options of a command.",
                ]
            ),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        parser.add_argument("command", choices=COMMANDS)
        parser.parse_args(argv)
        return
    name, function, _ = COMMANDS[argv[0]]
    try:
        module = import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or error.name.partition(".")[0] == "stages":
            raise
        sys.exit(
            f"{NAME} {argv[0]}: the package {error.name} is not installed; "
            f"install it, for example by pip install '.[{argv[0]}]' in the project's folder"
        )
    cli.run(getattr(module, function), argv[1:], f"{NAME} {argv[0]}")


if __name__ == "__main__":
    main()
