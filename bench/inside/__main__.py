"""python -m bench.inside NAME JSON prints what the module's `figures(**options)` returns."""

import importlib
import json
import sys

if __name__ == "__main__":
    _, name, options = sys.argv
    module = importlib.import_module(f"bench.inside.{name}")
    print(json.dumps(module.figures(**json.loads(options))))
