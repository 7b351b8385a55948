"""Write an RO-Crate: a folder, or a ZIP file, of files with metadata that other programs read."""

import os
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any, NamedTuple

from cathodeflow.errors import InputError

# The profiles of a run of a workflow, which runcrate and WorkflowHub recognise.
_PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
# Terms of these profiles that the context of RO-Crate itself lacks.
_CONTEXT = "https://w3id.org/ro/terms/workflow-run/context"


class CrateFile(NamedTuple):
    """A file or folder that is described in a crate.

    Attributes
    ----------
    place : str
        Path in the crate with `/`; a folder ends with one. For data that is not copied, a URI; for several files, a
        name that begins with `#`.
    source : str or None
        File or folder to copy; None if it is only described.
    digest : str or None
        SHA-256 of the content as hexadecimal digits; of a folder, that of its manifest.
    about : str
        Description; "" for none.
    parts : sequence of str
        Of several files, their places.
    """

    place: str
    source: str | None = None
    digest: str | None = None
    about: str = ""
    parts: Sequence[str] = ()


class CrateAction(NamedTuple):
    """A job, or the run of the whole workflow.

    Attributes
    ----------
    name : str
    tool : str
        Identifier of a tool of the crate, or the place of its workflow.
    start, end : str
        ISO 8601.
    agent : str or None
        Name of the user.
    inputs, outputs : sequence of str
        Places of files of the crate.
    settings : dict of str to str
        Values of the options, by key.
    """

    name: str
    tool: str
    start: str
    end: str
    agent: str | None
    inputs: Sequence[str]
    outputs: Sequence[str]
    settings: dict[str, str]


class Crate(NamedTuple):
    """What a crate holds.

    Attributes
    ----------
    name, about, date : str
        Title, description, and time of the end of the run (ISO 8601).
    workflow : str
        Place of the Snakefile.
    engine : str
        Version of Snakemake.
    files : sequence of CrateFile
    tools : dict of str to dict
        Software by identifier that begins with `#`: name, version, requirements (identifiers of other tools).
    actions : sequence of CrateAction
        The run of the workflow comes first.
    """

    name: str
    about: str
    date: str
    workflow: str
    engine: str
    files: Sequence[CrateFile]
    tools: dict[str, dict[str, Any]]
    actions: Sequence[CrateAction]


def write_crate(out: str, crate: Crate) -> None:
    """Write a crate into a folder or, with the suffix `.zip`, a file. It appears as a whole or not at all.

    Raises
    ------
    InputError
        There is something at `out` already.
    """
    if not out:
        raise InputError("--out", "an empty name", "a folder or ZIP file")
    # A crate holds files of others, which a newer one must not remove.
    if os.path.lexists(out):
        raise InputError(out, "an existing file or folder", "a new name: a crate replaces nothing")
    above = os.path.dirname(os.path.abspath(out))
    if not os.path.isdir(above):
        raise InputError(above, "no such folder", "an existing folder for the crate")
    described = _described(crate)
    with tempfile.TemporaryDirectory(dir=above, prefix=".crate-") as folder:
        zipped = out.lower().endswith(".zip")
        made = os.path.join(folder, "crate.zip" if zipped else "crate")
        described.write_zip(made) if zipped else described.write(made)
        shutil.move(made, out)


def _described(crate: Crate) -> Any:
    from rocrate.model import ContextEntity
    from rocrate.rocrate import ROCrate

    made = ROCrate(version="1.1")
    made.name, made.description, made.datePublished = crate.name, crate.about, crate.date
    made.license = "Not stated: add the licence of the data."
    made.metadata.extra_contexts.append(_CONTEXT)
    entities: dict[str, Any] = {}
    for file in crate.files:
        if file.place != crate.workflow:
            entities[file.place] = _add_file(made, file)
    for file in crate.files:
        if file.parts:
            entities[file.place]["hasPart"] = [entities[place] for place in file.parts]
    (snakefile,) = (file for file in crate.files if file.place == crate.workflow)
    main = made.add_workflow(snakefile.source, snakefile.place, main=True, lang="snakemake", lang_version=crate.engine)
    main["name"] = "Cathodeflow"
    entities[crate.workflow] = main
    for identifier, content in crate.tools.items():
        about: dict[str, Any] = {"@type": "SoftwareApplication", "name": content["name"], "version": content["version"]}
        entities[identifier] = made.add(ContextEntity(made, identifier, properties=about))
    for identifier, content in crate.tools.items():
        if content.get("requires"):
            entities[identifier]["softwareRequirements"] = [entities[other] for other in content["requires"]]
    profiles = [
        made.add(ContextEntity(made, uri, properties={"@type": "CreativeWork", "name": name, "version": version}))
        for uri, (name, version) in _PROFILES.items()
    ]
    made.root_dataset["conformsTo"] = profiles
    actions = [_add_action(made, action, number, entities) for number, action in enumerate(crate.actions)]
    made.root_dataset["mentions"] = actions
    return made


def _add_file(made: Any, file: CrateFile) -> Any:
    from rocrate.model import ContextEntity

    more: dict[str, Any] = {"sha256": file.digest} if file.digest else {}
    more |= {"description": file.about} if file.about else {}
    if file.source is None:
        kind = "Collection" if file.place.startswith("#") else "Dataset" if file.place.endswith("/") else "File"
        name = file.place.removeprefix("#") if kind == "Collection" else os.path.basename(file.place.rstrip("/"))
        return made.add(ContextEntity(made, file.place, properties={"@type": kind, "name": name, **more}))
    add = made.add_dataset if file.place.endswith("/") else made.add_file
    size = {} if file.place.endswith("/") else {"contentSize": str(os.path.getsize(file.source))}
    return add(file.source, file.place, properties={"name": file.place.rstrip("/"), **size, **more})


def _add_action(made: Any, action: CrateAction, number: int, entities: dict[str, Any]) -> Any:
    from rocrate.model import ContextEntity, Person

    properties = {"name": action.name, "startTime": action.start, "endTime": action.end}
    properties["actionStatus"] = "http://schema.org/CompletedActionStatus"
    values = [
        made.add(
            ContextEntity(
                made,
                f"#action-{number}-{key}",
                properties={"@type": "PropertyValue", "name": key, "value": value},
            )
        )
        for key, value in action.settings.items()
    ]
    added = made.add_action(
        entities[action.tool],
        identifier=f"#action-{number}",
        object=[*(entities[place] for place in action.inputs), *values],
        result=[entities[place] for place in action.outputs],
        properties=properties,
    )
    if action.agent:
        identifier = f"#{action.agent}"
        person = made.get(identifier) or made.add(Person(made, identifier, properties={"name": action.agent}))
        added["agent"] = person
    return added
