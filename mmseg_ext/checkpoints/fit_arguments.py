"""The switches of our tools that say which weights may miss."""

import argparse


def add_fit_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--allow-missing`` and ``--allow-unexpected`` to a tool."""
    parser.add_argument(
        '--allow-missing', nargs='+', default=[], metavar='PREFIX',
        help='weights of the model that begin so need not be in the checkpoint',
    )  # fmt: skip
    parser.add_argument(
        '--allow-unexpected', nargs='+', default=[], metavar='PREFIX',
        help='weights in the checkpoint that begin so need not be in the model',
    )  # fmt: skip


def fit_from_args(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the arguments of :func:`.coverage.load_weights` that the switches name."""
    return dict(allow_missing=args.allow_missing, allow_unexpected=args.allow_unexpected)
