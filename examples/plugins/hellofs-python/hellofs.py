"""A folder with one file, as a Python plugin of callfs. `callfs.FileSystem` says what else a filesystem can do."""
import dataclasses

import callfs


class Plugin(callfs.GeneratedFS):
    """Says hello."""

    name = "hellofs-python"

    @dataclasses.dataclass
    class Options:
        """What `mount` can tell it; checked and converted before `__init__`, secrets (kind="secret") masked everywhere."""

        greeting: str = callfs.option("Hello from Python plugin!", "What the file says")

    def __init__(self, options, context):
        super().__init__(options, context)
        self.files = {"hello": lambda: options.greeting.encode() + b"\n"}
