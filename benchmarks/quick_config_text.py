"""mmengine formats a config's text for every run and checkpoint that it writes: most of a tiny training's time."""

import mmengine.config.config
import yapf.yapflib.yapf_api


def leave_config_texts_unformatted() -> None:
    """Make this process write the texts of configs as they are, which is Python too."""

    def as_it_is(text: str, **_) -> tuple[str, bool]:
        return text, False

    yapf.yapflib.yapf_api.FormatCode = as_it_is
    if hasattr(mmengine.config.config, 'FormatCode'):  # mmengine 0.10.7 has imported it
        mmengine.config.config.FormatCode = as_it_is
