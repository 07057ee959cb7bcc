"""The command line: each verb parses, calls the library, and prints.

    group      verbs, suggestions, errors to exit codes        encode        encode
    options    options that several verbs share                drawing       reconstruct, pack, unpack
    terminal   JSON lines, messages, tables, progress          predictions   predict
    outputs    files written whole, and their names            features      features, derive
    answers    files of what heads answer                      stores        inspect, verify
                                                               upkeep        label, remove, merge, compact
                                                               training      train
                                                               models        models, evaluate
                                                               machine       doctor

Nothing here imports torch, numpy or lance before a verb runs, so every `--help` is instant.
"""

from __future__ import annotations

import click

import chiasm
from chiasm.cli.drawing import pack, reconstruct, unpack
from chiasm.cli.encode import encode
from chiasm.cli.features import derive, features
from chiasm.cli.group import VerbGroup
from chiasm.cli.machine import doctor
from chiasm.cli.models import evaluate
from chiasm.cli.models import models as models_verb
from chiasm.cli.predictions import predict
from chiasm.cli.stores import inspect, verify
from chiasm.cli.training import train
from chiasm.cli.upkeep import compact, label, merge, remove
from chiasm.flow.threads import wait_quietly

__all__ = ["main"]


@click.group(cls=VerbGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(chiasm.__version__, prog_name="chiasm")
def main() -> None:
    """Encode an image once; every vision task is then a cheap head on what was stored.

    \b
    Exit codes:
      0    all done
      1    some pictures failed or are damaged; they were named, and a store lists them in its errors table
      2    the command line is wrong
      3    an error that stops everything: a bad store, packet, config or disk
      70   a bug in chiasm; the traceback was printed
      130  interrupted; what a store had committed is safe, and the same command goes on
      141  nobody reads the output any more, as after `| head -1`

    With --json every verb prints one JSON object a line on stdout, the last one being {"event": "summary", ...},
    or {"event": "error", ...} before an exit with 3, 70 or 130. Messages go to stderr.
    """
    wait_quietly()


VERBS = (
    encode,
    reconstruct,
    predict,
    derive,
    features,
    inspect,
    label,
    remove,
    merge,
    compact,
    verify,
    pack,
    unpack,
    models_verb,
    doctor,
    train,
    evaluate,
)
for verb in VERBS:
    main.add_command(verb)
