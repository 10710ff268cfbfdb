"""How our tools end: a mistake is one line and exit status 2, not a traceback."""

import os
import sys
from collections.abc import Callable

# What is raised for a user's mistake, for what the machine lacks, and for a training that came to nothing.
_MISTAKES = (ValueError, OSError, ImportError, FloatingPointError)

# Set to 1 by who wants to see where an error comes from.
DEBUG_VARIABLE = 'MMSEG_EXT_DEBUG'


def run_tool(main: Callable[[], object]) -> None:
    """Run a tool and end the process: status 0 or the one that it returns, 2 after one line where it raises.

    With ``MMSEG_EXT_DEBUG=1`` errors keep their traceback.
    """
    if os.environ.get(DEBUG_VARIABLE) == '1':
        result = main()
    else:
        try:
            result = main()
        except KeyboardInterrupt:
            sys.exit(130)
        except _MISTAKES as error:
            print(f'error: {error} ({DEBUG_VARIABLE}=1 shows where)', file=sys.stderr, flush=True)
            sys.exit(2)
    sys.exit(result if isinstance(result, int) else 0)
