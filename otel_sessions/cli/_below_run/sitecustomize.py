"""Switch tracing on in a Python program below `otel-sessions run`, where it has our package.

Imported by `site` in every Python there, whatever its version and whatever it has installed: `run` puts this
folder, and nothing else, on PYTHONPATH. So there is no syntax here that an old one does not know, and the
customisation that would have been found without us comes first.
"""  # noqa: INP001 - a folder to be searched, no package

import sys

__all__ = []


def _customise_as_without_us() -> None:
    """Import the `sitecustomize` that this one hides."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    ours = __spec__.origin
    folder = ours[: -len("/sitecustomize.py")]
    found = PathFinder.find_spec("sitecustomize", [entry for entry in sys.path if entry != folder])
    if found is None or found.loader is None or found.origin == ours:
        return
    module = module_from_spec(found)
    sys.modules["sitecustomize"] = module
    found.loader.exec_module(module)


def _begin() -> None:
    """Switch it on; without our package, or with one of another version, do nothing."""
    try:
        from otel_sessions.sdk._auto import begin_below_a_runner
    except ImportError:
        return
    begin_below_a_runner()


try:
    _customise_as_without_us()
finally:
    if sys.version_info >= (3, 10):  # noqa: UP036 - older ones may well run below us
        _begin()
