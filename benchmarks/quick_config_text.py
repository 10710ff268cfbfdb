"""mmengine formats a config's text anew for every checkpoint that it writes: most of a tiny training's time."""

import yapf.yapflib.yapf_api


def format_texts_once() -> None:
    """Make this process format each text once."""
    format_code, known = yapf.yapflib.yapf_api.FormatCode, {}

    def format_once(text: str, **options):
        key = text, repr(options)
        if key not in known:
            known[key] = format_code(text, **options)
        return known[key]

    yapf.yapflib.yapf_api.FormatCode = format_once
