"""Reads the YAML of deploy/ for the tests, refuses what its readers would refuse, and prints it as JSON.

usage: read.py kubernetes VERSION < OBJECTS    strictly by Kubernetes' own schemas; a line for each object, as
                                               {"Checked": whether there is a schema for it, "Object": it}
       read.py compose < FILE                  by the Compose specification
       read.py plain < FILE
"""

import json
import sys

import yaml


def kubernetes(version):
    import kubernetes_validate

    for thing in yaml.safe_load_all(sys.stdin):
        try:
            kubernetes_validate.validate(thing, version, strict=True)
            checked = True
        except kubernetes_validate.SchemaNotFoundError:
            checked = False
        except kubernetes_validate.ValidationError as error:
            sys.exit(f"{thing['kind']} {thing['metadata']['name']}: {'.'.join(map(str, error.path))}: {error.message}")
        print(json.dumps({"Checked": checked, "Object": thing}))


def compose():
    from compose_spec import PyCompose

    # Merge keys are YAML's, and are resolved by now.
    thing = yaml.safe_load(sys.stdin)
    PyCompose.from_json(json.dumps(thing))
    print(json.dumps(thing))


def plain():
    print(json.dumps(yaml.safe_load(sys.stdin)))


if __name__ == "__main__":
    {"kubernetes": kubernetes, "compose": compose, "plain": plain}[sys.argv[1]](*sys.argv[2:])
