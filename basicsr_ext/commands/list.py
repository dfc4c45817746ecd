"""``basicsr list``: everything that an option file may name, and who provides it."""

import argparse
import json
import sys

from basicsr_ext import repairs
from basicsr_ext.common import plugins, registries


def run(argv: list[str]) -> int:
    """Print the names, as text or JSON; failed plugins go to stderr."""
    parser = argparse.ArgumentParser(prog="basicsr list", description="Name everything that is registered.")
    parser.add_argument("--json", action="store_true", help="print JSON: {registry: {name: module}}")
    parser.add_argument("--plugins", nargs="+", default=[], help="modules or files to load, as in `plugins:`")
    args = parser.parse_args(argv)
    repairs.apply()
    plugins.load_entry_points()
    plugins.load_listed(args.plugins)
    names = {kind: registries.providers(registry) for kind, registry in sorted(registries.all_registries().items())}
    for plugin in plugins.failures():
        print(f"plugin {plugin.name} failed to load: {plugin.error}", file=sys.stderr)
    if args.json:
        print(json.dumps(names, indent=1))
        return 0
    width = max((len(name) for entries in names.values() for name in entries), default=0)
    for kind, entries in names.items():
        print(f"{kind}:")
        for name, module in entries.items():
            print(f"  {name:<{width}}  {module}")
    return 0
